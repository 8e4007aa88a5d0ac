"""Progress of a file upload: a callback, or a bar on the terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from clarigrpc._progress_bar import open_bar, progress_callback
from clarigrpc._public_names import named_in


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class UploadProgress:
    """Progress of a file upload.

    Attributes:
        bytes_done: Bytes that the service has.
        bytes_total: Bytes of the content.
        percent: 0 to 100.
        rate: Bytes per second, averaged over about 5 seconds.
        seconds_left: Estimated remaining time in seconds; None if the rate is 0.
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


class RateMeter:
    """Measures the rate of an upload and reports the progress at most 20 times per second.

    Args:
        total: Bytes of the content.
        report: Called with the progress.
        clock: Returns the time in seconds.
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
        """Report ``done`` bytes; ``force`` reports regardless of the time of the last report."""
        now = self._clock()
        if self._last is None:
            self._last = now, done
        elif now - self._last[0] < _REPORT_SECONDS and not force:
            return
        else:
            seconds, step = now - self._last[0], done - self._last[1]
            if seconds > 0 and step >= 0:
                # Moving average: each step counts in proportion to its duration.
                weight = min(1.0, seconds / _AVERAGE_SECONDS) if self._rate else 1.0
                self._rate += weight * (step / seconds - self._rate)
            self._last = now, done
        left = (self._total - done) / self._rate if self._rate else None
        percent = 100 * done / self._total
        self._report(UploadProgress(done, self._total, percent, self._rate, left))


@contextlib.contextmanager
def reporting(
    progress: bool | ProgressCallback, total: int, name: str
) -> Iterator[RateMeter | None]:
    """The meter for a ``progress`` argument; None if nothing is to be reported.

    Args:
        progress: A callback; True shows a bar if stderr is a terminal.
        total: Bytes of the content.
        name: Text before the bar.

    Raises:
        ConfigurationError: ``progress=True`` and ``rich`` is not installed.
        TypeError: The callback is an asynchronous function.
    """
    callback = progress_callback(progress)
    if callback is not None:
        yield RateMeter(total, callback)
        return
    bar = open_bar(name, total, unit="bytes") if progress else None
    if bar is None:
        yield None
        return
    try:
        yield RateMeter(total, lambda state: bar.update(state.bytes_done))
    finally:
        bar.close()
