"""Collectors: they add the inputs that models are asked to predict to an app.

The service has retired them: it answers with UNIMPLEMENTED.
"""

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
    """The collectors of an app. The service has retired them and answers UNIMPLEMENTED."""

    _message = v2.Collector
    _create_rpc = "PostCollectors"
    _get_rpc = "GetCollector"
    _list_rpc = "ListCollectors"
    _patch_rpc = "PatchCollectors"
    _delete_rpc = "DeleteCollectors"


class Collectors(CollectorOperations, Sync): ...


class AsyncCollectors(CollectorOperations, Async): ...
