"""Pictures and videos that are made smaller before they are sent: several at a time, in threads.

That takes tens of milliseconds of CPU each, nearly all of it outside of Python's lock. What goes to
a thread is ``functools.partial`` of ``image`` or ``video`` with an option that encodes the content
anew: a function of ours on content of its own. Functions of users are called one after the other,
by who reads the source, since they may share what threads must not.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from clarigrpc import media
from clarigrpc._bulk.input_report import FailedInput

_MOST_THREADS = 8
_AHEAD_OF_EACH = 2
"""Values that are made, or have been, for each thread."""
_WAITED_FOR_SECONDS = 0.001
"""A source that takes longer for a value is not read further ahead."""

_ENCODING_OPTIONS = {
    media.image: {"max_side", "quality", "format"},
    media.video: {"clip", "fps"},
}


def is_slow(value: Any) -> bool:
    """Whether a value of a source is a picture or video that has to be encoded anew."""
    make = value.input if isinstance(value, FailedInput) else value
    if not isinstance(make, partial) or make.func not in _ENCODING_OPTIONS:
        return False
    source = make.args[0] if make.args else make.keywords.get("source")
    return isinstance(source, str | bytes | os.PathLike) and not (
        _ENCODING_OPTIONS[make.func].isdisjoint(make.keywords)
    )


class PreparedValue:
    """A value of a source that is being made in a thread. Called, it returns the input or raises.

    Attributes:
        value: What the source gave.
    """

    __slots__ = ("_made", "value")

    def __init__(self, value: Any, made: Future[Any]) -> None:
        self.value = value
        self._made = made

    def __call__(self) -> Any:
        return self._made.result()

    @property
    def done(self) -> bool:
        """Whether a call returns at once."""
        return self._made.done()

    def wait(self) -> None:
        """Block until it is done."""
        wait((self._made,))


class PreparationThreads:
    """The threads of one run.

    Attributes:
        window: How many values are being made, or have been and wait, at a time.
    """

    def __init__(self) -> None:
        threads = min(_MOST_THREADS, _cores())
        self.window = _AHEAD_OF_EACH * threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="clarigrpc-prepare")

    def begin(self, value: Any, done: Callable[[], object] | None = None) -> Any:
        """A value, which is made in a thread from now on if that is slow.

        Args:
            value: What the source gave.
            done: Called, by any thread, when it is made.
        """
        if not is_slow(value):
            return value
        make: Any = value.input if isinstance(value, FailedInput) else value
        made = self._threads.submit(make)
        if done is not None:
            made.add_done_callback(lambda _: done())
        return PreparedValue(value, made)

    def close(self) -> None:
        """Wait for what is being made, and make nothing more."""
        self._threads.shutdown(cancel_futures=True)


def made_ahead(source: Iterator[Any], waiting: deque[Any]) -> Generator[Any, None, None]:
    """The values of a source, in their order; slow ones are made in threads before their turn.

    Args:
        source: The values.
        waiting: Those that were read from it before. Holds at any time what was read and has not
            had its turn.
    """
    preparation = PreparationThreads()
    ended = False
    failure: Exception | None = None
    try:
        for place, value in enumerate(waiting):
            waiting[place] = preparation.begin(value)
        while True:
            late = False
            while not (ended or late) and len(waiting) < preparation.window:
                began = time.monotonic()
                try:
                    for value in source:  # Ctrl-C during next() could lose what it returns
                        waiting.append(value)
                        waiting[-1] = preparation.begin(value)
                        break
                    else:
                        ended = True
                except Exception as error:  # noqa: BLE001 - raised after the values before it
                    failure, ended = error, True
                late = time.monotonic() - began > _WAITED_FOR_SECONDS
            if not waiting:
                if failure is not None:
                    raise failure
                return
            if isinstance(waiting[0], PreparedValue):
                waiting[0].wait()
            value = waiting[0]
            del waiting[0]  # no call: Ctrl-C is raised after calls, and would lose the value
            yield value
    finally:
        preparation.close()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
