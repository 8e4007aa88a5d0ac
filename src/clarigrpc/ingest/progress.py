"""Telling how far an upload is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clarigrpc.errors import ConfigurationError
from clarigrpc.ingest.report import UploadReport

Callback = Callable[[UploadReport], None]


class Progress:
    """Tells a callback, or shows a bar on a terminal.

    Args:
        wanted: A callback that is given the report as answers come; True for a bar on the
            terminal of stderr (nothing is shown where that is none); False for nothing.
        total: Inputs of the source; None where it does not say.

    Raises:
        ConfigurationError: A bar is wanted and ``rich`` is not installed.
    """

    def __init__(self, wanted: bool | Callback, total: int | None) -> None:
        self._callback = wanted if callable(wanted) else None
        self._bar: Any = None
        if wanted is True:
            self._bar = _open_bar(total)

    def tell(self, report: UploadReport) -> None:
        """Show where the upload is now."""
        if self._callback is not None:
            self._callback(report)
        if self._bar is not None:
            failed = f"{len(report.failed_inputs)} failed" if report.failed_inputs else ""
            self._bar.update(self._bar.task_ids[0], completed=report.settled, failed=failed)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()


def _open_bar(total: int | None) -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError as error:
        raise ConfigurationError(
            "progress=True needs rich: pip install 'clarigrpc[cli]', or give a callback"
        ) from error
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    bar = Bar(
        TextColumn("inputs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        console=console,
    )
    bar.add_task("inputs", total=total, failed="")
    bar.start()
    return bar
