"""Progress bars on the terminal (rich)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

from clarigrpc._extras import NeedsExtra

StateT = TypeVar("StateT")


class Bar:
    """A progress bar on stderr."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(
        self, done: int, failed: int = 0, *, total: int | None = None, said: str = ""
    ) -> None:
        """Show the progress.

        Args:
            done: Value of the bar.
            failed: Number of failures among ``done``.
            total: Value of the full bar. None keeps the last one.
            said: Text after the bar.
        """
        text = f"{failed} failed" if failed else ""
        self._bar.update(self._bar.task_ids[0], completed=done, failed=text, total=total, said=said)

    def close(self) -> None:
        """Stop the bar; its last state stays visible."""
        self._bar.stop()


BarUnit: TypeAlias = Literal["items", "bytes", "percent"]


def open_bar(name: str, total: int | None, *, unit: BarUnit = "items") -> Bar | None:
    """A progress bar; None if stderr is not a terminal.

    Args:
        name: Text before the bar.
        total: Value of the full bar; None if unknown.
        unit: What the values are. Bytes are shown with a transfer rate.

    Raises:
        ConfigurationError: ``rich`` is not installed.
    """
    with NeedsExtra("cli", "progress=True (a callback needs no package)"):
        from rich import progress
        from rich.console import Console
        from rich.table import Column
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    counts: tuple[progress.ProgressColumn, ...]
    time: progress.ProgressColumn = progress.TimeRemainingColumn()
    if unit == "bytes":
        counts = (progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn())
    elif unit == "percent":
        counts = (progress.TaskProgressColumn(),)
        whole = Column(min_width=len("0:00:00"))
        time = progress.TimeElapsedColumn(whole)  # percentages come in leaps
    else:
        counts = (progress.MofNCompleteColumn(),)
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *counts,
        time,
        progress.TextColumn("[red]{task.fields[failed]}"),
        progress.TextColumn("{task.fields[said]}", markup=False),
        console=console,
    )
    bar.add_task(name, total=total, failed="", said="")
    bar.start()
    return Bar(bar)


def progress_callback(
    progress: bool | Callable[[StateT], object],
) -> Callable[[StateT], object] | None:
    """The function in an argument ``progress``; None where it is True or False.

    Raises:
        TypeError: It is an asynchronous function, which nothing would await, or neither a function
            nor True or False.
    """
    if not callable(progress):
        if progress not in (True, False, None):
            raise TypeError(
                f"progress has to be True, False or a function, not {type(progress).__name__}"
            )
        return None
    if inspect.iscoroutinefunction(progress):
        raise TypeError("progress= takes a plain function, not an asynchronous one")
    return progress


def bar_name(progress: bool, name: str) -> str:
    """The name of the bar of predictions, whose progress no function is told; empty for no bar.

    Raises:
        TypeError: It is neither True nor False.
    """
    if progress not in (True, False, None):
        raise TypeError(f"progress has to be True or False here, not {type(progress).__name__}")
    return name if progress else ""
