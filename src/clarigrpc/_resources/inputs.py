"""The inputs of an app."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from google.protobuf.message import Message

from clarigrpc import errors, v2
from clarigrpc._bulk import drivers
from clarigrpc._bulk.input_progress import ReportCallback
from clarigrpc._bulk.input_report import UploadReport
from clarigrpc._bulk.input_sources import AsyncInputSource
from clarigrpc._bulk.input_upload import InputUpload
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Gets,
    Paging,
    PatchAction,
    as_ids,
    as_list,
    check_paging,
    chunks,
    filled,
    page_info,
)
from clarigrpc._resources.long_running import (
    LookTime,
    Waits,
    Work,
    WorkState,
    by_items,
    following,
    not_cancellable,
)
from clarigrpc._resources.repeated_creation import can_be_repeated, create_once
from clarigrpc._resources.sync_async import Async, Sync, driven, iteration, operation
from clarigrpc._rpc.plan import Item, ItemPlan, Plan, call
from clarigrpc.media import ConceptLabels, PredictInput, as_input, concept_messages


@named_in("clarigrpc.types")
class InputFilters(Paging, total=False):
    """Options of ``client.inputs.list``."""

    ids: Sequence[str]
    status: v2.Status


def _run_sync(owner: Any, upload: InputUpload) -> UploadReport:
    for _ in drivers.run_sync(upload):
        pass  # its report has the outcomes
    return upload.report


async def _run_async(owner: Any, upload: InputUpload) -> UploadReport:
    async for _ in drivers.run_async(upload):
        pass
    return upload.report


class InputOperations(Gets[v2.Input], Waits[v2.Input]):
    """The inputs of an app."""

    _message = v2.Input
    _create_rpc = "PostInputs"
    _get_rpc = "GetInput"
    _list_rpc = "ListInputs"
    _patch_rpc = "PatchInputs"

    @operation
    def create(
        self,
        inputs: v2.Input | Mapping[str, Any] | Iterable[PredictInput | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Add inputs, in requests of 128.

        The service stores inputs at once and processes them later: they are returned as pending
        (30001). Wait for them with ``wait``.

        If the connection breaks, a request in which each input has an id is sent again, without
        those that the service has: one of the same id counts as added by this call if what can be
        compared is equal, as in ``upload``.

        Args:
            inputs: What ``image()``, ``video()``, ``audio()`` and ``text()`` return, or mappings
                with the fields of an input (as in JSON); one or many.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected input raises an error. False returns it with the
                others, with its status. None uses the client's setting.

        Returns:
            The inputs as the service stored them, in the order given.

        Raises:
            PartialFailureError: Some inputs were rejected; the others were added.
            AlreadyExistsError: The id or URL of the only input is taken.
            InvalidArgumentError: No input is given.
            TypeError: A value is not an input.
        """
        given: builtins.list[Any] = as_list(inputs, (Message, Mapping))
        wanted = [one if isinstance(one, Mapping) else as_input(one) for one in given]
        return [*(yield from self._post(wanted, timeout, raise_on_partial))]

    def _send(
        self, method: str, request: Any, timeout: float | None, idempotent: bool | None
    ) -> Plan[Any]:
        if method == self._create_rpc and can_be_repeated(request):
            return create_once(self._client, request, timeout)
        return super()._send(method, request, timeout, idempotent)

    @iteration
    def stream(
        self,
        last_id: str = "",
        *,
        per_page: int | None = None,
        order_by_id: bool = False,
        descending: bool = False,
        timeout: float | None = None,
    ) -> ItemPlan[v2.Input]:
        """List all inputs of the app, oldest first, page by page.

        The id of the last input received is a cursor: pass it as ``last_id``, even in another
        process, to continue after it. Inputs added meanwhile are included.

        Args:
            last_id: Id of the input to start after. Empty starts at the beginning.
            per_page: Page size, 1 to 1000. None uses 128.
            order_by_id: Whether to sort by id instead of by time of creation. Default False.
            descending: Whether to sort in descending order. Default False.
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            InvalidArgumentError: ``per_page`` is less than 1.
        """
        check_paging(per_page=per_page)
        number = 0
        while True:
            request = filled(
                "StreamInputs",
                v2.StreamInputsRequest,
                user_app_id=self._user_app_id,
                last_id=last_id,
                per_page=MAX_ITEMS if per_page is None else per_page,
                order_by_id=order_by_id,
                descending=descending,
            )
            response = yield from call("StreamInputs", request, timeout=timeout)
            if not response.inputs:
                return
            last_id = response.inputs[-1].id
            number += 1
            yield page_info(
                response, response.inputs, page=number, size=request.per_page, is_last=False
            )
            for one in response.inputs:
                yield Item(one)

    @operation
    def patch(
        self,
        inputs: v2.Input | Mapping[str, Any] | Iterable[v2.Input | Mapping[str, Any]],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Change inputs, in requests of 128.

        Args:
            inputs: One or many, as messages or mappings, each with its id and the parts of
                ``data`` to change.
            action: How concepts, metadata and datasets change: ``"merge"`` adds or replaces them;
                ``"remove"`` removes them; ``"overwrite"`` replaces all of them and drops what is
                not given.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected change raises an error. False returns the input
                with the others, with its status. None uses the client's setting.

        Returns:
            The inputs after the changes, in the order given.

        Raises:
            PartialFailureError: Some changes were rejected; the others were made.
            NotFoundError: The only input does not exist.
            InvalidArgumentError: No input is given.
        """
        wanted: builtins.list[Any] = as_list(inputs, (Message, Mapping))
        plan = self._patch(wanted, timeout, raise_on_partial, action=action)
        return [*(yield from plan)]

    @operation
    def merge_concepts(
        self, input_id: str, concepts: ConceptLabels, *, timeout: float | None = None
    ) -> Plan[v2.Input]:
        """Add concepts to an input, or change their values. Other concepts stay.

        Args:
            input_id: Id of the input.
            concepts: Ids of concepts, one or many, or a mapping of ids to values (1: present, 0:
                absent).
            timeout: Seconds. None uses the client's setting.

        Returns:
            The input after the change.

        Raises:
            NotFoundError: The input does not exist.
        """
        given = dict.fromkeys(as_ids([input_id]), concepts)
        (changed,) = yield from self._change(given, "merge", timeout, True)
        return changed

    @operation
    def remove_concepts(
        self, input_id: str, concepts: ConceptLabels, *, timeout: float | None = None
    ) -> Plan[v2.Input]:
        """Remove concepts from an input.

        Args:
            input_id: Id of the input.
            concepts: Ids of concepts, one or many.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The input after the change.

        Raises:
            NotFoundError: The input does not exist.
        """
        given = dict.fromkeys(as_ids([input_id]), concepts)
        (changed,) = yield from self._change(given, "remove", timeout, True)
        return changed

    @operation
    def merge_concepts_many(
        self,
        concepts: Mapping[str, ConceptLabels],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Add concepts to many inputs, or change their values, in requests of 128. Other concepts
        stay.

        Args:
            concepts: Maps the id of each input to ids of concepts, one or many, or to a mapping of
                ids to values (1: present, 0: absent).
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected change raises an error. False returns the input
                with the others, with its status. None uses the client's setting.

        Returns:
            The inputs after the changes, in the order given.

        Raises:
            PartialFailureError: Some changes were rejected; the others were made.
        """
        return (yield from self._change(concepts, "merge", timeout, raise_on_partial))

    @operation
    def remove_concepts_many(
        self,
        concepts: Mapping[str, ConceptLabels],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Remove concepts from many inputs, in requests of 128.

        Args:
            concepts: Maps the id of each input to ids of concepts, one or many.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected change raises an error. False returns the input
                with the others, with its status. None uses the client's setting.

        Returns:
            The inputs after the changes, in the order given.

        Raises:
            PartialFailureError: Some changes were rejected; the others were made.
        """
        return (yield from self._change(concepts, "remove", timeout, raise_on_partial))

    @operation
    def overwrite(
        self,
        inputs: v2.Input | Mapping[str, Any] | Iterable[v2.Input | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Replace concepts, metadata and datasets of inputs; what is not given is dropped.

        The same as ``patch`` with ``action="overwrite"``.

        Args:
            inputs: One or many, each with its id and its new ``data``.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected change raises an error. False returns the input
                with the others, with its status. None uses the client's setting.

        Returns:
            The inputs after the changes, in the order given.

        Raises:
            PartialFailureError: Some changes were rejected; the others were made.
            NotFoundError: The only input does not exist.
        """
        plan = InputOperations.patch.plan(
            self, inputs, action="overwrite", timeout=timeout, raise_on_partial=raise_on_partial
        )
        return (yield from plan)

    def _change(
        self,
        concepts: Mapping[str, ConceptLabels],
        action: PatchAction,
        timeout: float | None,
        raise_on_partial: bool | None,
    ) -> Plan[builtins.list[v2.Input]]:
        if not isinstance(concepts, Mapping):
            raise TypeError(
                "expected a mapping of ids of inputs to their concepts, not "
                f"{type(concepts).__name__}"
            )
        as_ids(concepts.keys())
        changes = [
            v2.Input(id=one, data=v2.Data(concepts=concept_messages(given)))
            for one, given in concepts.items()
        ]
        plan = self._patch(changes, timeout, raise_on_partial, action=action)
        return [*(yield from plan)]

    @operation
    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete inputs by their ids.

        The service deletes them later; ``follow_deletion`` waits for that.

        Args:
            ids: One id, or many (sent in requests of 128).
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            NotFoundError: No input of a request exists.
        """
        if isinstance(ids, str):
            (one,) = as_ids(ids)
            yield from self._invoke("DeleteInput", timeout, input_id=one)
            return
        for chunk in chunks(as_ids(ids)):
            yield from self._invoke("DeleteInputs", timeout, ids=chunk)

    @operation
    def delete_all(self, *, timeout: float | None = None) -> Plan[int]:
        """Delete all inputs of the app, in requests of 128. This cannot be undone.

        The service deletes them later.

        Args:
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            The number of inputs.
        """
        count = 0
        last_id = ""
        doomed: builtins.list[str] = []
        while True:
            request = v2.StreamInputsRequest(
                user_app_id=self._user_app_id, last_id=last_id, per_page=MAX_ITEMS
            )
            response = yield from call("StreamInputs", request, timeout=timeout)
            # One page behind the walk: the cursor is never an input that is gone.
            if doomed:
                yield from self._delete_present(doomed, timeout)
                count += len(doomed)
            if not response.inputs:
                return count
            doomed = [one.id for one in response.inputs]
            last_id = doomed[-1]

    def _delete_present(self, ids: Sequence[str], timeout: float | None) -> Plan[None]:
        request = v2.DeleteInputsRequest(user_app_id=self._user_app_id, ids=ids)
        try:
            yield from call("DeleteInputs", request, timeout=timeout, idempotent=True)
        except errors.NotFoundError:
            return  # a try whose answer was lost had deleted them

    @driven(_run_sync, _run_async)
    def upload(
        self,
        source: AsyncInputSource,
        *,
        batch_size: int = MAX_ITEMS,
        batch_bytes: int = 32 * 1024 * 1024,
        in_flight: int = 4,
        timeout: float = 300.0,
        journal: str | os.PathLike[str] | None = None,
        progress: bool | ReportCallback = False,
        report: UploadReport | None = None,
    ) -> InputUpload:
        """Add any number of inputs, each exactly once, and report those that failed.

        The source is read as requests are sent: memory holds ``in_flight + 1`` batches, the
        failures and the ids of what was added. A bad input fails alone.

        An input without an id gets one made from its content, so that a second upload of the same
        input cannot add it twice: it is reported with INPUT_DUPLICATE (30100), as is an input whose
        id existed before the upload. After a lost response, or after a crash with a ``journal``,
        the upload finds out which of its inputs had arrived and counts them as added.

        An outage is waited for until the ``timeout`` of a request; the upload slows down when the
        service throttles.

        Args:
            source: Inputs (what ``image()``, ``text()`` ... return) from any iterable; the path of
                a folder or of a CSV file; what ``clarigrpc.ingest.from_folder``, ``from_csv`` and
                ``from_coco`` return; functions that return an input when called; or the
                ``failed_inputs`` of a report. An ``AsyncClient`` also takes an asynchronous
                iterable.
            batch_size: Maximum inputs per request, 1 to 128. Default 128.
            batch_bytes: Maximum bytes per request; a larger input is sent alone. Default 32 MiB.
            in_flight: Maximum concurrent requests. Default 4.
            timeout: Seconds for all attempts of a request together. Default 300.
            journal: Path of a file that makes the upload restartable: after a crash, call again
                with the same source and journal, and only the rest is sent. A journal belongs to
                one app and, while it is in use, to one upload.
            progress: A function called with the report as responses arrive, or True for a progress
                bar on the terminal. Default False.
            report: A report to fill in, to be read if the upload is interrupted. None makes a new
                one.

        Returns:
            The report: the counts, and the inputs that failed with their index, id and status.

        Raises:
            ApiError: The service rejects the whole upload (credentials, quota), or could not be
                reached for ``timeout`` seconds. ``report`` holds the outcome so far.
            ConfigurationError: The journal belongs to another app or server, or is in use by
                another upload.
            InvalidArgumentError: An argument is out of range.
            FileNotFoundError: The source is a path that does not exist.
            TypeError: The source yields a value that is not an input.
        """
        ids = v2.UserAppIDSet()
        ids.MergeFrom(self._user_app_id or self._client.user_app_id)
        return InputUpload(
            self._client,
            ids,
            source,
            batch_size=batch_size,
            batch_bytes=batch_bytes,
            in_flight=in_flight,
            timeout=timeout,
            journal=journal,
            progress=progress,
            report=report,
        )

    def _look(self, ids: Sequence[str], limits: LookTime) -> Plan[Mapping[str, v2.Input]]:
        found: dict[str, v2.Input] = {}
        for chunk in chunks(ids):
            response = yield from self._invoke(
                "ListInputs", limits.seconds, ids=chunk, page=1, per_page=len(chunk)
            )
            found.update((one.id, one) for one in response.inputs)
        return {one: found.get(one) or _missing(one) for one in ids}

    @following
    def follow(
        self, items: str | v2.Input | Iterable[str | v2.Input]
    ) -> Work[builtins.list[v2.Input]]:
        """Follow the processing of inputs: ask for its status, or wait for its end.

        Args:
            items: Ids of inputs, or what ``create`` returned; one or many.

        Returns:
            An object with ``status()`` and ``wait()``, which returns the inputs in the order given.
            The status is that of a pending input as long as there is one. Nothing is sent yet.

        Raises:
            InvalidArgumentError: An id is empty.
        """
        return self._work_on_many(items)

    @following
    def follow_deletion(self, ids: str | Iterable[str]) -> Work[builtins.list[str]]:
        """Follow a deletion until the service no longer has the inputs.

        Args:
            ids: Ids of inputs, after ``delete`` was called for them; one or many.

        Returns:
            An object with ``status()`` and ``wait()``, which returns the ids. Nothing is sent yet.
        """
        doomed = as_ids(ids)
        left = builtins.list(dict.fromkeys(doomed))
        total = len(left)
        name = f"deletion of {total} inputs" if total != 1 else f"deletion of {left[0]!r}"

        def look(limits: LookTime) -> Plan[WorkState[builtins.list[str]]]:
            found = yield from self._look(left, limits)
            gone = v2.StatusCode.INPUT_DOES_NOT_EXIST
            left[:] = [one for one in left if found[one].status.code != gone]
            code = v2.StatusCode.ACCEPTED if left else v2.StatusCode.SUCCESS
            progress = by_items(v2.Status(code=code), total - len(left), total)
            return WorkState(progress, None if left else lambda: doomed)

        return Work(
            self,
            name,
            look,
            cancel=lambda timeout: not_cancellable(name),
            late=lambda: f"{len(left)} of {total} inputs are not deleted yet",
            method="ListInputs",
            unit="items",
        )

    @operation
    def video_manifest(self, input_id: str, *, timeout: float | None = None) -> Plan[str]:
        """Fetch the address of the manifest with which players stream a video.

        Args:
            input_id: Id of the video.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The URL of the manifest.

        Raises:
            NotFoundError: The input does not exist.
        """
        response: v2.GetVideoManifestResponse = yield from self._invoke(
            "GetInputVideoManifest", timeout, input_id=input_id
        )
        return response.manifest_url

    @operation
    def status(self, *, timeout: float | None = None) -> Plan[v2.InputCount]:
        """Count the inputs of the app by status.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            The numbers of processed, waiting and failed inputs.
        """
        request = v2.GetInputCountRequest(user_app_id=self._user_app_id)
        response = yield from call("GetInputCount", request, timeout=timeout)
        return response.counts  # type: ignore[no-any-return]

    @iteration
    def list(self, **options: Unpack[InputFilters]) -> ItemPlan[v2.Input]:
        """List the inputs of the app, newest first.

        Args:
            ids: Filter by ids of inputs.
            status: Filter by status; only its ``code`` counts.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Inputs(InputOperations, Sync): ...


class AsyncInputs(InputOperations, Async): ...


def _missing(input_id: str) -> v2.Input:
    status = v2.Status(
        code=v2.StatusCode.INPUT_DOES_NOT_EXIST,
        description="Input does not exist",
        details=f"input {input_id!r} does not exist",
    )
    return v2.Input(id=input_id, status=status)
