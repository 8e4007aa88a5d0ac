"""Progress of an upload of inputs: a callback, or a bar on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from clarigrpc._bulk.input_report import UploadReport
from clarigrpc._progress_bar import open_bar, progress_callback

ReportCallback: TypeAlias = Callable[[UploadReport], object]
"""Called with the report of an upload of inputs as responses arrive."""


class InputProgress:
    """Reports progress.

    Args:
        progress: A callback that receives the report after each response; True shows a bar if
            stderr is a terminal; False reports nothing.
        total: Number of inputs; None if unknown.

    Raises:
        ConfigurationError: ``progress=True`` and ``rich`` is not installed.
        TypeError: The callback is an asynchronous function.
    """

    def __init__(self, progress: bool | ReportCallback, total: int | None) -> None:
        self._callback = progress_callback(progress)
        self._bar = open_bar("inputs", total) if progress is True else None

    def update(self, report: UploadReport) -> None:
        """Report the current state."""
        if self._callback is not None:
            self._callback(report)
        if self._bar is not None:
            self._bar.update(report.settled, len(report.failed_inputs))

    def close(self) -> None:
        """Stop the bar; its last state stays visible."""
        if self._bar is not None:
            self._bar.close()
