"""Work that the service does in the background: its status, waiting for it, cancelling it.

A collection says with a ``Work`` how one of its resources is asked for and when it has ended. What
users hold of it is one class for all kinds of work, ``LongRunningWork``, and ``wait`` of a
collection goes the same way.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Concatenate, Generic, NamedTuple, ParamSpec, TypeAlias, TypeVar

from google.protobuf.message import Message

from clarigrpc import errors, v2
from clarigrpc._contract.methods import lookup
from clarigrpc._contract.status_names import code_name
from clarigrpc._progress_bar import BarUnit, open_bar, progress_callback
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Collection, MessageT, Operations, as_list, field_of
from clarigrpc._resources.sync_async import Async, Driven, Sync, operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.plan import Plan, Sleep

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_USUAL_SECONDS = 300.0
_LONGEST_NAME = 32
_PENDING = statuses.StatusKind.PENDING

P = ParamSpec("P")
T = TypeVar("T")


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class WorkProgress:
    """How far work in the background is.

    Attributes:
        status: What the service says of it.
        percent: 0 to 100; None if the service does not say.
        items_done: Number of items that are done, failed ones included; None if the service does
            not count any.
        items_total: Number of items; None if it is not known.
    """

    status: v2.Status
    percent: float | None = None
    items_done: int | None = None
    items_total: int | None = None


WorkCallback: TypeAlias = Callable[[WorkProgress], object]
"""Called with the progress of work in the background, each time the service was asked."""


class LookTime(NamedTuple):
    """How long the service may take when it is asked how far work is.

    Attributes:
        until: When all calls have to be over, by ``time.monotonic()``.
        call: Seconds for each of them.
    """

    until: float
    call: float

    @property
    def seconds(self) -> float:
        """Seconds for a call that begins now."""
        return max(0.001, min(self.call, self.until - time.monotonic()))


class WorkState(NamedTuple, Generic[T]):
    """What the service says of work when it is asked.

    Attributes:
        progress: How far the work is.
        finish: Returns the result of work that has ended, or raises its failure. None while the
            service works.
    """

    progress: WorkProgress
    finish: Callable[[], T] | None


@dataclass(frozen=True)
class Work(Generic[T]):
    """Something that the service does in the background.

    Attributes:
        resource: What has the methods that ``look`` and ``cancel`` call.
        name: What it is: ``evaluation 'e'``.
        look: Asks the service, which has so much time for it.
        cancel: Has it cancelled, within a number of seconds (None: the client's setting), and
            returns its status.
        late: Says what is not there yet.
        method: The service's method that ``look`` calls, for errors.
        unit: What a progress bar shows.
        seconds: How long it is waited for.
    """

    resource: Operations
    name: str
    look: Callable[[LookTime], Plan[WorkState[T]]]
    cancel: Callable[[float | None], Plan[v2.Status]]
    late: Callable[[], str]
    method: str
    unit: BarUnit = "percent"
    seconds: float = _USUAL_SECONDS

    def wait(self, timeout: float | None = None, progress: bool | WorkCallback = False) -> Plan[T]:
        """The result, once the work has ended."""
        seconds = self.seconds if timeout is None else timeout
        deadline = time.monotonic() + seconds
        # A call that hangs must not take the whole wait: the next one may be answered.
        limits = LookTime(deadline, self.resource._client.settings.timeout)
        pause = _FIRST_PAUSE
        with _reporting(progress, self.name, self.unit) as report:
            while True:
                unanswered: errors.DeadlineExceededError | None = None
                try:
                    seen = yield from self.look(limits)
                except errors.DeadlineExceededError as error:
                    unanswered = error
                else:
                    report(seen.progress)
                    if seen.finish is not None:
                        return seen.finish()
                left = deadline - time.monotonic()
                if left < _FIRST_PAUSE:
                    raise self._too_late(seconds, unanswered) from unanswered
                # The last looks are close to the deadline, not one long pause before it.
                yield Sleep(min(pause, left / 2))
                pause = min(_LONGEST_PAUSE, pause * 1.5)

    def _too_late(
        self, seconds: float, unanswered: errors.DeadlineExceededError | None
    ) -> errors.DeadlineExceededError:
        last = "" if unanswered is None else "; the last time, the service did not answer"
        return errors.DeadlineExceededError(
            f"{self.late()} after {seconds:g} s{last}", method=self.method
        )


class WorkOperations(Generic[T]):
    """Work that the service does in the background: a training, an export, a job ...

    ``follow`` of a resource makes one. Nothing is sent before it is used. Any process can follow
    the same work.
    """

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self._unary = work.resource._unary
        self._pause = work.resource._pause

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._work.name})"

    @operation
    def status(self, *, timeout: float | None = None) -> Plan[v2.Status]:
        """Ask how far the work is.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            Its status now: ``code`` and ``description``; ``details`` if it failed;
            ``percent_completed`` if the service says it.

        Raises:
            NotFoundError: The service does not know the work. Of inputs, the status says so.
        """
        seconds = self._work.resource._client.settings.timeout if timeout is None else timeout
        seen = yield from self._work.look(LookTime(time.monotonic() + seconds, seconds))
        return seen.progress.status

    @operation
    def wait(
        self, *, timeout: float | None = None, progress: bool | WorkCallback = False
    ) -> Plan[T]:
        """Wait until the work has ended.

        Asks the service at growing intervals (0.05 to 5 seconds), and again where a call takes
        longer than the client's ``timeout``. The work goes on if the wait is given up.

        Args:
            timeout: Seconds for the whole wait. None waits 3600 seconds for a training, and 300 for
                everything else.
            progress: A function called with a ``WorkProgress`` each time the service was asked, or
                True for a progress bar if stderr is a terminal. Default False.

        Returns:
            What the work was about, in its final state.

        Raises:
            ApiError: The work failed; the subclass, ``code`` and ``details`` say why.
            CancelledError: The work was cancelled.
            DeadlineExceededError: The work has not ended in time.
            NotFoundError: The service does not know the work.
        """
        return (yield from self._work.wait(timeout, progress))

    @operation
    def cancel(self, *, timeout: float | None = None) -> Plan[v2.Status]:
        """Cancel the work. What it has done already stays.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            The status after the request. Work that had ended keeps its status.

        Raises:
            UnimplementedError: The service cannot cancel work of this kind.
            NotFoundError: The service does not know the work.
        """
        return (yield from self._work.cancel(timeout))


@named_in("clarigrpc.types")
class LongRunningWork(WorkOperations[T], Sync):
    """Work that the service does in the background: a training, an export, a job ...

    ``follow`` of a resource makes one. Nothing is sent before it is used. Any process can follow
    the same work.
    """


@named_in("clarigrpc.types")
class AsyncLongRunningWork(WorkOperations[T], Async):
    """Work that the service does in the background: a training, an export, a job ...

    ``follow`` of a resource makes one. Nothing is sent before it is used. Any process can follow
    the same work.
    """


def following(
    begin: Callable[Concatenate[Any, P], Work[T]],
) -> Driven[P, LongRunningWork[T], AsyncLongRunningWork[T]]:
    """Decorates a method that returns the work to follow."""

    def sync_work(owner: Any, work: Work[T]) -> LongRunningWork[T]:
        return LongRunningWork(work)

    def async_work(owner: Any, work: Work[T]) -> AsyncLongRunningWork[T]:
        return AsyncLongRunningWork(work)

    returned = ("LongRunningWork[{}]", "AsyncLongRunningWork[{}]")
    return Driven(begin, (sync_work, async_work), returned)


class FollowsWork(Collection[MessageT]):
    """Resources that are, or are made by, work in the background.

    Attributes:
        _work_name: What that is called: ``evaluation``.
        _work_unit: What its progress is told in.
        _instead_of_cancel: What can be done where the service cannot cancel it.
        _work_seconds: How long it is waited for.
    """

    _work_name: ClassVar[str]
    _work_unit: ClassVar[BarUnit] = "percent"
    _instead_of_cancel: ClassVar[str] = ""
    _work_seconds: ClassVar[float] = _USUAL_SECONDS

    @following
    def follow(self, item: str | MessageT) -> Work[MessageT]:
        """Follow the work on a resource: ask for its status, wait for its end, or cancel it.

        Args:
            item: Id of the resource, or the resource itself.

        Returns:
            An object with ``status()``, ``wait()``, which returns the resource in its final state,
            and ``cancel()``. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return self._work_on(item)

    def _work_on(self, item: str | MessageT) -> Work[MessageT]:
        resource_id = _id_of(item)
        name = f"{self._work_name} {resource_id!r}"

        def look(limits: LookTime) -> Plan[WorkState[MessageT]]:
            found = yield from self._fetch(resource_id, limits.seconds)
            progress = self._progress_of(found)
            if statuses.kind_of(progress.status.code) is _PENDING:
                return WorkState(progress, None)
            return WorkState(progress, lambda: self._ended(found, progress.status))

        return Work(
            self,
            name,
            look,
            cancel=lambda timeout: self._cancel_work(resource_id, timeout),
            late=lambda: f"{name} has not ended",
            method=self._get_rpc,
            unit=self._work_unit,
            seconds=self._work_seconds,
        )

    def _progress_of(self, item: MessageT) -> WorkProgress:
        """How far the work on a resource is."""
        return by_percent(_status_of(item))

    def _ended(self, item: MessageT, status: v2.Status) -> MessageT:
        """A resource whose status is not pending; raises if that is a failure."""
        return succeeded(item, status, self._get_rpc)

    def _cancel_work(self, resource_id: str, timeout: float | None) -> Plan[v2.Status]:
        name = f"{self._work_name} {resource_id!r}"
        return not_cancellable(name, self._instead_of_cancel)


def work_on_export(
    resource: Operations, name: str, method: str, fetch: Callable[[float], Plan[T]]
) -> Work[T]:
    """An export, which has a status and no id of its own.

    Args:
        resource: What has the method.
        name: What it is: ``export of version 'v'``.
        method: The service's method that tells its status.
        fetch: Fetches the export, within a number of seconds.
    """

    def look(limits: LookTime) -> Plan[WorkState[T]]:
        export = yield from fetch(limits.seconds)
        progress = by_percent(_status_of(export))
        if statuses.kind_of(progress.status.code) is _PENDING:
            return WorkState(progress, None)
        return WorkState(progress, lambda: succeeded(export, progress.status, method))

    return Work(
        resource,
        name,
        look,
        cancel=lambda timeout: not_cancellable(name),
        late=lambda: "the export is not complete",
        method=method,
    )


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
        return (yield from self._work_on_many(items, raise_on_partial).wait(timeout))

    def _work_on_many(
        self,
        items: str | MessageT | Iterable[str | MessageT],
        raise_on_partial: bool | None = None,
    ) -> Work[list[MessageT]]:
        given: list[Any] = as_list(items, (str, Message))
        ids = [_id_of(one) for one in given]
        settled: dict[str, MessageT] = {}
        method = self._list_rpc  # its response holds many of them

        def left() -> list[str]:
            return [one for one in dict.fromkeys(ids) if one not in settled]

        def look(limits: LookTime) -> Plan[WorkState[list[MessageT]]]:
            pending: list[v2.Status] = []
            found = (yield from self._look(left(), limits)) if left() else {}
            for one, item in found.items():
                status = _status_of(item)
                if statuses.kind_of(status.code) is _PENDING:
                    pending.append(status)
                else:
                    settled[one] = item
            overall = pending[0] if pending else _told([*settled.values()])
            counts = (len(settled), len(settled) + len(pending))
            progress = by_items(overall, *counts)
            return WorkState(progress, None if pending else finish)

        def finish() -> list[MessageT]:
            merged = lookup(method).response_class()()
            field = field_of(lookup(method).response_name, self._message.__name__)
            getattr(merged, field).extend(settled[one] for one in ids)
            merged.status.code = _overall(getattr(merged, field))
            ended: list[MessageT] = self._outcome(method, merged, field, raise_on_partial)
            return ended

        name = f"processing of {len(ids)} items" if len(ids) != 1 else f"processing of {ids[0]!r}"
        return Work(
            self,
            name,
            look,
            cancel=lambda timeout: not_cancellable(name, "delete them"),
            late=lambda: f"{len(left())} of {len(ids)} are still being processed",
            method=method,
            unit="items",
        )

    def _look(self, ids: Sequence[str], limits: LookTime) -> Plan[Mapping[str, MessageT]]:
        """The resources by their ids; those that are not there with a status that says so."""
        found = {}
        for one in ids:
            try:
                found[one] = yield from self._fetch(one, limits.seconds)
            except errors.NotFoundError as error:
                found[one] = self._message(id=one, status=error.status)
        return found


def by_percent(status: v2.Status) -> WorkProgress:
    """The progress of work that the service tells as a percentage, if it tells any."""
    if statuses.kind_of(status.code) is statuses.StatusKind.SUCCESS:
        return WorkProgress(status, 100.0)
    return WorkProgress(status, float(status.percent_completed) or None)


def by_items(status: v2.Status, done: int, total: int | None) -> WorkProgress:
    """The progress of work on items."""
    return WorkProgress(status, 100 * done / total if total else None, done, total)


def succeeded(item: T, status: v2.Status, method: str) -> T:
    """The result of work that has ended.

    Raises:
        ApiError: It failed; the subclass says how.
    """
    failure = statuses.from_item(status, method=method, request_id="")
    if failure is not None:
        raise failure
    return item


def not_cancellable(name: str, instead: str = "") -> Plan[v2.Status]:
    """Refuse to cancel.

    Raises:
        UnimplementedError: Always.
    """
    advice = f"; {instead} instead" if instead else ""
    raise errors.UnimplementedError(f"the service has no method to cancel the {name}{advice}")


@contextlib.contextmanager
def _reporting(progress: bool | WorkCallback, name: str, unit: BarUnit) -> Iterator[WorkCallback]:
    """What is to be called with the progress.

    Raises:
        ConfigurationError: ``progress=True`` and ``rich`` is not installed.
        TypeError: The function is asynchronous.
    """
    callback = progress_callback(progress)
    if callback is not None:
        yield callback
        return
    bar = open_bar(_shortened(name), None, unit=unit) if progress else None
    if bar is None:
        yield lambda _: None
        return

    def show(state: WorkProgress) -> None:
        said = state.status.description or code_name(state.status.code).replace("_", " ").lower()
        if state.items_done is not None:
            bar.update(state.items_done, total=state.items_total, said=said)
        elif state.percent is not None:
            bar.update(int(state.percent), total=100, said=said)
        else:
            bar.update(0, said=said)

    try:
        yield show
    finally:
        bar.close()


def _shortened(name: str) -> str:
    """A name that leaves room for the bar on a narrow terminal."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _id_of(item: Any) -> str:
    found = item if isinstance(item, str) else getattr(item, "id", None)
    if not isinstance(found, str):
        raise TypeError(f"expected an id or a message with one, not {type(item).__name__}")
    if not found:
        raise errors.InvalidArgumentError("the id of what is to be waited for is empty")
    return found


def _status_of(item: Any) -> v2.Status:
    status: v2.Status = item.status
    return status


def _told(items: Sequence[Any]) -> v2.Status:
    """The status of items that have ended: of a single one that failed its own, with the reason."""
    overall = _overall(items)
    if overall == v2.StatusCode.FAILURE and len(items) == 1:
        return _status_of(items[0])
    return v2.Status(code=overall)


def _overall(items: Iterable[Any]) -> v2.StatusCode.ValueType:
    """The status of a call from those of its items, as the service would put it."""
    good = [_status_of(one).code in statuses.PASSING for one in items]
    if all(good):
        return v2.StatusCode.SUCCESS
    return v2.StatusCode.MIXED_STATUS if any(good) else v2.StatusCode.FAILURE
