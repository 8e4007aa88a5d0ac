"""grpcio as it may become: its core does not start a call with the arguments of today."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest

from clarigrpc._rpc import grpcio_internals


def refuse_starts(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have calls refused whose multicallable gives so many parts, the first of which starts it."""

    def begin(*arguments: Any) -> Any:
        raise TypeError("takes other arguments")

    def parts(*paths: str) -> Callable[[Any], Any]:
        if len(paths) != count:  # something else than the parts of a multicallable
            return operator.attrgetter(*paths)
        return lambda multicallable: (begin, *operator.attrgetter(*paths[1:])(multicallable))

    monkeypatch.setattr(grpcio_internals, "attrgetter", parts)
