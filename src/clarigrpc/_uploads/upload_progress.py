"""How far an upload is: for a callback, and for a bar on a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from clarigrpc._progress_bar import open_bar
from clarigrpc._public_names import named_in


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload is.

    Attributes:
        bytes_done: Bytes that the service has.
        bytes_total: Bytes of the content.
        percent: 0 to 100.
        rate: Bytes a second, lately.
        seconds_left: At this rate; None while there is none.
    """

    bytes_done: int
    bytes_total: int
    percent: float
    rate: float
    seconds_left: float | None


ProgressCallback: TypeAlias = Callable[[UploadProgress], object]
"""Called with the progress of an upload of a file, at most 20 times a second."""

_AVERAGE_SECONDS = 5.0
_REPORT_SECONDS = 0.05


class Meter:
    """Bytes over time -> reports, at most 20 a second.

    Args:
        total: Bytes in all.
        report: Gets them.
        clock: Seconds.
    """

    def __init__(
        self,
        total: int,
        report: ProgressCallback,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._report = report
        self._clock = clock
        self._rate = 0.0
        self._last: tuple[float, int] | None = None

    def update(self, done: int, *, force: bool = False) -> None:
        """Report that ``done`` bytes are there; ``force``: now, whenever the last report was."""
        now = self._clock()
        if self._last is None:
            self._last = now, done
        elif now - self._last[0] < _REPORT_SECONDS and not force:
            return
        else:
            seconds, step = now - self._last[0], done - self._last[1]
            if seconds > 0 and step >= 0:
                # Of an average over some seconds, each step weighs as much as it lasted.
                weight = min(1.0, seconds / _AVERAGE_SECONDS) if self._rate else 1.0
                self._rate += weight * (step / seconds - self._rate)
            self._last = now, done
        left = (self._total - done) / self._rate if self._rate else None
        percent = 100 * done / self._total
        self._report(UploadProgress(done, self._total, percent, self._rate, left))


@contextlib.contextmanager
def reporting(progress: bool | ProgressCallback, total: int, name: str) -> Iterator[Meter | None]:
    """The meter for a ``progress=`` argument: a callback, True for a bar on a terminal.

    Raises:
        ConfigurationError: A bar was asked for, and rich is not installed.
    """
    if callable(progress):
        yield Meter(total, progress)
        return
    bar = open_bar(name, total, in_bytes=True) if progress else None
    if bar is None:
        yield None
        return
    try:
        yield Meter(total, lambda now: bar.update(now.bytes_done))
    finally:
        bar.close()
