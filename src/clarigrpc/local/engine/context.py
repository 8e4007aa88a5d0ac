"""What every part of the local server shares: a call, its caller, errors, statuses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name
from clarigrpc._rpc import statuses

if TYPE_CHECKING:
    from clarigrpc.local.accounts.method_scopes import Caller
    from clarigrpc.local.accounts.oauth_applications import Applications
    from clarigrpc.local.accounts.user_accounts import Accounts
    from clarigrpc.local.engine.background_tasks import Background
    from clarigrpc.local.engine.faults import Faults
    from clarigrpc.local.engine.input_embeddings import Embeddings
    from clarigrpc.local.engine.input_processing import InputWorker
    from clarigrpc.local.engine.model_catalog import Catalog, Entry
    from clarigrpc.local.engine.runner_queues import RunnerQueues
    from clarigrpc.local.media.url_fetching import Fetcher
    from clarigrpc.local.store.download_files import Downloads
    from clarigrpc.local.store.resource_store import Store
    from clarigrpc.local.store.upload_files import UploadStore

Code: TypeAlias = v2.StatusCode.ValueType

MAX_ITEMS = 128
"""Most inputs, or ids, that one request may carry."""

DEFAULT_PER_PAGE = 128
MAX_PER_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of the call it serves.

    Attributes:
        method: Name of the method, ``PostInputs`` say.
        metadata: Request metadata with lower-case keys.
        is_active: False once the client has gone.
        remaining: Seconds left until the client's deadline, None without one.
        trailing: Filled by the service: what to send after the response (gRPC trailing
            metadata, HTTP headers), such as ``retry-after`` in seconds.
    """

    method: str
    metadata: Mapping[str, str]
    is_active: Callable[[], bool]
    remaining: Callable[[], float | None]
    trailing: dict[str, str] = field(default_factory=dict)


class ServiceError(Exception):
    """A failure that becomes the V2 status of a response.

    Args:
        code: V2 status code.
        details: What is wrong with this request, for the person who sent it.
        description: Short text for the code; derived from the code's name by default.
    """

    def __init__(self, code: Code, details: str = "", description: str = "") -> None:
        super().__init__(details or description or code_name(code))
        self.code = code
        self.details = details
        self.description = description or describe(code)

    def status(self) -> v2.Status:
        """This failure as a status message."""
        return v2.Status(code=self.code, description=self.description, details=self.details)


class CallAborted(Exception):
    """The call ends without a response, as by a transport failure or an unknown method.

    Args:
        code: gRPC status that the call ends with.
        details: Text of that status.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


def describe(code: Code) -> str:
    """Short text for a status code."""
    if code == v2.StatusCode.SUCCESS:
        return "Ok"
    return code_name(code).replace("_", " ").capitalize()


def make_status(code: Code, details: str = "") -> v2.Status:
    """A status message with the code's own description."""
    return v2.Status(code=code, description=describe(code), details=details)


def overall(items: Iterable[v2.Status]) -> v2.Status:
    """The status of a bulk call from those of its items: SUCCESS, MIXED_STATUS or FAILURE."""
    good = bad = 0
    for item in items:
        if item.code in statuses.PASSING:
            good += 1
        else:
            bad += 1
    if not bad:
        return make_status(v2.StatusCode.SUCCESS)
    if good:
        return make_status(v2.StatusCode.MIXED_STATUS, f"{bad} of {good + bad} items failed")
    return make_status(v2.StatusCode.FAILURE, "all items failed; the status of each says why")


def close_iterator(iterator: Iterator[Any]) -> None:
    """Ends a generator before its end; other iterators need no closing."""
    if isinstance(iterator, Generator):
        iterator.close()


