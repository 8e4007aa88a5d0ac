"""The secrets of a user: values passed to models and pipelines when they run."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Patches
from clarigrpc._resources.sync_async import Async, Sync


class SecretOperations(
    Creates[v2.Secret],
    Gets[v2.Secret],
    Lists[v2.Secret],
    Patches[v2.Secret],
    Deletes[v2.Secret],
):
    """The secrets of a user. The service never returns their values."""

    _message = v2.Secret
    _of_user = True
    _create_rpc = "PostSecrets"
    _get_rpc = "GetSecret"
    _list_rpc = "ListSecrets"
    _patch_rpc = "PatchSecrets"
    _delete_rpc = "DeleteSecrets"


class Secrets(SecretOperations, Sync): ...


class AsyncSecrets(SecretOperations, Async): ...
