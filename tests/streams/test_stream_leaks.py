"""Streams that are opened and dropped leave nothing behind: no thread, descriptor or memory."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import queue
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import AsyncClient, Client, text, v2
from tests.faults.processes import ServerProcess

pytestmark = pytest.mark.measures

STREAMS = 1000
WARM = 200
AT_ONCE = 20
MEMORY = 8 << 20
PROMPT = text("word " * 200)


@dataclass
class Footprint:
    """What a process has."""

    threads: int
    descriptors: int
    memory: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        anonymous = re.search(r"RssAnon:\s+(\d+)", status)
        assert anonymous is not None
        tasks = len(os.listdir("/proc/self/task"))
        return cls(tasks, len(os.listdir("/proc/self/fd")), int(anonymous[1]) << 10)


def check(before: Footprint) -> None:
    """Fail unless the process is where it was; threads may take a moment to end."""
    end = time.monotonic() + 10
    while True:
        after = Footprint.now()
        if after.threads <= before.threads and after.descriptors <= before.descriptors:
            break
        assert time.monotonic() < end, (before, after, threading.enumerate())
        time.sleep(0.05)
    assert after.memory - before.memory < MEMORY, (before, after)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield {"base": f"http://{server.address}", "pat": server.pat}


def endless() -> Iterator[v2.Input]:
    for number in itertools.count():
        yield text(str(number))


async def aendless() -> AsyncIterator[v2.Input]:
    for one in endless():
        yield one


def generate(model: Any) -> Any:
    return model.generate(PROMPT)


def stream(model: Any) -> Any:
    return model.stream(endless(), window=2)


def stream_async(model: Any) -> Any:
    return model.stream(aendless(), window=2)


def open_and_drop(model: Any, make: Callable[[Any], Any], count: int) -> None:
    """Some unread, some read a little, some to be cancelled, some just forgotten."""
    for _ in range(count // AT_ONCE):
        streams = [make(model) for _ in range(AT_ONCE)]
        for index, one in enumerate(streams):
            if index % 2:
                next(one)
            if index % 3 == 0:
                one.cancel()
        del streams, one


async def aopen_and_drop(model: Any, make: Callable[[Any], Any], count: int) -> None:
    for _ in range(count // AT_ONCE):
        streams = [make(model) for _ in range(AT_ONCE)]
        for index, one in enumerate(streams):
            if index % 2:
                await anext(one)
            if index % 3 == 0:
                one.cancel()
        del streams, one
        await asyncio.sleep(0)


@pytest.mark.parametrize("make", [generate, stream])
def test_blocking(settings: dict[str, Any], make: Callable[[Any], Any]) -> None:
    with Client(**settings) as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        open_and_drop(model, make, WARM)
        time.sleep(0.5)  # threads of the warm-up end
        before = Footprint.now()
        open_and_drop(model, make, STREAMS)
        check(before)


@pytest.mark.parametrize("make", [generate, stream, stream_async])
async def test_async(settings: dict[str, Any], make: Callable[[Any], Any]) -> None:
    async with AsyncClient(**settings) as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        await aopen_and_drop(model, make, WARM)
        await asyncio.sleep(0.5)
        before = Footprint.now()
        await aopen_and_drop(model, make, STREAMS)
        async with asyncio.timeout(30):
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.01)
        check(before)


def test_leaving_a_loop(settings: dict[str, Any]) -> None:
    """``break`` is enough: the call and the thread that waits for room end."""
    with Client(**settings) as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        model.predict(text("warm"))
        for _ in model.stream(endless()):
            break
        before = Footprint.now()
        for _ in range(20):
            for _ in model.stream(endless(), window=1):
                break
        check(before)


def test_a_source_that_waits_holds_its_thread_only_until_it_answers(
    settings: dict[str, Any],
) -> None:
    values: queue.Queue[v2.Input] = queue.Queue()
    with Client(**settings) as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        list(model.stream([text("warm")]))
        before = Footprint.now()
        values.put(text("one"))
        one = model.stream(iter(values.get, None))
        next(one)
        del one
        values.put(text("two"))
        check(before)
