"""Whatever a method raises or does: its call fails with a reason, and the worker goes on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from clarigrpc import AsyncClient, Client, errors, runner, text, v2
from clarigrpc._worker import worker_driver
from clarigrpc.local import LocalServer
from clarigrpc.types import Model
from tests.both import ClientKind
from tests.waiting import until
from tests.worker.conftest import MODEL, Work, workers

Code = v2.StatusCode
SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


class Trouble:
    def __init__(self) -> None:
        self.taken = threading.Event()
        self.go_on = threading.Event()
        self.running = self.most = 0
        self.seconds = 60.0

    def predict(self, text: str) -> str:
        return text

    def exits(self, text: str) -> str:
        sys.exit(3)

    async def exits_async(self, text: str) -> str:
        sys.exit(3)

    def exits_later(self, text: str) -> Iterator[str]:
        yield text
        raise KeyboardInterrupt

    async def exits_later_async(self, text: str) -> AsyncIterator[str]:
        yield text
        raise KeyboardInterrupt

    @runner.batched
    def exits_in_batch(self, text: list[str]) -> list[str]:
        sys.exit(3)

    async def cancels_itself(self, text: str) -> str:
        raise asyncio.CancelledError

    def stops(self, text: str) -> str:
        raise StopIteration

    def has_no_text(self, text: str) -> str:
        raise SilentError

    def has_odd_text(self, text: str) -> str:
        raise ValueError("\udcff" + 100_000 * "x")

    async def keeps_context(self, text: str) -> AsyncIterator[str]:
        token = SEEN.set(text)
        try:
            async with asyncio.timeout(60):
                yield SEEN.get()
                yield SEEN.get()
        finally:
            SEEN.reset(token)

    def first(self, words: Iterator[str]) -> str:
        self.taken.set()
        assert self.go_on.wait(30)
        return next(words)

    def waits(self, text: str) -> str:
        self.taken.set()
        assert self.go_on.wait(30)
        return text

    async def waits_async(self, text: str) -> str:
        self.taken.set()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.go_on.set()
        return text

    def counts(self, text: str) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        self.taken.set()
        time.sleep(0.4)
        self.running -= 1
        return text

    async def blocks(self, text: str) -> str:
        """As an asynchronous method should not."""
        self.taken.set()
        self.go_on.wait(30)
        return text


@pytest.fixture(scope="module", params=["sync", "async", "local"])
def model(
    request: pytest.FixtureRequest, server: LocalServer, caller: Client
) -> Iterator[tuple[Model, Callable[[], bool]]]:
    """A model of a worker of each kind, and the same one in the server itself."""
    if request.param == "local":
        with (
            LocalServer(models={"trouble": Trouble}) as local,
            local.client(timeout=20, stream_timeout=20) as client,
        ):
            yield client.model("trouble"), lambda: True
        return
    with workers(request.param, server) as start:
        worker: Any = start(Trouble(), max_batch=2, concurrency=2)
        worker = getattr(worker, "worker", worker)
        yield caller.model(MODEL), lambda: bool(worker.is_alive)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("exits", "the method raised SystemExit"),
        ("exits_async", "the method raised SystemExit"),
        ("exits_in_batch", "the method raised SystemExit"),
        ("cancels_itself", "the method raised CancelledError"),
        ("stops", "the method raised StopIteration"),
        ("has_no_text", "SilentError: .its text raises RuntimeError."),
        ("has_odd_text", r"ValueError: \\udcffx+\.\.\. \(1000"),
    ],
)
def test_a_failing_method_fails_its_call(
    model: tuple[Model, Callable[[], bool]], method: str, reason: str
) -> None:
    asked, is_alive = model
    with pytest.raises(errors.ApiError, match=reason) as raised:
        asked.call(method, text="a")
    assert raised.value.code == Code.MODEL_PREDICTION_FAILED
    assert is_alive()
    assert asked.call("predict", text="b") == "b"


@pytest.mark.parametrize("method", ["exits_later", "exits_later_async"])
def test_a_failing_generator_fails_its_call(
    model: tuple[Model, Callable[[], bool]], method: str
) -> None:
    asked, is_alive = model
    got = []
    with pytest.raises(errors.ApiError, match="the method raised KeyboardInterrupt"):
        for one in asked.call(method, text="a"):
            got.append(one)
    assert got == ["a"]
    assert is_alive()


def test_an_asynchronous_generator_runs_in_one_task(
    model: tuple[Model, Callable[[], bool]],
) -> None:
    asked, _ = model
    assert list(asked.call("keeps_context", text="a")) == ["a", "a"]
    assert list(asked.call("keeps_context", text="b")) == ["b", "b"]


@pytest.fixture
def start(client_kind: ClientKind, server: LocalServer) -> Iterator[Work]:
    with workers(client_kind, server) as starting:
        yield starting


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that do not end are soon left behind."""
    monkeypatch.setattr(worker_driver, "ABORT_SECONDS", 0.2)


def test_an_output_that_is_too_large(start: Work, server: LocalServer, caller: Client) -> None:
    runs = []

    def grown(text: str) -> str:
        runs.append(text)
        return text * (2 << 20)

    start(grown, max_message_bytes=1 << 20, concurrency=2)
    with pytest.raises(errors.ApiError, match="larger than the service takes") as raised:
        caller.model(MODEL).call("predict", text="a")
    assert raised.value.code == Code.RUNNER_PROCESSING_FAILED
    assert len(runs) <= 3


