"""The inputs of an app."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._bulk.input_drivers import async_upload_method, sync_upload_method
from clarigrpc._bulk.input_progress import ReportCallback
from clarigrpc._bulk.input_report import UploadReport
from clarigrpc._bulk.input_sources import AsyncInputSource
from clarigrpc._bulk.input_upload import InputUpload
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._resources.base import Action, Gets, Paging, as_list, chunks
from clarigrpc._resources.long_running import Waits
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import Item, ItemPlan, Plan, call
from clarigrpc.media import ConceptLabels, as_input, concept_messages


class InputFilters(Paging, total=False):
    """Which inputs are listed.

    Attributes:
        ids: Only these.
        status: Only those with the code of this status.
    """

    ids: Sequence[str]
    status: v2.Status


class InputOperations(Gets[v2.Input], Waits[v2.Input]):
    """The inputs of an app."""

    message = v2.Input

    @operation
    def create(
        self,
        inputs: v2.Input | Iterable[v2.Input],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Add inputs, in requests of 128.

        The service takes them in at once and processes them afterwards: what comes back is
        pending (30001).

        Args:
            inputs: What ``image()``, ``video()``, ``audio()`` and ``text()`` return, one or many.
            timeout: Seconds for each request; None: the client's.
            raise_on_partial: Whether inputs that were refused are an error, or stay among the
                results, each with its status. None: as the client was told.

        Returns:
            The inputs as the service has them, in the order given.

        Raises:
            PartialFailureError: Some were refused; the others are added.
            AlreadyExistsError: The only input's id or URL is taken.
        """
        wanted = [as_input(one) for one in as_list(inputs, v2.Input)]
        return [*(yield from self._write("Post", wanted, timeout, raise_on_partial))]

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
        """All inputs of the app, oldest first, a page at a time.

        The id of the last input received is a cursor: give it as ``last_id``, in another process
        if need be, and the walk goes on behind it. Inputs that are added meanwhile are seen.

        Args:
            last_id: Start behind this input; empty: at the beginning.
            per_page: Inputs a page, 1 to 1000; default 128.
            order_by_id: Walk in the order of the ids instead of the time of adding.
            descending: Walk backwards.
            timeout: Seconds for each request; None: the client's.
        """
        while True:
            request = v2.StreamInputsRequest(
                user_app_id=self.user_app_id,
                last_id=last_id,
                per_page=per_page or MAX_ITEMS,
                order_by_id=order_by_id,
                descending=descending,
            )
            response = yield from call("StreamInputs", request, timeout=timeout)
            if not response.inputs:
                return
            last_id = response.inputs[-1].id
            for one in response.inputs:
                yield Item(one)

    @operation
    def patch(
        self,
        inputs: v2.Input | Iterable[v2.Input],
        *,
        action: Action = "merge",
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Change inputs, in requests of 128.

        Args:
            inputs: Each with its id and what is to be changed of ``data``.
            action: ``"merge"`` adds or replaces concepts, metadata and datasets; ``"remove"``
                takes away; ``"overwrite"`` replaces, and drops what is left out.
            timeout: Seconds for each request; None: the client's.
            raise_on_partial: As in ``create``.

        Returns:
            The inputs as they are now, in the order given.

        Raises:
            PartialFailureError: Some could not be changed; the others are.
            NotFoundError: The only input is not there.
        """
        wanted: builtins.list[v2.Input] = as_list(inputs, v2.Input)
        plan = self._write("Patch", wanted, timeout, raise_on_partial, action=action)
        return [*(yield from plan)]

    @operation
    def merge_concepts(
        self, input_id: str, concepts: ConceptLabels, *, timeout: float | None = None
    ) -> Plan[v2.Input]:
        """Add concepts to an input, or change their values; the others stay.

        Args:
            input_id: Id of the input.
            concepts: Ids, one or many, or a mapping of id to value (1: it shows that, 0: it does
                not).
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such input.
        """
        (changed,) = yield from self._change({input_id: concepts}, "merge", timeout, True)
        return changed

    @operation
    def remove_concepts(
        self, input_id: str, concepts: ConceptLabels, *, timeout: float | None = None
    ) -> Plan[v2.Input]:
        """Take concepts away from an input, by their ids.

        Raises:
            NotFoundError: There is no such input.
        """
        (changed,) = yield from self._change({input_id: concepts}, "remove", timeout, True)
        return changed

    @operation
    def merge_concepts_many(
        self,
        concepts: Mapping[str, ConceptLabels],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Add concepts to inputs, or change their values, in requests of 128; the others stay.

        Args:
            concepts: Id of an input -> ids of concepts, or a mapping of those to values, as in
                ``merge_concepts``.
            timeout: Seconds for each request; None: the client's.
            raise_on_partial: As in ``create``.

        Returns:
            The inputs as they are now, in the order given.

        Raises:
            PartialFailureError: Some could not be changed; the others are.
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
        """Take concepts away from inputs, in requests of 128. As ``merge_concepts_many``."""
        return (yield from self._change(concepts, "remove", timeout, raise_on_partial))

    @operation
    def overwrite(
        self,
        inputs: v2.Input | Iterable[v2.Input],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Input]]:
        """Replace concepts, metadata and datasets of inputs; what is left out is dropped.

        As ``patch`` with ``action="overwrite"``.
        """
        plan = InputOperations.patch.plan(
            self, inputs, action="overwrite", timeout=timeout, raise_on_partial=raise_on_partial
        )
        return (yield from plan)

    def _change(
        self,
        concepts: Mapping[str, ConceptLabels],
        action: Action,
        timeout: float | None,
        raise_on_partial: bool | None,
    ) -> Plan[builtins.list[v2.Input]]:
        changes = [
            v2.Input(id=one, data=v2.Data(concepts=concept_messages(given)))
            for one, given in concepts.items()
        ]
        plan = self._write("Patch", changes, timeout, raise_on_partial, action=action)
        return [*(yield from plan)]

    @operation
    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete inputs by their ids, one or many, in requests of 128.

        The service deletes them afterwards; ``get`` answers NotFoundError once it has.

        Args:
            ids: An id, or several.
            timeout: Seconds for each request; None: the client's.

        Raises:
            NotFoundError: There are no such inputs.
        """
        if isinstance(ids, str):
            yield from self._invoke("DeleteInput", timeout, input_id=ids)
            return
        for chunk in chunks(builtins.list(ids)):
            yield from self._invoke("DeleteInputs", timeout, ids=chunk)

    @operation
    def delete_all(self, *, timeout: float | None = None) -> Plan[int]:
        """Delete every input of the app, in requests of 128; there is no way back.

        Args:
            timeout: Seconds for each request; None: the client's.

        Returns:
            How many inputs were there. The service deletes them afterwards.
        """
        count = 0
        last_id = ""
        doomed: builtins.list[str] = []
        while True:
            request = v2.StreamInputsRequest(
                user_app_id=self.user_app_id, last_id=last_id, per_page=MAX_ITEMS
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
        request = v2.DeleteInputsRequest(user_app_id=self.user_app_id, ids=ids)
        try:
            yield from call("DeleteInputs", request, timeout=timeout, idempotent=True)
        except errors.NotFoundError:
            return  # a try whose answer was lost had deleted them

    def _upload(
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

        The source is read as requests leave: memory holds ``in_flight + 1`` batches and the
        failures, whatever its length. One bad input fails alone.

        Inputs without an id get one made from their content (all of the message), so that a
        second upload of the same input cannot add it twice: it is reported with INPUT_DUPLICATE
        (30100), as is any input whose id was there before the upload. After a lost answer, or
        a crash with a ``journal``, the upload finds out which of its inputs had arrived and counts
        them as added.

        Outages are waited for until a batch's ``timeout``; a service that throttles sets the
        pace.

        Args:
            source: Inputs (what ``image()``, ``text()`` ... return), from any iterable; the path
                of a folder or of a CSV file; one of ``clarigrpc.ingest.from_folder``,
                ``from_csv``, ``from_coco``; functions that make an input when called; the
                ``failed_inputs`` of a report. With an ``AsyncClient`` also an asynchronous
                iterable.
            batch_size: Most inputs a request, 1 to 128.
            batch_bytes: Most bytes a request; an input that is larger goes alone. Default 32 MiB.
            in_flight: Most requests at a time.
            timeout: Seconds for all tries of a request together.
            journal: A file that makes the upload restartable: after a crash, call again with the
                same source and journal, and only the rest is sent. It belongs to one app.
            progress: A function that is given the report as answers come, or True for a bar
                on the terminal.
            report: A report to fill in, to be read when the upload is interrupted.

        Returns:
            The counts and the inputs that failed, with index, id and status.

        Raises:
            ApiError: The service refuses all of it (credentials, quota), or could not be reached
                for ``timeout`` seconds. ``report`` has the outcome so far.
            ConfigurationError: The journal belongs to another app or server.
            TypeError: The source has a value that is no input.
        """
        ids = v2.UserAppIDSet()
        ids.MergeFrom(self.user_app_id or self._client.user_app_id)
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

    def _look(self, ids: Sequence[str], seconds: float) -> Plan[Mapping[str, v2.Input]]:
        found: dict[str, v2.Input] = {}
        deadline = time.monotonic() + seconds
        for chunk in chunks(ids):
            response = yield from self._invoke(
                "ListInputs",
                max(0.001, deadline - time.monotonic()),
                ids=chunk,
                page=1,
                per_page=len(chunk),
            )
            found.update((one.id, one) for one in response.inputs)
        return {one: found.get(one) or _missing(one) for one in ids}

    @operation
    def video_manifest(self, input_id: str, *, timeout: float | None = None) -> Plan[str]:
        """Address of the manifest that players stream a video by.

        Raises:
            NotFoundError: There is no such input.
        """
        response: v2.GetVideoManifestResponse = yield from self._invoke(
            "GetInputVideoManifest", timeout, input_id=input_id
        )
        return response.manifest_url

    @operation
    def status(self, *, timeout: float | None = None) -> Plan[v2.InputCount]:
        """How many inputs are processed, waiting and failed."""
        request = v2.GetInputCountRequest(user_app_id=self.user_app_id)
        response = yield from call("GetInputCount", request, timeout=timeout)
        return response.counts  # type: ignore[no-any-return]

    @iteration
    def list(self, **options: Unpack[InputFilters]) -> ItemPlan[v2.Input]:
        """The inputs of the app, newest first.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Inputs(InputOperations, Sync):
    """The inputs of an app."""

    upload = sync_upload_method(InputOperations._upload)


class AsyncInputs(InputOperations, Async):
    """The inputs of an app."""

    upload = async_upload_method(InputOperations._upload)


def _missing(input_id: str) -> v2.Input:
    status = v2.Status(
        code=v2.StatusCode.INPUT_DOES_NOT_EXIST,
        description="Input does not exist",
        details=f"there is no input {input_id!r}",
    )
    return v2.Input(id=input_id, status=status)
