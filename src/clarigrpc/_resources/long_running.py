"""Waiting for work that the service does in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from clarigrpc import errors, v2
from clarigrpc._contract.methods import lookup
from clarigrpc._resources.base import Collection, MessageT, as_list, field_of
from clarigrpc._resources.sync_async import operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.plan import Plan, Sleep

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_PENDING = statuses.StatusKind.PENDING

T = TypeVar("T")


def until(
    look: Callable[[float], Plan[T | None]],
    *,
    timeout: float,
    late: Callable[[], errors.ApiError],
) -> Plan[T]:
    """Call ``look`` at growing intervals until it finds something; returns that.

    Args:
        look: A plan that returns None if there is nothing yet. Its argument is the number of
            seconds left.
        timeout: Seconds for the whole wait.
        late: Makes the error to raise after that.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        found = yield from look(max(0.001, deadline - time.monotonic()))
        if found is not None:
            return found
        if time.monotonic() + pause >= deadline:
            raise late()
        yield Sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)


class Waits(Collection[MessageT]):
    """Resources whose status tells when the service has finished processing them."""

    @operation
    def wait(
        self,
        items: str | MessageT | Iterable[str | MessageT],
        *,
        timeout: float = 300.0,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[MessageT]]:
        """Wait until the service has finished processing resources.

        Polls their status at growing intervals (0.05 to 5 seconds).

        Args:
            items: Ids of resources, or what ``create`` returned; one or many.
            timeout: Seconds for the whole wait. Default 300.
            raise_on_partial: Whether a failed or missing resource raises an error. False returns it
                with the others, with its status. None uses the client's setting.

        Returns:
            The resources in their final state, in the order given.

        Raises:
            PartialFailureError: Some of several resources failed or do not exist. For a single one,
                the error that fits its status is raised.
            DeadlineExceededError: Some resources are still being processed.
        """
        given: list[Any] = as_list(items, (str, Message))
        ids = [one if isinstance(one, str) else str(one.id) for one in given]
        settled: dict[str, MessageT] = {}
        method = self._list_rpc  # its response holds many of them

        def left() -> list[str]:
            return [one for one in dict.fromkeys(ids) if one not in settled]

        def look(seconds: float) -> Plan[bool | None]:
            found = yield from self._look(left(), seconds)
            for one, item in found.items():
                if statuses.kind_of(_status_of(item).code) is not _PENDING:
                    settled[one] = item
            return None if left() else True

        def late() -> errors.ApiError:
            text = f"{len(left())} of {len(ids)} are still being processed after {timeout:g} s"
            return errors.DeadlineExceededError(text, method=method)

        yield from until(look, timeout=timeout, late=late)
        merged = lookup(method).response_class()()
        field = field_of(lookup(method).response_name, self._message.__name__)
        getattr(merged, field).extend(settled[one] for one in ids)
        merged.status.code = _overall(getattr(merged, field))
        ended: list[MessageT] = self._outcome(method, merged, field, raise_on_partial)
        return ended

    def _look(self, ids: Sequence[str], seconds: float) -> Plan[Mapping[str, MessageT]]:
        """The resources by their ids; those that are not there with a status that says so."""
        found = {}
        deadline = time.monotonic() + seconds
        for one in ids:
            try:
                found[one] = yield from self._fetch(one, max(0.001, deadline - time.monotonic()))
            except errors.NotFoundError as error:
                found[one] = self._message(id=one, status=error.status)
        return found


def _status_of(item: Any) -> v2.Status:
    status: v2.Status = item.status
    return status


def _overall(items: Iterable[Any]) -> v2.StatusCode.ValueType:
    """The status of a call from those of its items, as the service would put it."""
    good = [_status_of(one).code in statuses.PASSING for one in items]
    if all(good):
        return v2.StatusCode.SUCCESS
    return v2.StatusCode.MIXED_STATUS if any(good) else v2.StatusCode.FAILURE
