"""Serve a model from your own machine: a runner that fetches calls from the service.

    from clarigrpc import Client, runner

    class Echo:
        def predict(self, text: str) -> str:
            return text

    with Client() as client:
        runner.serve(client, Echo, runner_id="my-runner", model_id="my-model")

The methods of the model are those that ``LocalServer(models=)`` takes: functions of named,
annotated arguments, plain or asynchronous, that return a value or yield many. The page "Runners" of
the documentation says what is guaranteed when something breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import signal
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack, overload

from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._config.settings import runner_of_environment
from clarigrpc._named_methods.python_methods import PythonMethods, mark_batched
from clarigrpc._worker.health_server import HealthServer
from clarigrpc._worker.item_answers import ItemAnswer, UrlReader
from clarigrpc._worker.item_loop import ItemLoop, Registration, WorkerStats
from clarigrpc._worker.item_messages import RunnerIdentity
from clarigrpc._worker.worker_settings import WorkerSettings
from clarigrpc.errors import ConfigurationError

if TYPE_CHECKING:
    from clarigrpc import v2
    from clarigrpc._worker.async_worker import AsyncDriver
    from clarigrpc._worker.sync_worker import SyncDriver
    from clarigrpc.client import AsyncClient, Client

__all__ = [
    "AsyncRunnerWorker",
    "RunnerOptions",
    "RunnerWorker",
    "WorkerStats",
    "batched",
    "serve",
]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class RunnerOptions(TypedDict, total=False):
    """Options of a runner, all by name. Times in seconds.

    Attributes:
        runner_id: Id of the runner. Environment: CLARIFAI_RUNNER_ID.
        nodepool_id: Nodepool of the runner. Environment: CLARIFAI_NODEPOOL_ID. Default: none.
        compute_cluster_id: Compute cluster of the nodepool. Environment:
            CLARIFAI_COMPUTE_CLUSTER_ID. Default: none.
        user_id: Owner of the runner. Default: the client's user.
        model_id: Model that the runner is created for if it does not exist. Default: it has to
            exist.
        app_id: App of the model. Default: the client's app.
        model_user_id: Owner of the model. Default: the owner of the runner.
        version_id: Version of the model. Default: any.
        replica_id: Tells processes of one runner apart. Environment: CLARIFAI_RUNNER_REPLICA_ID.
            Default: random.
        concurrency: Number of items that run at once. Default: 4, or twice ``max_batch`` where that
            is more.
        max_batch: Most callers that one call of a ``batched`` method is for. Default: 1.
        max_delay: Most time that a caller of a ``batched`` method waits for others. Default: 0.005.
        item_timeout: Most time that an item may take. Default: 3600.
        grace: Time that items get to finish when the runner is to end. Default: 30.
        fetch: Returns the content behind the URL of a text or image. Default: URLs are refused.
        health_port: Port for ``GET /healthz`` and ``GET /readyz``; 0 takes a free one. Default:
            none.
        health_host: Address to listen on for them. Default: 127.0.0.1.
    """

    runner_id: str
    nodepool_id: str
    compute_cluster_id: str
    user_id: str
    model_id: str
    app_id: str
    model_user_id: str
    version_id: str
    replica_id: str
    concurrency: int | None
    max_batch: int
    max_delay: float
    item_timeout: float
    grace: float
    fetch: Callable[[str], bytes] | None
    health_port: int | None
    health_host: str


def batched(function: FunctionT) -> FunctionT:
    """Mark a method that is called once for many callers.

    Each argument is annotated as a list, with an element for each caller, and so is the result.
    Callers see the types of the elements::

        class Classifier:
            @runner.batched
            def predict(self, text: list[str]) -> list[float]: ...

    One batch of a method runs at a time. If it fails, each caller is run alone, so that only those
    fail whose arguments are the cause.

    Args:
        function: The method. It can be asynchronous, and neither take nor return streams.

    Returns:
        The method itself.
    """
    return mark_batched(function)


class _WorkerBase(ABC):
    """What both kinds of workers have."""

    _driver: SyncDriver | AsyncDriver

    def __init__(self, client: Any, model: Any, options: RunnerOptions) -> None:
        given: dict[str, Any] = {**runner_of_environment(), **options}
        settings = WorkerSettings(**given)
        self._settings = settings
        self._client = client
        self._health: HealthServer | None = None
        defaults = client.settings
        user_id = settings.user_id or defaults.user_id
        if not user_id:
            raise ConfigurationError("a runner needs user_id=, of it or of the client")
        if defaults.transport != "grpc":
            raise ConfigurationError("a runner needs a client with transport='grpc'")
        self._methods = PythonMethods(model)
        if settings.max_batch > 1 and not self._methods.batched:
            raise ConfigurationError(
                "max_batch is above 1, but the model has no method marked with runner.batched"
            )
        identity = RunnerIdentity(
            user_id,
            settings.compute_cluster_id,
            settings.nodepool_id,
            settings.runner_id,
            settings.replica_id or uuid.uuid4().hex,
        )
        registration = Registration(
            settings.model_id,
            settings.app_id or defaults.app_id,
            settings.model_user_id or user_id,
            settings.version_id,
        )
        # A runner asks again however often it failed: of the policy, its waits count.
        policy = defaults.retry if isinstance(defaults.retry, RetryPolicy) else RetryPolicy()
        self._reader = UrlReader(settings.fetch)
        self._loop = ItemLoop(
            identity,
            registration,
            ItemAnswer(self._methods, self._reader),
            policy,
            time.monotonic,
            random.random,
            settings.item_timeout,
        )

    @abstractmethod
    def start(self) -> Any:
        """Register the runner and begin to take items.

        Raises:
            NotFoundError: The runner does not exist, and ``model_id`` was not given.
            ApiError: The service refuses the runner.
            OSError: The port for health is in use.
        """

    @abstractmethod
    def stop(self, grace: float | None = None) -> Any:
        """Finish the items that run, take no new ones, and end.

        Args:
            grace: Seconds to finish. Items that run longer are given back to the service. None uses
                the option.
        """

    @property
    def runner_id(self) -> str:
        """Id of the runner."""
        return self._settings.runner_id

    @property
    def signatures(self) -> list[v2.MethodSignature]:
        """The signatures of the model's methods, as callers get them."""
        return self._methods.signatures

    @property
    def is_alive(self) -> bool:
        """Whether the worker can do its work: what ``/healthz`` says."""
        return self._driver.is_alive

    @property
    def is_ready(self) -> bool:
        """Whether the service can be reached and items are taken: what ``/readyz`` says."""
        return self._loop.is_ready and self.is_alive

    @property
    def health_port(self) -> int | None:
        """The port for ``/healthz`` and ``/readyz``; None without one."""
        return None if self._health is None else self._health.port

    def stats(self) -> WorkerStats:
        """What the worker has done since it was started. Nothing is sent."""
        return self._loop.stats

    def request_stop(self) -> None:
        """Have the worker take no further item, and whoever waits for it go on."""
        self._driver.request_stop()

    def end_grace(self) -> None:
        """Have ``stop`` wait no longer for items that run: they are given back to the service."""
        self._driver.end_grace()

    def _begin(self) -> None:
        settings = self._settings
        if settings.health_port is not None:
            self._health = HealthServer(
                settings.health_host,
                settings.health_port,
                lambda: self.is_alive,
                lambda: self.is_ready,
            )

    def _end(self) -> None:
        if self._health is not None:
            self._health.close()
        self._methods.close()

    def _raise_failure(self) -> None:
        if self._loop.failure is not None:
            raise self._loop.failure


