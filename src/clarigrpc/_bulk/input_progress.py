"""Telling how far an upload is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from clarigrpc._bulk.input_report import UploadReport
from clarigrpc._progress_bar import open_bar

ReportCallback: TypeAlias = Callable[[UploadReport], object]
"""Called with the report of an upload of inputs as responses arrive."""


class Progress:
    """Tells a callback, or shows a bar on a terminal.

    Args:
        wanted: A callback that is given the report as answers come; True for a bar on the
            terminal of stderr (nothing is shown where that is none); False for nothing.
        total: Inputs of the source; None where it does not say.

    Raises:
        ConfigurationError: A bar is wanted and ``rich`` is not installed.
    """

    def __init__(self, wanted: bool | ReportCallback, total: int | None) -> None:
        self._callback = wanted if callable(wanted) else None
        self._bar = open_bar("inputs", total) if wanted is True else None

    def tell(self, report: UploadReport) -> None:
        """Show where the upload is now."""
        if self._callback is not None:
            self._callback(report)
        if self._bar is not None:
            self._bar.update(report.settled, len(report.failed_inputs))

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
