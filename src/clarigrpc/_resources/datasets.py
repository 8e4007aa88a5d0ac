"""Datasets, their inputs, and their versions with exports and metrics."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_ids,
    chunks,
)
from clarigrpc._resources.downloads import fetch
from clarigrpc._resources.long_running import (
    FollowsWork,
    Waits,
    Work,
    following,
    work_on_export,
)
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan, Run


class DatasetInputOperations(Gets[v2.DatasetInput], Lists[v2.DatasetInput]):
    """The inputs of a dataset."""

    _message = v2.DatasetInput
    _create_rpc = "PostDatasetInputs"
    _get_rpc = "GetDatasetInput"
    _list_rpc = "ListDatasetInputs"

    @operation
    def add(
        self, ids: str | Iterable[str], *, timeout: float | None = None
    ) -> Plan[list[v2.DatasetInput]]:
        """Add inputs of the app to the dataset, in requests of 128.

        Args:
            ids: Ids of inputs, one or many.
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            The added inputs, in the order given.

        Raises:
            NotFoundError: The only input does not exist.
            AlreadyExistsError: The only input is in the dataset already.
            PartialFailureError: Some inputs do not exist or are in the dataset already; ``failed``
                says which and why. The others were added.
            InvalidArgumentError: No id is given.
        """
        items = (v2.DatasetInput(input=v2.Input(id=one)) for one in as_ids(ids))
        return (yield from self._post(items, timeout, None))

    @operation
    def add_found(
        self, search: v2.Search, *, timeout: float | None = None
    ) -> Plan[v2.BulkOperation]:
        """Start adding all inputs found by a search to the dataset.

        Args:
            search: The search, made by ``query.search(...)``.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The operation in progress; wait for it with ``client.bulk_operations.wait``.
        """
        response: v2.MultiDatasetInputResponse = yield from self._invoke(
            "PostDatasetInputs", timeout, search=search
        )
        return response.bulk_operation

    @operation
    def remove(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Remove inputs from the dataset, in requests of 128. They stay in the app.

        Args:
            ids: Ids of inputs, one or many.
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            NotFoundError: No input of a request is in the dataset.
        """
        for chunk in chunks(as_ids(ids)):
            yield from self._invoke("DeleteDatasetInputs", timeout, input_ids=chunk)


class DatasetInputs(DatasetInputOperations, Sync): ...


class AsyncDatasetInputs(DatasetInputOperations, Async): ...


@named_in("clarigrpc.types")
class DatasetVersionFilters(Paging, total=False):
    """Options of ``client.datasets.versions(dataset_id).list``."""

    request_origins: Sequence[v2.DatasetVersionRequestOrigin.ValueType]


@named_in("clarigrpc.types")
class MetricsFilters(Paging, total=False):
    """Options of ``client.datasets.versions(dataset_id).metrics``."""

    parent_paths: Sequence[str]
    types: Sequence[v2.DatasetVersionMetricsGroupType.ValueType]
    values: Sequence[Any]


_EXPORTS: Mapping[str, str] = {
    "CLARIFAI_DATA_PROTOBUF": "clarifai_data_protobuf",
    "CLARIFAI_DATA_JSON": "clarifai_data_json",
    "COCO": "coco",
}


