"""Progress bars on the terminal (rich)."""

from __future__ import annotations

from typing import Any

from clarigrpc._extras import NeedsExtra


class Bar:
    """A progress bar on stderr."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, done: int, failed: int = 0) -> None:
        """Show the progress; ``failed`` is the number of failures among ``done``."""
        text = f"{failed} failed" if failed else ""
        self._bar.update(self._bar.task_ids[0], completed=done, failed=text)

    def close(self) -> None:
        """Stop the bar; its last state stays visible."""
        self._bar.stop()


def open_bar(name: str, total: int | None, *, in_bytes: bool = False) -> Bar | None:
    """A progress bar; None if stderr is not a terminal.

    Args:
        name: Text before the bar.
        total: Value of the full bar; None if unknown.
        in_bytes: Whether the values are bytes, shown with a transfer rate, or items.

    Raises:
        ConfigurationError: ``rich`` is not installed.
    """
    with NeedsExtra("cli", "progress=True (a callback needs no package)"):
        from rich import progress
        from rich.console import Console
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    counts: tuple[progress.ProgressColumn, ...] = (progress.MofNCompleteColumn(),)
    if in_bytes:
        counts = (progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn())
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *counts,
        progress.TimeRemainingColumn(),
        progress.TextColumn("[red]{task.fields[failed]}"),
        console=console,
    )
    bar.add_task(name, total=total, failed="")
    bar.start()
    return Bar(bar)
