"""What a user's method raises, as a failure of its call and of nothing else."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

_MOST_OF_TEXT = 4096


class MethodExitError(Exception):
    """A method raised what would end the thread or the event loop that it runs on."""


class _Contained:
    """Raises MethodExitError for what is meant for a thread, a task or an iterator, not a caller.

    That is SystemExit; KeyboardInterrupt, but in the main thread, where it may come from a signal;
    StopIteration, which neither a generator nor a future can pass on; and CancelledError where
    nobody cancelled the task. A block must contain no ``yield``.
    """

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or (
            isinstance(error, Exception)
            and not isinstance(error, (StopIteration, StopAsyncIteration))
        ):
            return
        task = _current_task()
        if task is not None and (
            isinstance(error, GeneratorExit)  # of a coroutine that is dropped
            or (isinstance(error, asyncio.CancelledError) and task.cancelling())
        ):
            return
        main = threading.current_thread() is threading.main_thread()
        if main and isinstance(error, KeyboardInterrupt):
            return
        raise MethodExitError(f"the method raised {error_text(error)}") from error


CONTAINED = _Contained()
"""The one object of its class, which has no state."""


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def error_text(error: BaseException) -> str:
    """Type and text of an exception, as a message can carry them.

    Characters that UTF-8 has no bytes for are escaped; long texts are cut.
    """
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - __str__ may be anybody's function
        text = f"(its text raises {type(failure).__name__})"
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(text) > _MOST_OF_TEXT:
        text = f"{text[:_MOST_OF_TEXT]}... ({len(text)} characters)"
    return text.encode(errors="backslashreplace").decode()
