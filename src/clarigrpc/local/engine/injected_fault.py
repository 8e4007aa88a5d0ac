"""A fault for the calls of one method, which lasts as long as a ``with`` block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from clarigrpc._public_names import named_in
from clarigrpc.local.served_call import ServedCall


class InjectedFaults:
    """The faults of all ``with`` blocks that run."""

    def __init__(self) -> None:
        self._faults: tuple[InjectedFault, ...] = ()
        self._lock = threading.Lock()

    def add(self, fault: InjectedFault) -> None:
        with self._lock:
            self._faults = (*self._faults, fault)

    def remove(self, fault: InjectedFault) -> None:
        with self._lock:
            self._faults = tuple(one for one in self._faults if one is not fault)

    def take(self, call: ServedCall, kind: str) -> InjectedFault | None:
        """The fault of that kind for a call, which counts as one of its calls; None without."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fault.method == call.method and not fault.is_used_up():
                    fault.taken += 1
                    return fault
        return None


@named_in("clarigrpc.local")
class InjectedFault:
    """What a method of ``Faults`` returns: the fault is there while its ``with`` block runs.

    The end of the block raises AssertionError where the fault has not happened as often as it
    should have, so that no test passes because a fault was never met.

    Attributes:
        method: Name of the method whose calls it concerns.
        happened: How often it has happened so far.
    """

    def __init__(
        self,
        faults: InjectedFaults,
        kind: str,
        method: str,
        count: int | None,
        optional: bool,
        effect: Callable[[ServedCall, Any], Any],
    ) -> None:
        self._faults = faults
        self._count = count
        self._optional = optional
        self.kind = kind
        self.method = method
        self.effect = effect
        self.taken = 0
        self.happened = 0

    def __repr__(self) -> str:
        return f"InjectedFault({self.kind} of {self.method}, happened {self.happened} times)"

    def is_used_up(self) -> bool:
        """Whether as many calls had it as should."""
        return self.taken == self._count

    def __enter__(self) -> Self:
        self._faults.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._faults.remove(self)
        wanted = 1 if self._count is None else self._count
        if kind is None and not self._optional and self.happened < wanted:
            raise AssertionError(
                f"{self.method}: the fault {self.kind!r} should have happened "
                f"{'at least once' if self._count is None else f'{wanted} times'}, and happened "
                f"{self.happened} times; give optional=True where that is right"
            )
