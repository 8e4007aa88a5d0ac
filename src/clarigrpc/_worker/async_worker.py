"""The async driver of a worker: tasks on the event loop of the client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from clarigrpc import errors, v2
from clarigrpc._named_methods.method_failures import CONTAINED
from clarigrpc._named_methods.method_loop import EXHAUSTED, StepFuture, serve_steps
from clarigrpc._named_methods.python_methods import ModelMethod
from clarigrpc._rpc.plan import Call
from clarigrpc._worker import item_steps as steps
from clarigrpc._worker import worker_driver
from clarigrpc._worker.batch_queue import BatchQueue, BatchRow
from clarigrpc._worker.daemon_threads import DaemonThreads
from clarigrpc._worker.item_call import ItemAbortedError, ItemCall
from clarigrpc._worker.item_loop import STOPPING
from clarigrpc._worker.worker_driver import WorkerDriver
from clarigrpc._worker.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from clarigrpc.client import AsyncClient

logger = logging.getLogger("clarigrpc")
T = TypeVar("T")


class _RunningCall:
    """A call with the task that reads it."""

    def __init__(self, state: ItemCall) -> None:
        self.state = state
        self.methods: list[_MethodTask] = []
        self.rpc: Any = None
        self.reading: asyncio.Task[None] | None = None
        self._changes: list[asyncio.Event] = []
        self._fresh = False

    def change(self) -> None:
        """Something has happened."""
        self._fresh = True
        for event in self._changes:
            event.set()

    async def until(self, condition: Callable[[], Any], seconds: float = math.inf) -> None:
        """Wait until a condition holds, at most for so many seconds."""
        event = asyncio.Event()
        self._changes.append(event)
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                while not condition():
                    await event.wait()
                    event.clear()
        except TimeoutError:
            pass
        finally:
            self._changes.remove(event)

    async def wait(self, seconds: float) -> None:
        """Return once something has happened since the last time."""
        await self.until(lambda: self._fresh, seconds)
        self._fresh = False

    async def write(self, message: v2.PostRunnerItemOutputsRequest) -> bool:
        """Send a message when there is room; False where the call is over."""
        if self.state.over:
            return False
        try:
            await self.rpc.write(message)
        except (errors.ApiError, asyncio.InvalidStateError, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self.until(lambda: self.state.over, worker_driver.ABORT_SECONDS)
            return False
        return True

    async def half_close(self) -> None:
        """No further message follows."""
        with contextlib.suppress(errors.ApiError, asyncio.InvalidStateError):
            await self.rpc.done_writing()

    async def read(self, hello: v2.PostRunnerItemOutputsRequest) -> None:
        """Send the first message and take what comes until the call ends; for a task."""
        state, error = self.state, None
        try:
            await self.rpc.write(hello)
            async for response in self.rpc:
                state.received(response)
                self.change()
                if state.is_full:
                    await self.until(lambda: not state.is_full)
        except errors.ApiError as failure:
            error = failure
        except asyncio.CancelledError:
            error = errors.CancelledError("the call was cancelled")
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
        except Exception as failure:  # noqa: BLE001 - the loop must not wait for ever
            error = errors.InternalError(str(failure))
        finally:
            state.ended(error)
            self.change()
            self.rpc.cancel()

    async def next_request(self) -> v2.PostModelOutputsRequest | None:
        """The next request of a stream; None at its end."""
        state = self.state
        await self.until(lambda: state.inputs or state.inputs_ended or state.over or state.abort)
        if state.abort is not None:
            raise ItemAbortedError(state.abort)
        if state.inputs:
            request = state.take_input()
            self.change()
            return request
        if state.inputs_ended:
            return None
        raise ItemAbortedError("the connection was lost")

    async def inputs(self) -> AsyncIterator[v2.Data]:
        """The data of all requests of a stream."""
        while (request := await self.next_request()) is not None:
            for one in request.inputs:
                yield one.data

    async def unless_aborted(self, work: Awaitable[T]) -> T:
        """The result of ``work``, which is cancelled when the item is aborted."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self.until(lambda: self.state.abort or task.done()))
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=worker_driver.ABORT_SECONDS)
                raise ItemAbortedError(self.state.abort or "the item was aborted")
            return task.result()
        finally:
            watch.cancel()
            if not task.done():
                task.cancel()


