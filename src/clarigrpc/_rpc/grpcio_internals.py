"""When names that grpcio does not promise may be used, and how to do without.

The fast paths use grpcio's internals, and so do a few repairs of streams. A release of grpcio may
rename them or change their arguments. So whoever uses them

* loads all of its names at once and takes the public way when one is missing (``load``),
* tries them out first, as far as that is possible without a call,
* takes the public way when a call cannot be started,
* says so in one line of the log, at level DEBUG (``log_public_way``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import grpc

from clarigrpc._transports.sync_grpc_calls import GrpcMulticallable

logger = logging.getLogger("clarigrpc")

TESTED_VERSIONS = ((1, 76), (1, 85))
"""First and last release of grpcio whose internals were tried (``.ci/grpcio_versions.py``)."""

Names: TypeAlias = Mapping[str, Sequence[str]]
"""Module -> what is used of it, for example ``SegregatedCall.next_event``."""

OBSERVABILITY: Names = {"grpc._observability": ("get_plugin",)}


class Internals(NamedTuple):
    """What names of grpcio stand for.

    Attributes:
        objects: Name -> object.
        missing: What is missing, in words; "" for nothing.
    """

    objects: dict[str, Any]
    missing: str = ""


def load(names: Names) -> Internals:
    """Import what is needed of grpcio's internals."""
    found = {}
    try:
        for module_name, attributes in names.items():
            module = import_module(module_name)
            for attribute in attributes:
                found[attribute] = attrgetter(attribute)(module)
    except (ImportError, AttributeError) as error:
        return Internals({}, str(error))
    return Internals(found)


@cache
def log_public_way(user: str, reason: str) -> None:
    """Log once that something of this package does without grpcio's internals."""
    logger.debug("%s: not with grpcio %s: %s", user, grpc.__version__, reason)


def tried_out(
    user: str, internals: Internals, try_out: Callable[[dict[str, Any]], None]
) -> dict[str, Any] | None:
    """The objects of ``internals``; None, and a line in the log, where they are not as expected.

    Args:
        user: Who uses them, for the log.
        internals: What was loaded.
        try_out: Does with them what can be done without a call; raises what goes wrong.
    """
    if internals.missing:
        log_public_way(user, internals.missing)
        return None
    try:
        try_out(internals.objects)
    except (AttributeError, TypeError, ValueError) as error:
        log_public_way(user, str(error))
        return None
    return internals.objects


def parts_of(
    user: str,
    multicallable: Any,
    load_objects: Callable[[], dict[str, Any] | None],
    class_name: str,
    attributes: Sequence[str],
) -> tuple[dict[str, Any], tuple[Any, ...]] | None:
    """What calls of a multicallable are made with; None: take the multicallable.

    Args:
        user: Who makes the calls, for the log.
        multicallable: Of a channel, sync or async.
        load_objects: Gives the internals by name; None where they are not as expected.
        class_name: That of grpcio's multicallable among them.
        attributes: Those of the multicallable.
    """
    if not usable() or (objects := load_objects()) is None:
        return None
    if isinstance(multicallable, GrpcMulticallable):
        multicallable = multicallable.real
    if type(multicallable) is not objects[class_name]:
        return None  # HTTP, several connections, or interceptors
    try:
        return objects, attrgetter(*attributes)(multicallable)
    except AttributeError as error:
        log_public_way(user, str(error))
        return None


def deadline_of(timeout: float, of_server: float | None) -> float:
    """The deadline of a call that begins now, as gRPC's core takes it.

    Args:
        timeout: Seconds.
        of_server: The deadline of the call that a handler of a server makes this one for.
    """
    deadline = time.time() + timeout
    return deadline if of_server is None else min(deadline, of_server)


def usable() -> bool:
    """Whether calls may go past grpcio's own classes: they were tried, and nobody observes them.

    A plugin of grpcio that records calls (OpenTelemetry's, say) has to be set before the first
    call of a method.
    """
    major, minor = (int(part) for part in grpc.__version__.split(".")[:2])
    first, last = TESTED_VERSIONS
    if not first <= (major, minor) <= last:
        log_public_way("fast path", f"tested are {first[0]}.{first[1]} to {last[0]}.{last[1]}")
        return False
    observability = load(OBSERVABILITY)
    if observability.missing:
        log_public_way("fast path", observability.missing)
        return False
    with observability.objects["get_plugin"]() as plugin:
        return plugin is None