def new_id() -> str:
    """An id in the form that the service makes: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def is_built(since: Timestamp, seconds: float) -> bool:
    """Whether what began to be built at ``since`` is ready by now."""
    return time.time() >= since.ToNanoseconds() / 1e9 + seconds


def page_bounds(page: int, per_page: int) -> tuple[int, int]:
    """Offset and size of a page that is counted from 1; zeros mean the defaults."""
    if per_page > MAX_PER_PAGE:
        raise ServiceError(
            v2.StatusCode.CONN_INVALID_REQUEST, f"per_page is {per_page}; at most {MAX_PER_PAGE}"
        )
    size = per_page or DEFAULT_PER_PAGE
    return (max(page, 1) - 1) * size, size


def refuse_other_fields(request: Any, known: Iterable[str]) -> None:
    """Refuses a request with options that this server does not act on.

    Ignoring a filter would answer a question that nobody asked.
    """
    names = set(known)
    other = [f.name for f, _ in request.ListFields() if f.name not in names]
    if other:
        raise ServiceError(
            v2.StatusCode.NOT_IMPLEMENTED, f"the local server has no {', '.join(other)} here"
        )


def is_public(item: Any) -> bool:
    """Whether everybody may see a resource that is in an app which everybody may see."""
    if "visibility" not in item.DESCRIPTOR.fields_by_name:
        return True
    return bool(item.visibility.gettable == v2.Visibility.PUBLIC)


@dataclass(frozen=True, slots=True)
class Scope:
    """The user and the app that a request works in. ``app_id`` is empty for all of a user's."""

    user_id: str
    app_id: str


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a running server that handlers work with."""

    store: Store
    accounts: Accounts
    applications: Applications
    catalog: Catalog
    worker: InputWorker
    background: Background
    uploads: UploadStore
    downloads: Downloads
    fetcher: Fetcher
    embeddings: Embeddings
    faults: Faults
    build_seconds: float
    input_roots: tuple[Path, ...]
    runners: RunnerQueues


@dataclass(frozen=True, slots=True)
class Context:
    """One call being served."""

    state: State
    call: Call
    caller: Caller

    def scope(self, ids: v2.UserAppIDSet, *, all_apps: bool = False) -> Scope:
        """User and app of a request; what it leaves empty is filled from the caller.

        Args:
            ids: The request's ``user_app_id``.
            all_apps: A user id without an app id means all apps of that user.
        """
        return self.state.accounts.scope(self.caller, self.call.method, ids, all_apps=all_apps)

    def writable(self, ids: v2.UserAppIDSet) -> Scope:
        """Like ``scope``, and refuses an app that the caller may only read."""
        return self.state.accounts.scope(self.caller, self.call.method, ids, write=True)

    def user(self, ids: v2.UserAppIDSet, *, write: bool = False) -> str:
        """The user that a request for what belongs to a user means; the caller alone may."""
        return self.state.accounts.user(self.caller, ids, write=write)

    def apps_of(self, user_id: str) -> list[str]:
        """Ids of a user's apps that the caller may see."""
        return self.state.accounts.apps_of(self.caller, user_id)

    def is_stranger(self, scope: Scope) -> bool:
        """Whether the caller is neither the owner of an app nor a collaborator there."""
        return self.state.accounts.is_stranger(self.caller, scope)

    def sees(self, scope: Scope, item: Any) -> bool:
        """Whether the caller may see a resource of an app that the caller may see."""
        return is_public(item) or not self.is_stranger(scope)

    def model(self, scope: Scope, model_id: str) -> Entry:
        """The model, with those of its versions that the caller may see; ServiceError without."""
        return self.state.catalog.find(scope, model_id, only_public=self.is_stranger(scope))

    def models(self, scope: Scope) -> list[Entry]:
        """Every model of the scope that the caller may see."""
        apps = (scope.app_id,) if scope.app_id else self.apps_of(scope.user_id)
        found: list[Entry] = []
        for inner in (Scope(scope.user_id, app_id) for app_id in apps):
            found += self.state.catalog.all(inner, only_public=self.is_stranger(inner))
        return found
