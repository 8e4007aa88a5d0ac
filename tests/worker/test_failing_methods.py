"""Whatever a method raises or does: its call fails with a reason, and the worker goes on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from clarigrpc import Client, errors, runner, v2
from clarigrpc.local import LocalServer
from clarigrpc.types import Model
from tests.both import ClientKind
from tests.worker.conftest import MODEL, Work, workers
from tests.worker.test_runner_faults import eventually

Code = v2.StatusCode
SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


class Trouble:
    def __init__(self) -> None:
        self.taken = threading.Event()
        self.go_on = threading.Event()

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
        ("has_no_text", "SilentError .its text raises RuntimeError."),
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
    eventually(lambda: worker.stats().running == 0)
    assert time.monotonic() - began < 8, "the end of the call was not seen"
    stats = worker.stats()
    assert (stats.succeeded, stats.cancelled, stats.lost) in {(1, 0, 0), (2, 0, 0)}


def test_an_end_while_a_method_blocks_the_loop(server: LocalServer, caller: Client) -> None:
    trouble = Trouble()
    with workers("sync", server) as start:
        worker: Any = start(trouble, concurrency=1)
        asking = threading.Thread(target=_asked, args=(caller, "blocks"), daemon=True)
        asking.start()
        assert trouble.taken.wait(30)
        assert worker.is_alive
        began = time.monotonic()
        worker.stop(grace=0.1)
        took = time.monotonic() - began
        trouble.go_on.set()
        assert took < 20
        asking.join(60)


def _asked(caller: Client, method: str) -> None:
    with contextlib.suppress(errors.ApiError):
        caller.with_options(timeout=3.0).model(MODEL).call(method, text="a")