class _MethodTask:
    """The results of a method, which one task makes from the first to the last.

    Args:
        results: What the method yields.
        opened: The call of the item that it is for.
        blocks: Whether it runs in a thread, where it cannot be interrupted.
    """

    def __init__(
        self, results: AsyncGenerator[v2.Data, None], opened: _RunningCall, *, blocks: bool
    ) -> None:
        self._opened = opened
        self._blocks = blocks
        self._asked: asyncio.Queue[StepFuture | None] = asyncio.Queue()
        self._step: asyncio.Future[Any] | None = None
        self.task: asyncio.Task[None] = asyncio.ensure_future(serve_steps(results, self._asked))

    async def following(self) -> v2.Data | None:
        """The next result; None at the end."""
        self._step = step = asyncio.get_running_loop().create_future()
        step.add_done_callback(lambda _: self._opened.change())
        self._asked.put_nowait(step)
        await self._opened.until(lambda: step.done() or self._opened.state.abort)
        if step.cancelled() or not step.done():
            raise ItemAbortedError(self._opened.state.abort or STOPPING)
        return None if step.result() is EXHAUSTED else step.result()

    async def close(self) -> None:
        """End the method.

        One that blocks keeps its place among those that run at once, for as long as it takes.
        """
        if self._step is not None and not self._step.done():
            self._step.cancel()
            self.task.cancel()
        self._asked.put_nowait(None)
        await asyncio.wait(
            (self.task,), timeout=None if self._blocks else worker_driver.ABORT_SECONDS
        )
        if not self.task.done():
            logger.warning("a method of the model does not end; its task is left behind")
        elif not self.task.cancelled() and (error := self.task.exception()) is not None:
            logger.error("a method of the model failed at its end", exc_info=error)


class _AsyncBatches:
    """Runs batched methods in tasks."""

    def __init__(
        self, settings: WorkerSettings, threads: Executor, ran: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._threads = threads
        self._ran = ran
        self._changed = asyncio.Condition()
        self._queues: dict[int, BatchQueue] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, method: ModelMethod, rows: list[dict[str, Any]]
    ) -> list[v2.Data | Exception]:
        """The result, or the exception, for each row."""
        loop = asyncio.get_running_loop()
        mine = [BatchRow(arguments, loop.time()) for arguments in rows]
        queue = self._queues.setdefault(
            id(method), BatchQueue(self._settings.max_batch, self._settings.max_delay)
        )
        for row in mine:
            queue.add(row)
        try:
            async with self._changed:
                self._changed.notify_all()
                while not all(row.result is not None for row in mine):
                    batch = queue.take(loop.time())
                    if batch:
                        # Not of the one who is here: that one may be cancelled.
                        task = asyncio.ensure_future(self._finish(method, queue, batch))
                        self.tasks.add(task)
                        task.add_done_callback(self.tasks.discard)
                        continue
                    due = queue.due_at()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            await self._changed.wait()
        finally:
            queue.withdraw(mine)
        return [row.result for row in mine if row.result is not None]

    async def _finish(self, method: ModelMethod, queue: BatchQueue, batch: list[BatchRow]) -> None:
        try:
            await self._execute(method, batch)
        finally:
            queue.ended()
            async with self._changed:
                self._changed.notify_all()

    async def _execute(self, method: ModelMethod, batch: list[BatchRow]) -> None:
        self._ran()
        try:
            results: list[Any] = await method.acall_batch(
                [row.arguments for row in batch], self._threads
            )
        except Exception as error:  # noqa: BLE001 - a model may be anybody's function
            if len(batch) == 1:
                results = [error]
            else:  # one row may be the cause: the others are not to fail with it
                for row in batch:
                    await self._execute(method, [row])
                return
        for row, result in zip(batch, results, strict=True):
            row.result = result


def _in_thread(function: Callable[[], Any]) -> Any:
    with CONTAINED:
        return function()


