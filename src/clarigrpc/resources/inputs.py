"""The inputs of an app."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Literal

from clarigrpc import errors, v2
from clarigrpc.ingest.drivers import auploading, uploading
from clarigrpc.ingest.job import Job
from clarigrpc.ingest.progress import Callback
from clarigrpc.ingest.report import UploadReport
from clarigrpc.ingest.sources import AnySource
from clarigrpc.media import Concepts, as_input, concept_messages
from clarigrpc.plan import (
    Item,
    ItemPlan,
    Plan,
    Sleep,
    aiterating,
    awaiting,
    blocking,
    call,
    iterating,
)
from clarigrpc.resources.base import MAX_ITEMS, Operations, as_list, chunks, pages

Action = Literal["merge", "overwrite", "remove"]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_PENDING = errors.Kind.PENDING


class InputOperations(Operations):
    """The inputs of an app."""

    def _create(
        self,
        inputs: v2.Input | Iterable[v2.Input],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[v2.Input]]:
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
        if not wanted:
            raise errors.InvalidArgumentError("create() needs at least one input")
        merged = v2.MultiInputResponse()
        for chunk in chunks(wanted):
            request = v2.PostInputsRequest(user_app_id=self.user_app_id, inputs=chunk)
            response = yield from call(
                "PostInputs", request, timeout=timeout, raise_on_partial=False
            )
            merged.inputs.MergeFrom(response.inputs)
            if merged.status.code in (0, v2.StatusCode.SUCCESS):
                merged.status.CopyFrom(response.status)
        return self._outcome("PostInputs", merged, raise_on_partial)

    def _outcome(
        self, method: str, merged: v2.MultiInputResponse, raise_on_partial: bool | None
    ) -> list[v2.Input]:
        """The inputs of a merged response, unless some failed and that is to be raised."""
        inputs = list(merged.inputs)
        if not self._client.raises_on_partial(raise_on_partial):
            return inputs
        request_id = merged.status.req_id
        if len(inputs) == 1:
            failure = errors.from_item(inputs[0].status, method=method, request_id=request_id)
        else:
            failure = errors.from_response(
                merged, method=method, request_id=request_id, item_field="inputs"
            )
        if failure is not None:
            raise failure
        return inputs

    def _get(self, input_id: str, *, timeout: float | None = None) -> Plan[v2.Input]:
        """An input by its id.

        Raises:
            NotFoundError: There is no such input.
        """
        request = v2.GetInputRequest(user_app_id=self.user_app_id, input_id=input_id)
        response = yield from call("GetInput", request, timeout=timeout)
        return response.input  # type: ignore[no-any-return]

    def _list(
        self,
        *,
        page: int | None = None,
        per_page: int | None = None,
        timeout: float | None = None,
    ) -> ItemPlan[v2.Input]:
        """The inputs of the app, newest first, fetched page by page; with ``page`` that one only.

        Args:
            page: Number of a page, from 1.
            per_page: Inputs a page, 1 to 1000; default 128.
            timeout: Seconds for each request; None: the client's.
        """
        request = v2.ListInputsRequest(user_app_id=self.user_app_id)
        yield from pages(
            "ListInputs", request, "inputs", page=page, per_page=per_page, timeout=timeout
        )

    def _stream(
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

    def _wait(
        self,
        inputs: str | v2.Input | Iterable[str | v2.Input],
        *,
        timeout: float = 300.0,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[v2.Input]]:
        """Wait until the service has processed inputs; looks at them at growing intervals.

        Args:
            inputs: Their ids, or what ``create`` returned.
            timeout: Seconds for all of it.
            raise_on_partial: Whether inputs that failed, or are not there, are an error, or stay
                among the results, each with its status. None: as the client was told.

        Returns:
            The processed inputs, in the order given.

        Raises:
            PartialFailureError: Some failed, or are not there. Of a single input: the error that
                its status stands for.
            DeadlineExceededError: Some are still being worked on.
        """
        given = [inputs] if isinstance(inputs, (str, v2.Input)) else inputs
        ids = [one.id if isinstance(one, v2.Input) else one for one in given]
        deadline = time.monotonic() + timeout
        settled: dict[str, v2.Input] = {}
        pause = _FIRST_PAUSE
        while True:
            left = [i for i in dict.fromkeys(ids) if i not in settled]
            for chunk in chunks(left):
                request = v2.ListInputsRequest(
                    user_app_id=self.user_app_id, ids=chunk, page=1, per_page=len(chunk)
                )
                rest = max(0.001, deadline - time.monotonic())
                response = yield from call("ListInputs", request, timeout=rest)
                found = {one.id: one for one in response.inputs}
                for input_id in chunk:
                    one = found.get(input_id) or _missing(input_id)
                    if errors.kind_of(one.status.code) is not _PENDING:
                        settled[input_id] = one
            pending = len(left) - sum(i in settled for i in left)
            if not pending:
                break
            if time.monotonic() + pause >= deadline:
                raise errors.DeadlineExceededError(
                    f"{pending} of {len(ids)} inputs are still being processed after {timeout:g} s",
                    method="ListInputs",
                )
            yield Sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        merged = v2.MultiInputResponse(inputs=[settled[i] for i in ids])
        merged.status.code = _overall(merged.inputs)
        return self._outcome("ListInputs", merged, raise_on_partial)

    def _patch(
        self,
        inputs: v2.Input | Iterable[v2.Input],
        *,
        action: Action = "merge",
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[v2.Input]]:
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
        merged = v2.MultiInputResponse()
        codes = set()
        for chunk in chunks(as_list(inputs, v2.Input)):
            request = v2.PatchInputsRequest(
                user_app_id=self.user_app_id, inputs=chunk, action=action
            )
            # The same change twice changes nothing more.
            response = yield from call(
                "PatchInputs", request, timeout=timeout, idempotent=True, raise_on_partial=False
            )
            merged.inputs.MergeFrom(response.inputs)
            merged.status.CopyFrom(response.status)
            codes.add(response.status.code)
        if len(codes) > 1:
            merged.status.code = v2.StatusCode.MIXED_STATUS
        if not codes:
            raise errors.InvalidArgumentError("patch() needs at least one input")
        if merged.status.code == v2.StatusCode.SUCCESS:
            return list(merged.inputs)  # a status that processing left is none of this call
        return self._outcome("PatchInputs", merged, raise_on_partial)

    def _merge_concepts(
        self, input_id: str, concepts: Concepts, *, timeout: float | None = None
    ) -> Plan[v2.Input]:
        """Add concepts to an input, or change their values; the others stay.

        Args:
            input_id: Id of the input.
            concepts: Ids, or a mapping of id to value (1: it shows that, 0: it does not).
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such input.
        """
        return (yield from self._change(input_id, concepts, "merge", timeout))

    def _remove_concepts(
        self, input_id: str, concepts: Concepts, *, timeout: float | None = None
    ) -> Plan[v2.Input]:
        """Take concepts away from an input, by their ids.

        Raises:
            NotFoundError: There is no such input.
        """
        return (yield from self._change(input_id, concepts, "remove", timeout))

    def _overwrite(
        self,
        inputs: v2.Input | Iterable[v2.Input],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[v2.Input]]:
        """Replace concepts, metadata and datasets of inputs; what is left out is dropped.

        As ``patch`` with ``action="overwrite"``.
        """
        plan = self._patch(
            inputs, action="overwrite", timeout=timeout, raise_on_partial=raise_on_partial
        )
        return (yield from plan)

    def _change(
        self, input_id: str, concepts: Concepts, action: Action, timeout: float | None
    ) -> Plan[v2.Input]:
        change = v2.Input(id=input_id, data=v2.Data(concepts=concept_messages(concepts)))
        (result,) = yield from self._patch(
            change, action=action, timeout=timeout, raise_on_partial=True
        )
        return result

    def _delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete inputs by their ids, in requests of 128.

        The service deletes them afterwards; ``get`` answers NotFoundError once it has.
        """
        given: list[str] = as_list(ids, str)
        for chunk in chunks(given):
            request = v2.DeleteInputsRequest(user_app_id=self.user_app_id, ids=chunk)
            yield from call("DeleteInputs", request, timeout=timeout)

    def _delete_all(self, *, timeout: float | None = None) -> Plan[int]:
        """Delete every input of the app, in requests of 128; there is no way back.

        Args:
            timeout: Seconds for each request; None: the client's.

        Returns:
            How many inputs were there. The service deletes them afterwards.
        """
        count = 0
        last_id = ""
        doomed: list[str] = []
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

    def _delete_present(self, ids: list[str], timeout: float | None) -> Plan[None]:
        request = v2.DeleteInputsRequest(user_app_id=self.user_app_id, ids=ids)
        try:
            yield from call("DeleteInputs", request, timeout=timeout, idempotent=True)
        except errors.NotFoundError:
            return  # a try whose answer was lost had deleted them

    def _upload(
        self,
        source: AnySource,
        *,
        batch_size: int = MAX_ITEMS,
        batch_bytes: int = 32 * 1024 * 1024,
        in_flight: int = 4,
        timeout: float = 300.0,
        journal: str | os.PathLike[str] | None = None,
        progress: bool | Callback = False,
        report: UploadReport | None = None,
    ) -> Job:
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
        return Job(
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

    def _status(self, *, timeout: float | None = None) -> Plan[v2.InputCount]:
        """How many inputs are processed, waiting and failed."""
        request = v2.GetInputCountRequest(user_app_id=self.user_app_id)
        response = yield from call("GetInputCount", request, timeout=timeout)
        return response.counts  # type: ignore[no-any-return]


class Inputs(InputOperations):
    """The inputs of an app."""

    create = blocking(InputOperations._create)
    upload = uploading(InputOperations._upload)
    get = blocking(InputOperations._get)
    list = iterating(InputOperations._list)
    stream = iterating(InputOperations._stream)
    wait = blocking(InputOperations._wait)
    patch = blocking(InputOperations._patch)
    merge_concepts = blocking(InputOperations._merge_concepts)
    remove_concepts = blocking(InputOperations._remove_concepts)
    overwrite = blocking(InputOperations._overwrite)
    delete = blocking(InputOperations._delete)
    delete_all = blocking(InputOperations._delete_all)
    status = blocking(InputOperations._status)


class AsyncInputs(InputOperations):
    """The inputs of an app."""

    create = awaiting(InputOperations._create)
    upload = auploading(InputOperations._upload)
    get = awaiting(InputOperations._get)
    list = aiterating(InputOperations._list)
    stream = aiterating(InputOperations._stream)
    wait = awaiting(InputOperations._wait)
    patch = awaiting(InputOperations._patch)
    merge_concepts = awaiting(InputOperations._merge_concepts)
    remove_concepts = awaiting(InputOperations._remove_concepts)
    overwrite = awaiting(InputOperations._overwrite)
    delete = awaiting(InputOperations._delete)
    delete_all = awaiting(InputOperations._delete_all)
    status = awaiting(InputOperations._status)


def _missing(input_id: str) -> v2.Input:
    status = v2.Status(
        code=v2.StatusCode.INPUT_DOES_NOT_EXIST,
        description="Input does not exist",
        details=f"there is no input {input_id!r}",
    )
    return v2.Input(id=input_id, status=status)


def _overall(inputs: Iterable[v2.Input]) -> v2.StatusCode.ValueType:
    """The status of a call from those of its inputs, as the service would put it."""
    good = [one.status.code in errors.PASSING for one in inputs]
    if all(good):
        return v2.StatusCode.SUCCESS
    return v2.StatusCode.MIXED_STATUS if any(good) else v2.StatusCode.FAILURE
