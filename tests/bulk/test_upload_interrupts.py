"""Ctrl-C at every line of an upload of inputs: each input that was read has its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import linecache
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, TypeVar

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
                handed_on = place.startswith("preparation.py") and "yield value" in source
                if handed_on or "values.append" in source or "waiting.append" in source:
                    # Python raises nothing between taking a value and what keeps it.
                    self._left = 1
                    return self
                self.place = place
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self


class _InterruptAfter:
    """Sends SIGINT when a function in C has returned to the bulk engine: Python asks there.

    Args:
        place: File, line and name of the function. Empty sends none.
        time: After which of its calls.
    """

    def __init__(self, place: str, time: int) -> None:
        self._awaited = place
        self._left = time
        self.place = ""
        self.places: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        name = frame.f_code.co_filename
        if event != "c_return" or not name.endswith(_FILES) or "_bulk" not in name:
            return
        place = f"{name.rpartition('/')[2]}:{frame.f_lineno} {arg.__name__}"
        self.places.append(place)
        self._left -= place == self._awaited
        if self._left == 0:
            self.place = place
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)


def _text(name: str) -> v2.Input:
    # Both kinds: with an id of its own, and with one that is derived from the content.
    return text(f"text {name}", id=name if name[-1] in "13579" else "")


def _photo(name: str) -> partial[v2.Input]:
    """Made in a thread."""
    return partial(image, encoded(PIL.Image.new("RGB", (9, 9))), max_side=8, id=name)


StrikeT = TypeVar("StrikeT", _InterruptAt, _InterruptAfter)


def _interrupted(
    client: Client, make: Callable[[str], Any], name: str, interrupt: StrikeT
) -> StrikeT:
    """Uploads with an interrupt."""
    read: list[str] = []

    def source() -> Iterator[Any]:
        for number in range(_INPUTS):
            value = make(f"{name}-{number}")
            read.append(name)
            yield value

    report = UploadReport()
    at_lines = isinstance(interrupt, _InterruptAt)
    watch: Callable[[Any], object] = sys.settrace if at_lines else sys.setprofile
    before = sys.gettrace() if at_lines else sys.getprofile()
    watch(interrupt)
    try:
        client.inputs.upload(source(), report=report, batch_size=3, in_flight=2)
    except KeyboardInterrupt:
        assert interrupt.place
    finally:
        watch(before)
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
    every = run(f"{make.__name__}-run", _InterruptAt(-1)).places
    lines = {
        place: line for line, place in enumerate(every, 1) if place.startswith(files)
    }  # the last time that one is run
    lines |= {f"{place} first": every.index(place) + 1 for place in lines if "drivers" in place}
    places = {
        run(f"{make.__name__}-{line}", _InterruptAt(line)).place for line in {*lines.values()}
    }
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
        with contextlib.suppress(asyncio.CancelledError):  # it may have ended before
            await task
        assert report.taken == report.settled == len(read)
        again = await client.inputs.upload(report.failed_inputs)
    assert again.succeeded
    assert again.added + report.added == len(read)


def test_a_photo_that_was_made_has_an_outcome_after_whichever_call(client: Client) -> None:
    run = partial(_interrupted, client, _photo)
    every = run("calls", _InterruptAfter("", -1)).places
    places = sorted({place for place in every if place.startswith("preparation.py")})
    struck = {run(f"call-{n}", _InterruptAfter(place, 1)).place for n, place in enumerate(places)}
    assert len(struck & {*places}) > 8