class AsyncDriver(WorkerDriver):
    """Runs the loops of a worker in tasks."""

    _client: AsyncClient

    def _prepare(self) -> None:
        self._stop = asyncio.Event()
        self._hurried = asyncio.Event()
        self._opened: set[_RunningCall] = set()
        # For functions that block.
        self._threads = DaemonThreads("clarigrpc-runner")
        ran = partial(self._loop.count, batches=1)
        self._batches = _AsyncBatches(self._settings, self._threads, ran)
        self._tasks: list[asyncio.Task[None]] = []
        self._method_tasks: set[asyncio.Task[None]] = set()
        self._others: list[asyncio.Task[None]] = []
        self._do: dict[type[Any], Callable[[Any], Awaitable[Any]]] = {
            steps.OpenCall: self._open,
            steps.AwaitChange: lambda step: step.call.opened.wait(step.seconds),
            steps.WriteMessage: lambda step: step.call.opened.write(step.message),
            steps.HalfClose: lambda step: step.call.opened.half_close(),
            steps.WakeCall: self._wake,
            steps.CancelCall: self._cancel,
            steps.Pause: self._pause,
            steps.StartMethod: self._start_method,
            steps.NextResult: self._next_result,
            steps.EndMethods: self._end_methods,
            steps.NextRequest: lambda step: step.call.opened.next_request(),
            steps.RunBatch: self._run_batch,
            steps.RunFunction: self._run_function,
            Call: self._call,
        }

    @property
    def is_alive(self) -> bool:
        """Whether the tasks that take items run."""
        ended = not self._loop.stopping and any(one.done() for one in self._tasks)
        return self._loop.failure is None and not ended

    async def start(self) -> None:
        """Register the runner, and begin to take items."""
        await self._run(self._loop.register())
        create = asyncio.get_running_loop().create_task
        self._others = [
            create(self._run_loop(self._loop.control())),
            create(self._run_loop(self._loop.watch())),
        ]
        self._tasks = [
            create(self._run_loop(self._loop.serve(number)))
            for number in range(self._settings.loops)
        ]

    async def wait(self) -> None:
        """Wait until the worker is to stop."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(worker_driver.SIGNAL_SECONDS):
                    await self._stop.wait()

    def request_stop(self) -> None:
        """Take no further item."""
        self._loop.stopping = True
        self._stop.set()
        for opened in self._opened:
            opened.change()

    def end_grace(self) -> None:
        """Have ``stop`` wait no longer for what runs."""
        self._hurried.set()

    async def stop(self, grace: float) -> None:
        """Finish what runs, at most for ``grace`` seconds, and end the rest."""
        self.request_stop()
        try:
            await self._join_unless_hurried(grace)
            for call in self._loop.items:
                call.abort = call.abort or STOPPING
            for opened in self._opened:
                opened.change()
            await self._join(worker_driver.ABORT_SECONDS)
            await asyncio.gather(*map(self._give_back, self._loop.items))
        finally:  # also where this is cancelled
            await self._cancel_tasks()

    async def _give_back(self, call: ItemCall) -> None:
        try:
            await self._client.v2.PostRunnerItemOutputs(
                self._loop.give_back(call), timeout=worker_driver.ABORT_SECONDS
            )
        except errors.ClarigrpcError as error:
            logger.warning("an item is lost at the end of the runner: %s", error)

    async def _cancel_tasks(self) -> None:
        left = [*self._tasks, *self._others]
        left += [one.reading for one in self._opened if one.reading is not None]
        left += [*self._method_tasks, *self._batches.tasks]
        for task in left:
            task.cancel()
        self._threads.shutdown()
        if left:
            await asyncio.wait(left, timeout=worker_driver.ABORT_SECONDS)

    async def _join_unless_hurried(self, seconds: float) -> None:
        joining = asyncio.ensure_future(self._join(seconds))
        hurried = asyncio.ensure_future(self._hurried.wait())
        try:
            await asyncio.wait((joining, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:
            joining.cancel()
            hurried.cancel()

    async def _join(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def _run_loop(self, plan: steps.WorkerPlan[None]) -> None:
        try:
            await self._run(plan)
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the worker
            self._loop.failure = self._loop.failure or error
            self.request_stop()

    async def _run(self, plan: steps.WorkerPlan[T]) -> T:
        try:
            step = next(plan)
            while True:
                try:
                    value = await self._do[type(step)](step)
                except Exception as error:  # noqa: BLE001 - the plan decides about it
                    step = plan.throw(error)
                else:
                    step = plan.send(value)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            plan.close()

    async def _open(self, step: steps.OpenCall) -> None:
        step.call.opened = opened = _RunningCall(step.call)
        opened.rpc = self._client.v2.ProcessRunnerItems(timeout=self._settings.call_seconds)
        self._opened.add(opened)
        opened.reading = asyncio.get_running_loop().create_task(opened.read(step.hello))
        opened.reading.add_done_callback(lambda _: self._opened.discard(opened))

    async def _wake(self, step: steps.WakeCall) -> None:
        step.call.opened.change()

    async def _cancel(self, step: steps.CancelCall) -> None:
        step.call.opened.rpc.cancel()

    async def _pause(self, step: steps.Pause) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(step.seconds):
                await self._stop.wait()

    async def _start_method(self, step: steps.StartMethod) -> Any:
        opened: _RunningCall = step.call.opened
        results = step.run.aresults(
            self._threads, opened.inputs() if step.streamed else None, self._reader
        )
        method = _MethodTask(
            results, opened, blocks=step.run.method is not None and step.run.method.blocks
        )
        opened.methods.append(method)
        self._method_tasks.add(method.task)
        method.task.add_done_callback(self._method_tasks.discard)
        return method

    async def _next_result(self, step: steps.NextResult) -> Any:
        method: _MethodTask = step.results
        return await method.following()

    async def _end_methods(self, step: steps.EndMethods) -> None:
        opened: _RunningCall = step.call.opened
        step.call.drain()
        opened.change()
        await asyncio.gather(*(method.close() for method in opened.methods))
        opened.methods.clear()

    async def _run_batch(self, step: steps.RunBatch) -> list[v2.Data | Exception]:
        opened: _RunningCall = step.call.opened
        return await opened.unless_aborted(self._batches.run(step.method, step.rows))

    async def _run_function(self, step: steps.RunFunction) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _in_thread, step.function
        )

    async def _call(self, step: Call) -> Any:
        method = getattr(self._client.v2, step.method)
        return await method(step.request, timeout=step.timeout, **(step.options or {}))
