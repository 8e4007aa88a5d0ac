"""Collectors: they add what models are asked to predict to an app. The service has retired them."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Patches
from clarigrpc._resources.sync_async import Async, Sync


class CollectorOperations(
    Creates[v2.Collector],
    Gets[v2.Collector],
    Lists[v2.Collector],
    Patches[v2.Collector],
    Deletes[v2.Collector],
):
    """The collectors of an app."""

    message = v2.Collector


class Collectors(CollectorOperations, Sync): ...


class AsyncCollectors(CollectorOperations, Async): ...
