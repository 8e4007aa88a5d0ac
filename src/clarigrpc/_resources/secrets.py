"""The secrets of a user, which models and pipelines are given when they run."""

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
    """The secrets of a user; the service does not give their values back."""

    message = v2.Secret
    of_user = True


class Secrets(SecretOperations, Sync): ...


class AsyncSecrets(SecretOperations, Async): ...
