"""Datasets, the inputs in them, and their versions with exports and metrics."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from clarigrpc import errors, v2
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
from clarigrpc._resources.long_running import Waits, until
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested, operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.plan import ItemPlan, Plan, Run


class DatasetInputOperations(Gets[v2.DatasetInput], Lists[v2.DatasetInput]):
    """The inputs that are in a dataset."""

    message = v2.DatasetInput
    noun = "input of the dataset"
    nouns = "inputs of the dataset"

    @operation
    def add(
        self, ids: str | Iterable[str], *, timeout: float | None = None
    ) -> Plan[list[v2.DatasetInput]]:
        """Put inputs of the app into the dataset, in requests of 128.

        Args:
            ids: Ids of inputs, one or many.
            timeout: Seconds for each request; None: the client's.

        Raises:
            NotFoundError, PartialFailureError: There are no such inputs.
        """
        items = (v2.DatasetInput(input=v2.Input(id=one)) for one in as_ids(ids))
        return [*(yield from self._write("Post", items, timeout, None))]

    @operation
    def add_found(
        self, search: v2.Search, *, timeout: float | None = None
    ) -> Plan[v2.BulkOperation]:
        """Put all inputs that a search finds into the dataset; the service does it afterwards.

        Args:
            search: What ``query.search(...)`` returns.
            timeout: Seconds; None: the client's.

        Returns:
            The operation, for ``client.bulk_operations.wait``.
        """
        response: v2.MultiDatasetInputResponse = yield from self._invoke(
            "PostDatasetInputs", timeout, search=search
        )
        return response.bulk_operation

    @operation
    def remove(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Take inputs out of the dataset, in requests of 128. They stay in the app.

        Args:
            ids: Ids of inputs, one or many.
            timeout: Seconds for each request; None: the client's.
        """
        for chunk in chunks(as_ids(ids)):
            yield from self._invoke("DeleteDatasetInputs", timeout, input_ids=chunk)

    def _id_field(self, method: str) -> str:
        return "input_id"


class DatasetInputs(DatasetInputOperations, Sync): ...


class AsyncDatasetInputs(DatasetInputOperations, Async): ...


class DatasetVersionFilters(Paging, total=False):
    """Which versions are listed.

    Attributes:
        request_origins: Only those that were made for one of these.
    """

    request_origins: Sequence[v2.DatasetVersionRequestOrigin.ValueType]


class MetricsFilters(Paging, total=False):
    """Which metrics of a dataset version are listed.

    Attributes:
        parent_paths: Only those below these paths.
        types: Only groups of these types, values of the enum.
        values: Only groups with these values.
    """

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
):
    """The versions of a dataset: what was in it at one time, filtered and processed."""

    message = v2.DatasetVersion

    @operation
    def export(
        self,
        version_id: str,
        *formats: v2.DatasetVersionExportFormat.ValueType,
        include_embeddings: bool = False,
        timeout: float | None = None,
    ) -> Plan[builtins.list[v2.DatasetVersionExport]]:
        """Have the service make archives of a version; it does so afterwards.

        Args:
            version_id: The version.
            formats: Values of ``v2.DatasetVersionExportFormat`` (``COCO`` ...), at
                least one.
            include_embeddings: Whether the archives have the embeddings, too.
            timeout: Seconds; None: the client's.

        Returns:
            The exports as far as they are; ``wait_exported`` waits for one.
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
        """Wait for an export; looks at it at growing intervals.

        Args:
            version_id: The version.
            format: Which of its exports.
            timeout: Seconds for all of it.

        Returns:
            The export: ``url`` is where its zip archive can be fetched, ``size`` its bytes.

        Raises:
            ApiError: The export failed.
            NotFoundError: Nobody has asked for it.
            DeadlineExceededError: It is not done yet.
        """
        field = _EXPORTS[v2.DatasetVersionExportFormat.Name(format)]
        method = "GetDatasetVersion"

        def look(seconds: float) -> Plan[v2.DatasetVersionExport | None]:
            version = yield from self._fetch(version_id, seconds)
            if not version.export_info.HasField(field):  # type: ignore[arg-type]
                raise errors.NotFoundError(f"{version_id!r} has no {field} export", method=method)
            export: v2.DatasetVersionExport = getattr(version.export_info, field)
            failure = statuses.from_item(export.status, method=method, request_id="")
            if failure is not None:
                raise failure
            return None if statuses.kind_of(export.status.code) is statuses.Kind.PENDING else export

        def late() -> errors.ApiError:
            return errors.DeadlineExceededError(
                f"the export is not done after {timeout:g} s", method=method
            )

        return (yield from until(look, timeout=timeout, late=late))

    @operation
    def download(
        self,
        version_id: str,
        format: v2.DatasetVersionExportFormat.ValueType,
        path: str | os.PathLike[str],
        *,
        timeout: float = 300.0,
    ) -> Plan[Path]:
        """Wait for an export and write its zip archive to a file.

        Args:
            version_id: The version; ``export`` has to be asked for before.
            format: Which of its exports.
            path: The file; one that is there is replaced once the archive is complete.
            timeout: Seconds for all of it.

        Returns:
            The path.

        Raises:
            ConfigurationError: httpx is not installed (extra ``rest``).
            NotFoundError: Nobody has asked for the export.
            DeadlineExceededError: It is not there in time.
            ApiError: The export failed, or cannot be fetched.
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
        """What a version is made of: counts by type of input, by concept and so on.

        Args:
            version_id: The version.
            {options}
            {paging}
        """
        return self._pages(
            "ListDatasetVersionMetricsGroups",
            "dataset_version_metrics_groups",
            {"dataset_version_id": version_id, **options},
        )

    @iteration
    def list(self, **options: Unpack[DatasetVersionFilters]) -> ItemPlan[v2.DatasetVersion]:
        """The versions of the dataset.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class DatasetVersions(DatasetVersionOperations, Sync): ...


class AsyncDatasetVersions(DatasetVersionOperations, Async): ...


class DatasetFilters(Paging, total=False):
    """Which datasets are listed, and in which order.

    Attributes:
        all_apps: Those of all apps of the user.
        search: Only those with this in id, description or notes.
        starred_only: Only those that the caller has starred.
        bookmark: Those of other users that the app has bookmarked.
        sort_ascending: Smallest or oldest first.
        sort_by_id: What the order is by; or one of ``sort_by_created_at``,
            ``sort_by_modified_at``, ``sort_by_star_count``, ``sort_by_relevance``.
        additional_fields: What the service leaves out by default, ``"stars"`` and the like.
    """

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

    message = v2.Dataset

    inputs = nested("dataset_id", DatasetInputs, AsyncDatasetInputs, "The inputs in a dataset.")
    versions = nested(
        "dataset_id", DatasetVersions, AsyncDatasetVersions, "The versions of a dataset."
    )

    @iteration
    def list(self, **options: Unpack[DatasetFilters]) -> ItemPlan[v2.Dataset]:
        """The datasets of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Datasets(DatasetOperations, Sync): ...


class AsyncDatasets(DatasetOperations, Async): ...
