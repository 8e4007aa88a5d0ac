"""Orders for labelling by the service's own labellers."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Patches
from clarigrpc._resources.sync_async import Async, Sync


class LabelOrderOperations(
    Creates[v2.LabelOrder],
    Gets[v2.LabelOrder],
    Lists[v2.LabelOrder],
    Patches[v2.LabelOrder],
    Deletes[v2.LabelOrder],
):
    """The label orders of an app."""

    _message = v2.LabelOrder
    _create_rpc = "PostLabelOrders"
    _get_rpc = "GetLabelOrder"
    _list_rpc = "ListLabelOrders"
    _patch_rpc = "PatchLabelOrders"
    _delete_rpc = "DeleteLabelOrders"


class LabelOrders(LabelOrderOperations, Sync): ...


class AsyncLabelOrders(LabelOrderOperations, Async): ...