class RunnerWorker(_WorkerBase):
    """A worker over a ``Client``, in threads of its own. ``with`` starts and stops it.

    Args:
        client: The client. It stays open.
        model: A function; a class, of which one object is made; or an object.
        options: See ``RunnerOptions``.

    Raises:
        ConfigurationError: An option is out of range, or there is no user.
        TypeError: A method of the model has no signature that can be served.
    """

    _driver: SyncDriver

    def __init__(self, client: Client, model: Any, **options: Unpack[RunnerOptions]) -> None:
        from clarigrpc._worker.sync_worker import SyncDriver

        super().__init__(client, model, options)
        self._driver = SyncDriver(client, self._loop, self._settings, self._reader)

    def start(self) -> None:
        self._begin()
        try:
            self._driver.start()
        except BaseException:
            self._end()
            raise

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until somebody has the worker stop, or it failed.

        Args:
            seconds: Most time to wait. None sets no limit.

        Returns:
            False if the time was up.
        """
        return self._driver.wait(seconds)

    def stop(self, grace: float | None = None) -> None:
        try:
            self._driver.stop(self._settings.grace if grace is None else grace)
        finally:
            self._end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:
            self._raise_failure()


class AsyncRunnerWorker(_WorkerBase):
    """A worker over an ``AsyncClient``, in tasks of its event loop. ``async with`` runs it.

    Asynchronous methods of the model run on that loop; others run in threads. ``RunnerWorker``
    documents its arguments.
    """

    _driver: AsyncDriver

    def __init__(self, client: AsyncClient, model: Any, **options: Unpack[RunnerOptions]) -> None:
        from clarigrpc._worker.async_worker import AsyncDriver

        super().__init__(client, model, options)
        self._driver = AsyncDriver(client, self._loop, self._settings, self._reader)

    async def start(self) -> None:
        self._begin()
        try:
            await self._driver.start()
        except BaseException:
            self._end()
            raise

    async def wait(self) -> None:
        """Wait until somebody has the worker stop, or it failed."""
        await self._driver.wait()

    async def stop(self, grace: float | None = None) -> None:
        try:
            await self._driver.stop(self._settings.grace if grace is None else grace)
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is None:
            self._raise_failure()


@overload
def serve(client: Client, model: Any, **options: Unpack[RunnerOptions]) -> WorkerStats: ...
@overload
def serve(
    client: AsyncClient, model: Any, **options: Unpack[RunnerOptions]
) -> Coroutine[Any, Any, WorkerStats]: ...
def serve(client: Any, model: Any, **options: Unpack[RunnerOptions]) -> Any:
    """Serve a model until SIGTERM or SIGINT, or until the service refuses the runner.

    The signals are handled where this runs in the main thread; a second one ends the time that
    items have to finish. With an ``AsyncClient`` it returns a
    coroutine, and ends as well when that is cancelled.

    Args:
        client: A ``Client`` or an ``AsyncClient``. It stays open.
        model: A function; a class, of which one object is made; or an object.
        options: See ``RunnerOptions``.

    Returns:
        What the worker has done.

    Raises:
        ApiError: The service refuses the runner.
        ConfigurationError: An option is out of range, or there is no user.
        TypeError: A method of the model has no signature that can be served.
    """
    from clarigrpc.client import AsyncClient

    if isinstance(client, AsyncClient):
        return _aserve(AsyncRunnerWorker(client, model, **options))
    worker = RunnerWorker(client, model, **options)
    with stopped_by_signals(worker.request_stop, worker.end_grace), worker:
        worker.wait()
    return worker.stats()


async def _aserve(worker: AsyncRunnerWorker) -> WorkerStats:
    loop = asyncio.get_running_loop()
    on_loop = partial(partial, loop.call_soon_threadsafe)
    with stopped_by_signals(on_loop(worker.request_stop), on_loop(worker.end_grace)):
        async with worker:
            await worker.wait()
    return worker.stats()


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], Any], end_grace: Callable[[], Any]) -> Iterator[None]:
    """Have SIGTERM or SIGINT call ``stop``, and each further one ``end_grace``.

    They are called in a thread: a handler runs between any two steps of the main thread, which may
    hold just the lock that they need. Nothing happens where this is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Its put() is one of the few things that a handler may do.
    received: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def act() -> None:
        if received.get():
            stop()
            while received.get():
                end_grace()

    acting = threading.Thread(target=act, name="clarigrpc-runner-signals", daemon=True)
    acting.start()
    before = {
        number: signal.signal(number, lambda *_: received.put(True))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        received.put(False)
        acting.join()