@pytest.mark.measures
def test_inputs_that_the_method_does_not_take(start: Work, caller: Client) -> None:
    """They do not hold up the end of the call, and none is read for ever."""
    trouble = Trouble()
    worker: Any = start(trouble, concurrency=1)
    worker = getattr(worker, "worker", worker)

    def words() -> Iterator[str]:
        for number in range(1000):
            if number == 200:  # more than wait to be taken
                assert trouble.taken.wait(30)
                threading.Timer(0.5, trouble.go_on.set).start()
            yield str(number)

    began = time.monotonic()
    assert list(caller.model(MODEL).call("first", words=words())) == ["0"]
    until(lambda: worker.stats().running == 0)
    assert time.monotonic() - began < 8, "the end of the call was not seen"
    stats = worker.stats()
    assert (stats.succeeded, stats.cancelled, stats.lost) in {(1, 0, 0), (2, 0, 0)}


@pytest.mark.measures
@pytest.mark.usefixtures("hasty")
def test_an_end_while_a_method_blocks_the_loop(server: LocalServer, caller: Client) -> None:
    trouble = Trouble()
    with workers("sync", server) as start:
        worker: Any = start(trouble, concurrency=1)
        asking = _asking(caller, "blocks")
        assert trouble.taken.wait(30)
        assert worker.is_alive
        began = time.monotonic()
        worker.stop(grace=0.1)
        took = time.monotonic() - began
        trouble.go_on.set()
        assert took < 20
        start(trouble)
        assert asking.result(60) == "a"


@pytest.mark.usefixtures("hasty")
def test_an_item_that_is_given_back_is_counted_once(start: Work, caller: Client) -> None:
    trouble = Trouble()
    started: Any = start(trouble, concurrency=1)
    worker = getattr(started, "worker", started)
    asking = _asking(caller, "waits")
    assert trouble.taken.wait(30)
    started.stop(grace=0.1)
    before = worker.stats()
    assert before.lost == 1
    trouble.go_on.set()
    until(lambda: worker.stats().running == 0)
    assert worker.stats() == replace(before, running=0)
    start(trouble)
    assert asking.result(60) == "a"


def _asking(caller: Client, method: str) -> Future[str]:
    """The result of a call that has begun."""
    asking: Future[str] = Future()

    def ask() -> None:
        try:
            asking.set_result(caller.model(MODEL).call(method, text="a"))
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the result
            asking.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return asking


def test_health_while_items_are_finished(start: Work, caller: Client) -> None:
    trouble = Trouble()
    started: Any = start(trouble, grace=30.0)
    worker = getattr(started, "worker", started)
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(caller.model(MODEL).call, "waits", text="a")
        assert trouble.taken.wait(30)
        stopping = pool.submit(started.stop)
        until(lambda: not worker.is_ready)
        time.sleep(0.3)  # the loops without an item have ended
        assert worker.is_alive
        trouble.go_on.set()
        stopping.result(60)
        assert asking.result(60) == "a"


def test_a_cancelled_serve_leaves_nothing_behind(server: LocalServer, caller: Client) -> None:
    trouble = Trouble()

    async def serve() -> None:
        others = asyncio.all_tasks()
        settings: dict[str, Any] = {
            "base": server.base,
            "pat": server.pat,
            "user_id": server.user_id,
        }
        async with AsyncClient(**settings, app_id=server.app_id) as client:
            serving = asyncio.ensure_future(
                runner.serve(client, trouble, runner_id="r", model_id=MODEL, grace=60.0)
            )
            await asyncio.to_thread(trouble.taken.wait, 30)
            serving.cancel()
            await asyncio.sleep(0.1)
            assert not serving.done(), "items are not given time to finish"
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert trouble.go_on.is_set(), "the method was not cancelled"
        left = [one for one in asyncio.all_tasks() - others if "grpc" not in repr(one)]
        assert left == []

    asking = _asking(caller, "waits_async")
    asyncio.run(serve())
    trouble.seconds = 0.0
    with workers("sync", server) as start:
        start(trouble)
        assert asking.result(60) == "a"


def test_an_item_that_takes_too_long(start: Work, caller: Client) -> None:
    trouble = Trouble()
    started: Any = start(trouble, item_timeout=0.5)
    with pytest.raises(errors.ApiError, match=r"longer than the 0[.]5 seconds") as raised:
        caller.model(MODEL).call("waits_async", text="a")
    assert raised.value.code == Code.RUNNER_PROCESSING_FAILED
    assert trouble.go_on.wait(30), "the method was not cancelled"
    worker = getattr(started, "worker", started)
    until(lambda: worker.stats().failed == 1)


def test_a_function_that_nobody_waits_for_keeps_its_place(start: Work, caller: Client) -> None:
    trouble = Trouble()
    start(trouble, concurrency=1)
    for _ in range(3):
        trouble.taken.clear()
        with contextlib.suppress(errors.ApiError):
            caller.with_options(timeout=0.2).model(MODEL).call("counts", text="a")
    assert caller.model(MODEL).call("counts", text="a") == "a"
    assert trouble.most == 1


def test_fetching_holds_up_no_other_item(start: Work, caller: Client) -> None:
    fetching, go_on = threading.Event(), threading.Event()

    def fetch(url: str) -> bytes:
        fetching.set()
        assert go_on.wait(30)
        return b"fetched"

    def upper(text: str) -> str:
        return text.upper()

    start(upper, fetch=fetch)
    given = text("x")
    given.data.text.url = "https://example.com/x"
    given.data.text.ClearField("raw")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(caller.model(MODEL).predict, given)
        assert fetching.wait(30)
        assert caller.model(MODEL).call("predict", text="a") == "A"
        go_on.set()
        assert slow.result(60).data.parts[0].data.string_value == "FETCHED"
