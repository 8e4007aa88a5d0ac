"""Ctrl-C at a moment when it may be raised: not while the state of a call is half changed.

A signal's handler runs between any two bytecodes of the main thread, and what it raises is raised
there. grpcio is not made for that: a lock stays locked, or an event of a call is taken and not
noted, and later calls hang. So calls into it are made while ``HeldInterrupt`` holds the interrupt
back. Other threads never run handlers and pay next to nothing.

Covered is SIGINT. Handlers of other signals should not raise while a call is running.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from importlib import import_module
from threading import get_ident, main_thread
from typing import Any, Self

_signal = import_module("_signal")  # "signal" spends 5 µs on turning handlers into enums and back
_handler: Callable[[int], Any] = _signal.getsignal
_set_handler: Callable[[int, Any], Any] = _signal.signal
_SIGINT = int(signal.SIGINT)

_SOON = 0.001


class HeldInterrupt:
    """Raises at the end of its ``with`` block what a handler of SIGINT raises meanwhile.

    Args:
        cancel: Ends the wait of the block; called once the handler has raised.
        deliver_later: Have the handler run 1 ms after the block instead: in ``__del__``, Python
            would print and forget what it raises.
    """

    __slots__ = ("_before", "_cancel", "_deliver_later", "_raised")

    def __init__(
        self, cancel: Callable[[], object] | None = None, *, deliver_later: bool = False
    ) -> None:
        self._cancel = cancel
        self._deliver_later = deliver_later
        self._before: Any = None
        self._raised: BaseException | None = None

    @staticmethod
    def needed() -> bool:
        """Whether an interrupt can be raised in this thread."""
        return get_ident() == main_thread().ident and callable(_handler(_SIGINT))

    def __enter__(self) -> Self:
        if get_ident() == main_thread().ident and callable(before := _handler(_SIGINT)):
            self._before = before
            try:
                _set_handler(_SIGINT, self)
            except BaseException:  # of another signal
                self._restore()
                raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is None:
            return
        self._restore()
        if self._raised is None:
            return
        if self._deliver_later:
            later = threading.Timer(_SOON, _interrupt_main_thread)
            later.daemon = True
            later.start()
        else:
            raise self._raised from None

    def _restore(self) -> None:
        try:
            if _handler(_SIGINT) is self:  # else the handler has set another one
                _set_handler(_SIGINT, self._before)
        except BaseException:  # of another signal, whose handler ran before this was done
            if _handler(_SIGINT) is self:
                _set_handler(_SIGINT, self._before)
            raise

    def __call__(self, number: int, frame: Any) -> None:
        """Handle the signal."""
        if self._deliver_later:
            self._raised = KeyboardInterrupt()
            return
        try:
            self._before(number, frame)
        except BaseException as raised:  # noqa: BLE001 - raised at the end of the block
            self._raised = raised
            if self._cancel is not None:
                self._cancel()

    def cancel_with(self, cancel: Callable[[], object]) -> None:
        """Set what ends the wait, where it is known only now."""
        self._cancel = cancel
        if self._raised is not None:
            cancel()


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # ends a sleep of the main thread; raise_signal does not
        signal.pthread_kill(main_thread().ident, _SIGINT)  # type: ignore[arg-type]
    else:
        signal.raise_signal(_SIGINT)


class Ended:
    """Waits for the end of a call, and can be interrupted.

    Args:
        subscribe: Has its argument called when the call ends, or at once when it has ended.
    """

    def __init__(self, subscribe: Callable[[Callable[[Any], None]], object]) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with HeldInterrupt():
            subscribe(self._events.put)

    def wait(self, timeout: float | None) -> bool:
        """Whether the call ended within ``timeout`` seconds; None waits for it."""
        try:
            self._events.get(timeout=None if timeout is None else max(0.0, timeout))
        except queue.Empty:
            return False
        return True