class DatasetVersionOperations(
    Creates[v2.DatasetVersion],
    Gets[v2.DatasetVersion],
    Patches[v2.DatasetVersion],
    Deletes[v2.DatasetVersion],
    Waits[v2.DatasetVersion],
    FollowsWork[v2.DatasetVersion],
):
    """The versions of a dataset: snapshots of its inputs, filtered and processed."""

    _message = v2.DatasetVersion
    _create_rpc = "PostDatasetVersions"
    _get_rpc = "GetDatasetVersion"
    _list_rpc = "ListDatasetVersions"
    _patch_rpc = "PatchDatasetVersions"
    _delete_rpc = "DeleteDatasetVersions"
    _work_name = "dataset version"
    _instead_of_cancel = "delete the version"

    @operation
    def export(
        self,
        version_id: str,
        *formats: v2.DatasetVersionExportFormat.ValueType,
        include_embeddings: bool = False,
        timeout: float | None = None,
    ) -> Plan[builtins.list[v2.DatasetVersionExport]]:
        """Start exporting a version as archives.

        Args:
            version_id: Id of the version.
            formats: At least one value of ``v2.DatasetVersionExportFormat``, e.g. ``COCO``.
            include_embeddings: Whether to include the embeddings. Default False.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The exports in progress; wait for one with ``wait_exported``, or follow it with
            ``follow_export``.

        Raises:
            NotFoundError: The version does not exist.
            InvalidArgumentError: No format is given.
        """
        if not formats:
            raise errors.InvalidArgumentError("export() needs at least one format")
        exports = [
            v2.DatasetVersionExport(format=one, include_embeddings=include_embeddings)
            for one in formats
        ]
        response: v2.MultiDatasetVersionExportResponse = yield from self._invoke(
            "PutDatasetVersionExports", timeout, dataset_version_id=version_id, exports=exports
        )
        return [*response.exports]

    @operation
    def wait_exported(
        self,
        version_id: str,
        format: v2.DatasetVersionExportFormat.ValueType,
        *,
        timeout: float = 300.0,
    ) -> Plan[v2.DatasetVersionExport]:
        """Wait until an export is complete.

        Polls its status at growing intervals (0.05 to 5 seconds).

        Args:
            version_id: Id of the version.
            format: Format of the export, a value of ``v2.DatasetVersionExportFormat``.
            timeout: Seconds for the whole wait. Default 300.

        Returns:
            The export, with the ``url`` of its zip archive and its ``size`` in bytes.

        Raises:
            ApiError: The export failed; the subclass and ``details`` say why.
            NotFoundError: The version has no export in this format.
            DeadlineExceededError: The export is not complete yet.
        """
        return (yield from self._work_on_export(version_id, format).wait(timeout))

    @following
    def follow_export(
        self, version_id: str, format: v2.DatasetVersionExportFormat.ValueType
    ) -> Work[v2.DatasetVersionExport]:
        """Follow an export: ask for its status, or wait for its end.

        Args:
            version_id: Id of the version, after ``export`` was called for it.
            format: Format of the export, a value of ``v2.DatasetVersionExportFormat``.

        Returns:
            An object with ``status()`` and ``wait()``, which returns the export with the ``url`` of
            its zip archive and its ``size`` in bytes. Nothing is sent yet.
        """
        return self._work_on_export(version_id, format)

    def _work_on_export(
        self, version_id: str, format: v2.DatasetVersionExportFormat.ValueType
    ) -> Work[v2.DatasetVersionExport]:
        field = _EXPORTS[v2.DatasetVersionExportFormat.Name(format)]
        name = f"{field} export of version {version_id!r}"
        method = self._get_rpc

        def fetch_export(seconds: float) -> Plan[v2.DatasetVersionExport]:
            version = yield from self._fetch(version_id, seconds)
            if not version.export_info.HasField(field):  # type: ignore[arg-type]
                raise errors.NotFoundError(
                    f"version {version_id!r} has no {field} export", method=method
                )
            export: v2.DatasetVersionExport = getattr(version.export_info, field)
            return export

        return work_on_export(self, name, method, fetch_export)

    @operation
    def download(
        self,
        version_id: str,
        format: v2.DatasetVersionExportFormat.ValueType,
        path: str | os.PathLike[str],
        *,
        timeout: float = 300.0,
    ) -> Plan[Path]:
        """Wait for an export and download its zip archive.

        Args:
            version_id: Id of the version, after ``export`` was called for it.
            format: Format of the export, a value of ``v2.DatasetVersionExportFormat``.
            path: File to write. An existing file is replaced when the download is complete.
            timeout: Seconds for the wait and the download together. Default 300.

        Returns:
            The path of the file.

        Raises:
            ConfigurationError: httpx is not installed (extra ``rest``).
            NotFoundError: The version has no export in this format.
            DeadlineExceededError: The archive is not there in time.
            ApiError: The export failed, or the archive cannot be downloaded.
            OSError: The file cannot be written.
        """
        deadline = time.monotonic() + timeout
        plan = DatasetVersionOperations.wait_exported.plan(
            self, version_id, format, timeout=timeout
        )
        export = yield from plan

        def receive() -> Path:
            return fetch(
                export.url,
                Path(path),
                size=export.size,
                deadline=deadline,
                local=self._client.settings.target.is_loopback,
                method="GetDatasetVersion",
            )

        written: Path = yield Run(receive)
        return written

    @iteration
    def metrics(
        self, version_id: str, /, **options: Unpack[MetricsFilters]
    ) -> ItemPlan[v2.DatasetVersionMetricsGroup]:
        """List statistics of a version: counts by type of input, by concept and so on.

        Args:
            version_id: Id of the version.
            parent_paths: Filter by paths that the groups are below.
            types: Filter by type of group, values of ``v2.DatasetVersionMetricsGroupType``.
            values: Filter by the value of the group.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            NotFoundError: The version does not exist; raised by the iterator.
        """
        return self._pages(
            "ListDatasetVersionMetricsGroups",
            "dataset_version_metrics_groups",
            {"dataset_version_id": version_id, **options},
        )

    @iteration
    def list(self, **options: Unpack[DatasetVersionFilters]) -> ItemPlan[v2.DatasetVersion]:
        """List the versions of the dataset.

        Args:
            request_origins: Filter by origin, values of ``v2.DatasetVersionRequestOrigin``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class DatasetVersions(DatasetVersionOperations, Sync): ...


class AsyncDatasetVersions(DatasetVersionOperations, Async): ...


@named_in("clarigrpc.types")
class DatasetFilters(Paging, total=False):
    """Options of ``client.datasets.list``."""

    all_apps: bool
    search: str
    starred_only: bool
    bookmark: bool
    sort_ascending: bool
    sort_by_id: bool
    sort_by_created_at: bool
    sort_by_modified_at: bool
    sort_by_star_count: bool
    sort_by_relevance: bool
    additional_fields: Sequence[str]


class DatasetOperations(
    Creates[v2.Dataset], Gets[v2.Dataset], Patches[v2.Dataset], Deletes[v2.Dataset]
):
    """The datasets of an app."""

    _message = v2.Dataset
    _create_rpc = "PostDatasets"
    _get_rpc = "GetDataset"
    _list_rpc = "ListDatasets"
    _patch_rpc = "PatchDatasets"
    _delete_rpc = "DeleteDatasets"

    @nested(DatasetInputs, AsyncDatasetInputs)
    def inputs(self, dataset_id: str) -> Parents:
        """Access the inputs of a dataset.

        Args:
            dataset_id: Id of the dataset.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"dataset_id": dataset_id}

    @nested(DatasetVersions, AsyncDatasetVersions)
    def versions(self, dataset_id: str) -> Parents:
        """Access the versions of a dataset.

        Args:
            dataset_id: Id of the dataset.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"dataset_id": dataset_id}

    @iteration
    def list(self, **options: Unpack[DatasetFilters]) -> ItemPlan[v2.Dataset]:
        """List the datasets of the app.

        Args:
            all_apps: Whether to list the datasets of all apps of the user. Default False.
            search: Filter by text in the id, description or notes.
            starred_only: Whether to list only datasets that you starred. Default False.
            bookmark: Whether to list only datasets bookmarked from other users. Default False.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_id: Whether to sort by id. Set at most one ``sort_by_`` option.
            sort_by_created_at: Whether to sort by time of creation.
            sort_by_modified_at: Whether to sort by time of the last change.
            sort_by_star_count: Whether to sort by number of stars.
            sort_by_relevance: Whether to sort by relevance to ``search``.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Datasets(DatasetOperations, Sync): ...


class AsyncDatasets(DatasetOperations, Async): ...
