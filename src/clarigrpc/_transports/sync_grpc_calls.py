"""Sync calls of grpcio that Ctrl-C ends and does not break (see ``_interrupts``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from clarigrpc._interrupts import Ended, HeldInterrupt
from clarigrpc._transports.transport import FutureBase


class _Dropped:
    """What is left of a call for those that the garbage collector ends after it."""

    def cancel(self) -> bool:
        return False


_DROPPED = _Dropped()


class GrpcCall(grpc.Call, FutureBase, Iterator[Any]):
    """A call of grpcio, as a ``grpc.Call`` and as a ``grpc.Future`` or an iterator of responses.

    An interrupt ends the wait for a response of a stream by cancelling the call, and leaves alone
    a call whose ``result`` is waited for.
    """

    def __init__(self, real: Any) -> None:
        self.real: Any = real

    def __del__(self) -> None:
        with HeldInterrupt(deliver_later=True):
            self.real = _DROPPED  # grpcio cancels a call that nobody holds

    def __next__(self) -> Any:
        with HeldInterrupt(self.real.cancel):
            return next(self.real)

    def result(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        with HeldInterrupt():
            return self.real.result(0)

    def exception(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        with HeldInterrupt():
            return self.real.exception(0)

    def traceback(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        with HeldInterrupt():
            return self.real.traceback(0)

    def _wait(self, timeout: float | None) -> None:
        if not Ended(self.real.add_done_callback).wait(timeout):
            raise grpc.FutureTimeoutError

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        with HeldInterrupt():
            self.real.add_done_callback(lambda _: fn(self))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with HeldInterrupt():
            return bool(self.real.add_callback(callback))

    def cancel(self) -> bool:
        with HeldInterrupt():
            return bool(self.real.cancel())

    def cancelled(self) -> bool:
        with HeldInterrupt():
            return bool(self.real.cancelled())

    def running(self) -> bool:
        with HeldInterrupt():
            return bool(self.real.running())

    def done(self) -> bool:
        with HeldInterrupt():
            return bool(self.real.done())

    def is_active(self) -> bool:
        with HeldInterrupt():
            return bool(self.real.is_active())

    def time_remaining(self) -> Any:
        with HeldInterrupt():
            return self.real.time_remaining()

    # These may wait for the server.
    def initial_metadata(self) -> Any:
        with HeldInterrupt(self.real.cancel):
            return self.real.initial_metadata()

    def trailing_metadata(self) -> Any:
        with HeldInterrupt(self.real.cancel):
            return self.real.trailing_metadata()

    def code(self) -> Any:
        with HeldInterrupt(self.real.cancel):
            return self.real.code()

    def details(self) -> Any:
        with HeldInterrupt(self.real.cancel):
            return self.real.details()

    def debug_error_string(self) -> Any:
        """What gRPC's core says about the end of the call."""
        with HeldInterrupt(self.real.cancel):
            return self.real.debug_error_string()


class GrpcMulticallable:
    """A multicallable of grpcio, for one response or many."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __call__(self, *arguments: Any) -> GrpcCall:
        with HeldInterrupt():
            return GrpcCall(self.real(*arguments))

    def future(self, *arguments: Any) -> GrpcCall:
        """Start a call with one response."""
        with HeldInterrupt():
            return GrpcCall(self.real.future(*arguments))

    def with_call(self, *arguments: Any) -> tuple[Any, Any]:
        """The response of a call, and the call."""
        if not HeldInterrupt.needed():
            return self.real.with_call(*arguments)  # type: ignore[no-any-return]
        call = self.future(*arguments)
        try:
            return call.result(), call
        except BaseException:
            call.cancel()
            raise
