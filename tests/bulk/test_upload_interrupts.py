"""Ctrl-C at every line of an upload of inputs: each input that was read has its outcome."""

from __future__ import annotations

import asyncio
import linecache
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import PIL.Image
import pytest

from clarigrpc import Client, image, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.types import UploadReport
from tests.local.pictures import encoded

_FILES = ("drivers.py", "engine.py", "input_engine.py", "preparation.py")
_INPUTS = 9


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[Client]:
    with server.client() as client:
        client.ping()
        yield client


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal; a shell starts what runs in the background without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _InterruptAt:
    """Sends SIGINT before a line of the bulk engine is run, counted from the start."""

    def __init__(self, line: int) -> None:
        self._left = line
        self.place = ""
        self.places: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(_FILES) or "_bulk" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self._left -= 1
            place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
            self.places.append(place)
            if self._left == 0:
                source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
                if "values.append" in source or "waiting.append" in source:
                    # Python raises nothing between taking a value and the call that keeps it.
                    self._left = 1
                    return self
                self.place = place
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self


def _text(name: str) -> v2.Input:
    # Both kinds: with an id of its own, and with one that is derived from the content.
    return text(f"text {name}", id=name if name[-1] in "13579" else "")


def _photo(name: str) -> partial[v2.Input]:
    """Made in a thread."""
    return partial(image, encoded(PIL.Image.new("RGB", (9, 9))), max_side=8, id=name)


def _interrupted(client: Client, make: Callable[[str], Any], name: str, line: int) -> _InterruptAt:
    """Uploads with an interrupt at a line."""
    read: list[str] = []

    def source() -> Iterator[Any]:
        for number in range(_INPUTS):
            value = make(f"{name}-{number}")
            read.append(name)
            yield value

    report = UploadReport()
    interrupt = _InterruptAt(line)
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        client.inputs.upload(source(), report=report, batch_size=3, in_flight=2)
    except KeyboardInterrupt:
        assert interrupt.place
    finally:
        sys.settrace(before)
    assert report.taken == report.settled == len(read), interrupt.place
    failed = report.failed_inputs
    added = {one.id for one in client.inputs.list(ids=report.added_ids)} if report.added else set()
    assert len(added) == report.added, interrupt.place
    names = [one.id for one in failed if one.id]
    stored = {one.id for one in client.inputs.list(ids=names)} if names else set()
    assert stored <= {one.id for one in failed if one.maybe_added}, interrupt.place
    again = client.inputs.upload(failed)
    assert again.succeeded, (interrupt.place, again)
    assert again.added + report.added == len(read), interrupt.place
    return interrupt


@pytest.mark.parametrize(
    ("make", "files"), [(_text, _FILES), (_photo, ("preparation.py", "drivers.py"))]
)
def test_whatever_was_read_has_an_outcome(
    client: Client, make: Callable[[str], Any], files: tuple[str, ...]
) -> None:
    run = partial(_interrupted, client, make)
    every = run(f"{make.__name__}-run", -1).places
    lines = {
        place: line for line, place in enumerate(every, 1) if place.startswith(files)
    }  # the last time that one is run
    lines |= {f"{place} first": every.index(place) + 1 for place in lines if "drivers" in place}
    places = {run(f"{make.__name__}-{line}", line).place for line in {*lines.values()}}
    assert len(places) > 30


@pytest.mark.parametrize("make", [_text, _photo])
@pytest.mark.parametrize("steps", [*range(1, 20, 2), 40, 80])
async def test_a_cancelled_upload_keeps_what_it_read(
    server: LocalServer, make: Callable[[str], Any], steps: int
) -> None:
    read: list[Any] = []

    async def source() -> AsyncIterator[Any]:
        for number in range(_INPUTS):
            await asyncio.sleep(0)
            read.append(make(f"{make.__name__}-after-{steps}-{number}"))
            yield read[-1]

    report = UploadReport()
    async with server.async_client() as client:
        upload = client.inputs.upload(source(), report=report, batch_size=3, in_flight=2)
        task = asyncio.ensure_future(upload)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert report.taken == report.settled == len(read)
        again = await client.inputs.upload(report.failed_inputs)
    assert again.succeeded
    assert again.added + report.added == len(read)
