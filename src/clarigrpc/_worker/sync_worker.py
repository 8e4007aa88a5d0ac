"""The sync driver of a worker: a thread for each item at work, and one that reads its call."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from clarigrpc import errors, v2
from clarigrpc._named_methods.method_failures import CONTAINED
from clarigrpc._named_methods.python_methods import ModelMethod
from clarigrpc._rpc.plan import Call
from clarigrpc._worker import item_steps as steps
from clarigrpc._worker import worker_driver
from clarigrpc._worker.batch_queue import BatchQueue, BatchRow
from clarigrpc._worker.item_call import ItemAbortedError, ItemCall
from clarigrpc._worker.item_loop import STOPPING
from clarigrpc._worker.worker_driver import WorkerDriver
from clarigrpc._worker.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from clarigrpc.client import Client

logger = logging.getLogger("clarigrpc")
T = TypeVar("T")


class _OpenedCall(Iterator[v2.PostRunnerItemOutputsRequest]):
    """A call with its reading thread, and an iterator of what is sent over it."""

    def __init__(self, state: ItemCall, hello: v2.PostRunnerItemOutputsRequest) -> None:
        self.state = state
        self.changed = threading.Condition()
        self.results: list[Any] = []
        self.responses: Any = None
        self.reader: threading.Thread | None = None
        self._outgoing = deque([hello])
        self._closing = False
        self._version = self._seen = 0

    def change(self) -> None:
        """Something has happened; with ``changed`` held."""
        self._version += 1
        self.changed.notify_all()

    def wake(self) -> None:
        """Something has happened."""
        with self.changed:
            self.change()

    def wait(self, seconds: float) -> None:
        """Return once something has happened since the last time."""
        with self.changed:
            self.changed.wait_for(
                lambda: self._version != self._seen, min(seconds, threading.TIMEOUT_MAX)
            )
            self._seen = self._version

    def __next__(self) -> v2.PostRunnerItemOutputsRequest:
        with self.changed:
            self.changed.wait_for(lambda: self._outgoing or self._closing or self.state.over)
            if not self._outgoing or self.state.over:
                raise StopIteration
            message = self._outgoing.popleft()
            self.change()
            return message

    def write(self, message: v2.PostRunnerItemOutputsRequest) -> bool:
        """Send a message once the one before is on its way; False where the call is over."""
        with self.changed:
            self.changed.wait_for(lambda: not self._outgoing or self.state.over)
            if self.state.over or self._closing:
                return False
            self._outgoing.append(message)
            self.change()
            return True

    def half_close(self) -> None:
        """No further message follows."""
        with self.changed:
            self._closing = True
            self.change()

    def read(self) -> None:
        """Take what comes until the call ends; for a thread."""
        state, error = self.state, None
        try:
            for response in self.responses:
                with self.changed:
                    state.received(response)
                    self.change()
                    self.changed.wait_for(lambda: not state.is_full)
        except errors.ApiError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - the loop must not wait for ever
            error = errors.InternalError(str(failure))
        with self.changed:
            state.ended(error)
            self.change()
        self.responses.cancel()

    def next_request(self) -> v2.PostModelOutputsRequest | None:
        """The next request of a stream; None at its end."""
        state = self.state
        with self.changed:
            self.changed.wait_for(
                lambda: state.inputs or state.inputs_ended or state.over or state.abort
            )
            if state.abort is not None:
                raise ItemAbortedError(state.abort)
            if state.inputs:
                request = state.take_input()
                self.change()
                return request
            if state.inputs_ended:
                return None
        raise ItemAbortedError("the connection was lost")

    def inputs(self) -> Iterator[v2.Data]:
        """The data of all requests of a stream."""
        while (request := self.next_request()) is not None:
            for one in request.inputs:
                yield one.data


class _SyncBatches:
    """Runs batched methods: whoever waits when a batch is due runs it, for all of its rows."""

    def __init__(self, settings: WorkerSettings, ran: Callable[[], None]) -> None:
        self._settings = settings
        self._ran = ran
        self._changed = threading.Condition()
        self._queues: dict[int, BatchQueue] = {}

    def run(
        self, method: ModelMethod, rows: list[dict[str, Any]], is_active: Callable[[], bool]
    ) -> list[v2.Data | Exception]:
        """The result, or the exception, for each row."""
        now = time.monotonic()
        mine = [BatchRow(arguments, now) for arguments in rows]
        with self._changed:
            queue = self._queues.setdefault(
                id(method), BatchQueue(self._settings.max_batch, self._settings.max_delay)
            )
            for row in mine:
                queue.add(row)
            self._changed.notify_all()
        while True:
            with self._changed:
                if all(row.result is not None for row in mine):
                    return [row.result for row in mine if row.result is not None]
                if not is_active():
                    queue.withdraw(mine)
                    raise ItemAbortedError("the item was aborted")
                batch = queue.take(time.monotonic())
                if not batch:
                    due = queue.due_at()
                    left = 1.0 if due is None else min(1.0, max(0.0, due - time.monotonic()))
                    self._changed.wait(left)
                    continue
            try:
                self._execute(method, batch)
            finally:
                with self._changed:
                    queue.ended()
                    self._changed.notify_all()

    def _execute(self, method: ModelMethod, batch: list[BatchRow]) -> None:
        self._ran()
        try:
            results: list[Any] = method.call_batch([row.arguments for row in batch], _always)
        except Exception as error:  # noqa: BLE001 - a model may be anybody's function
            if len(batch) == 1:
                results = [error]
            else:  # one row may be the cause: the others are not to fail with it
                for row in batch:
                    self._execute(method, [row])
                return
        for row, result in zip(batch, results, strict=True):
            row.result = result


def _run_function(step: steps.RunFunction) -> Any:
    with CONTAINED:
        return step.function()


def _always() -> bool:
    return True


class SyncDriver(WorkerDriver):
    """Runs the loops of a worker in threads."""

    _client: Client

    def _prepare(self) -> None:
        self._opened: set[_OpenedCall] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._hurried = threading.Event()
        self._batches = _SyncBatches(self._settings, partial(self._loop.count, batches=1))
        self._threads: list[threading.Thread] = []
        self._others: list[threading.Thread] = []
        self._do: dict[type[Any], Callable[[Any], Any]] = {
            steps.OpenCall: self._open,
            steps.AwaitChange: lambda step: self._of(step.call).wait(step.seconds),
            steps.WriteMessage: lambda step: self._of(step.call).write(step.message),
            steps.HalfClose: lambda step: self._of(step.call).half_close(),
            steps.WakeCall: lambda step: self._of(step.call).wake(),
            steps.CancelCall: lambda step: self._of(step.call).responses.cancel(),
            steps.Pause: lambda step: self._stop.wait(step.seconds),
            steps.StartMethod: self._start_method,
            steps.NextResult: lambda step: next(step.results, None),
            steps.EndMethods: self._end_methods,
            steps.NextRequest: lambda step: self._of(step.call).next_request(),
            steps.RunBatch: self._run_batch,
            steps.RunFunction: _run_function,
            Call: self._call,
        }

    @property
    def is_alive(self) -> bool:
        """Whether the threads that take items run."""
        running = self._loop.stopping or all(one.is_alive() for one in self._threads)
        return self._loop.failure is None and running

    def start(self) -> None:
        """Register the runner, and begin to take items."""
        self._run(self._loop.register())
        plans = [self._loop.serve(number) for number in range(self._settings.loops)]
        self._threads = [
            threading.Thread(
                target=self._run_loop, args=(plan,), name=f"clarigrpc-runner-{number}", daemon=True
            )
            for number, plan in enumerate(plans)
        ]
        control = threading.Thread(
            target=self._run_loop,
            args=(self._loop.control(),),
            name="clarigrpc-runner-control",
            daemon=True,
        )
        watch = threading.Thread(
            target=self._run_loop,
            args=(self._loop.watch(),),
            name="clarigrpc-runner-watch",
            daemon=True,
        )
        self._others = [control, watch]
        for thread in (*self._others, *self._threads):
            thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the worker is to stop, at most for so many seconds; False after them."""
        end = time.monotonic() + (math.inf if seconds is None else seconds)
        while not self._stop.wait(
            min(worker_driver.SIGNAL_SECONDS, max(0.0, end - time.monotonic()))
        ):
            if time.monotonic() >= end:
                return False
        return True

    def request_stop(self) -> None:
        """Take no further item; safe in a signal handler."""
        self._loop.stopping = True
        self._stop.set()

    def end_grace(self) -> None:
        """Have ``stop`` wait no longer for what runs."""
        self._hurried.set()

    def stop(self, grace: float) -> None:
        """Finish what runs, at most for ``grace`` seconds, and end the rest."""
        self.request_stop()
        self._wake()
        end = time.monotonic() + grace
        try:
            self._join(end, self._hurried)
            for call in self._loop.items:
                call.abort = call.abort or STOPPING
            self._wake()
            self._join(time.monotonic() + worker_driver.ABORT_SECONDS)
            self._give_back()
        finally:  # also after KeyboardInterrupt
            opened = self._running()
            for one in opened:
                one.responses.cancel()
        end = time.monotonic() + worker_driver.ABORT_SECONDS
        readers = [one.reader for one in opened if one.reader is not None]
        for thread in (*readers, *self._others):
            thread.join(max(0.0, end - time.monotonic()))

    def _give_back(self) -> None:
        """Hand on what is in the hands of functions that cannot be interrupted."""
        end = time.monotonic() + worker_driver.ABORT_SECONDS
        for call in self._loop.items:
            try:
                self._client.v2.PostRunnerItemOutputs(
                    self._loop.give_back(call), timeout=max(0.1, end - time.monotonic())
                )
            except errors.ClarigrpcError as error:
                logger.warning("an item is lost at the end of the runner: %s", error)
                if time.monotonic() >= end:
                    return

    def _join(self, end: float, hurried: threading.Event | None = None) -> None:
        for thread in self._threads:
            while thread.is_alive() and (left := end - time.monotonic()) > 0:
                if hurried is not None and hurried.is_set():
                    return
                thread.join(min(left, worker_driver.SIGNAL_SECONDS))

    def _wake(self) -> None:
        for opened in self._running():
            opened.wake()

    def _running(self) -> list[_OpenedCall]:
        with self._lock:
            return list(self._opened)

    def _run_loop(self, plan: steps.WorkerPlan[None]) -> None:
        try:
            self._run(plan)
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the worker
            self._loop.failure = self._loop.failure or error
            self.request_stop()
            self._wake()

    def _run(self, plan: steps.WorkerPlan[T]) -> T:
        try:
            step = next(plan)
            while True:
                try:
                    value = self._do[type(step)](step)
                except Exception as error:  # noqa: BLE001 - the plan decides about it
                    step = plan.throw(error)
                else:
                    step = plan.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    def _of(self, call: ItemCall) -> _OpenedCall:
        opened: _OpenedCall = call.opened
        return opened

    def _open(self, step: steps.OpenCall) -> None:
        step.call.opened = opened = _OpenedCall(step.call, step.hello)
        opened.responses = self._client.v2.ProcessRunnerItems(
            opened, timeout=self._settings.call_seconds
        )
        with self._lock:
            self._opened.add(opened)
        reader = threading.Thread(
            target=self._read, args=(opened,), name="clarigrpc-runner-read", daemon=True
        )
        reader.start()
        opened.reader = reader

    def _read(self, opened: _OpenedCall) -> None:
        opened.read()
        with self._lock:
            self._opened.discard(opened)

    def _start_method(self, step: steps.StartMethod) -> Any:
        opened, call = self._of(step.call), step.call
        results = step.run.results(
            lambda: call.abort is None,
            opened.inputs() if step.streamed else None,
            self._reader,
        )
        opened.results.append(results)
        return results

    def _end_methods(self, step: steps.EndMethods) -> None:
        opened = self._of(step.call)
        step.call.drain()
        opened.wake()
        for results in opened.results:
            try:
                results.close()
            except Exception:  # a model may be anybody's function
                logger.exception("a method of the model failed at its end")
        opened.results.clear()

    def _run_batch(self, step: steps.RunBatch) -> list[v2.Data | Exception]:
        call = step.call
        return self._batches.run(step.method, step.rows, lambda: call.abort is None)

    def _call(self, step: Call) -> Any:
        method = getattr(self._client.v2, step.method)
        return method(step.request, timeout=step.timeout, **(step.options or {}))
