"""The inputs of an app."""

from __future__ import annotations

from collections.abc import Iterable

from clarigrpc import errors, v2
from clarigrpc.media import as_input
from clarigrpc.plan import ItemPlan, Plan, aiterating, awaiting, blocking, call, iterating
from clarigrpc.resources.base import Operations, as_list, chunks, pages


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
        if not self._client.raises_on_partial(raise_on_partial):
            return list(merged.inputs)
        if len(wanted) == 1 and merged.inputs:
            failure = errors.from_item(
                merged.inputs[0].status,
                method="PostInputs",
                request_id=merged.status.req_id,
            )
        else:
            failure = errors.from_response(
                merged,
                method="PostInputs",
                request_id=merged.status.req_id,
                item_field="inputs",
            )
        if failure is not None:
            raise failure
        return list(merged.inputs)

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

    def _delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete inputs by their ids, in requests of 128.

        The service deletes them afterwards; ``get`` answers NotFoundError once it has.
        """
        for chunk in chunks(as_list(ids, str)):
            request = v2.DeleteInputsRequest(user_app_id=self.user_app_id, ids=chunk)
            yield from call("DeleteInputs", request, timeout=timeout)

    def _status(self, *, timeout: float | None = None) -> Plan[v2.InputCount]:
        """How many inputs are processed, waiting and failed."""
        request = v2.GetInputCountRequest(user_app_id=self.user_app_id)
        response = yield from call("GetInputCount", request, timeout=timeout)
        return response.counts  # type: ignore[no-any-return]


class Inputs(InputOperations):
    """The inputs of an app."""

    create = blocking(InputOperations._create)
    get = blocking(InputOperations._get)
    list = iterating(InputOperations._list)
    delete = blocking(InputOperations._delete)
    status = blocking(InputOperations._status)


class AsyncInputs(InputOperations):
    """The inputs of an app."""

    create = awaiting(InputOperations._create)
    get = awaiting(InputOperations._get)
    list = aiterating(InputOperations._list)
    delete = awaiting(InputOperations._delete)
    status = awaiting(InputOperations._status)
