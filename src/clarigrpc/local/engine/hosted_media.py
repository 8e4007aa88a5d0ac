"""Addresses under which the REST front serves the media of inputs, and who may fetch them.

An address is a prefix, the name of a size, and a suffix that names the input, as in the service
(https://docs.clarifai.com/, "Secure data hosting", and the tests of its gRPC client).
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.media import media_content
from clarigrpc.local.media.media_copies import SIZES, MediaCopy, copy_of
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

HOSTED_PREFIX = "/data/"
"""Beginning of the paths of media."""


_WAITING = (StatusCode.INPUT_PENDING, StatusCode.INPUT_IN_PROGRESS)


def show(item: v2.Input, app: UserApp, base: str) -> v2.Input:
    """Adds the addresses of its media to an input; returns it.

    What was sent as bytes has them at once, what is downloaded has them then.

    Args:
        item: An input as it is stored.
        app: Where it is.
        base: Address of the REST front; without one there are no addresses.
    """
    if not base or item.status.code not in (StatusCode.INPUT_SUCCESS, *_WAITING):
        return item
    for kind in media_content.MEDIA_KINDS:
        if item.data.HasField(kind):
            medium = getattr(item.data, kind)
            if medium.url and item.status.code in _WAITING:
                continue
            hosted = medium.hosted
            hosted.prefix = base + HOSTED_PREFIX.rstrip("/")
            names = ("users", app.user_id, "apps", app.app_id, "inputs", kind, item.id)
            hosted.suffix = "/".join(quote(name, safe="") for name in names)
            hosted.sizes.extend(SIZES[kind])
            hosted.crossorigin = "use-credentials"
            if kind != "text" and not medium.url:
                # What was sent as bytes; the service's SDK downloads inputs from there.
                medium.url = f"{hosted.prefix}/{SIZES[kind][0]}/{hosted.suffix}"
    return item


def read(context: Context, path: str) -> MediaCopy:
    """What is behind an address.

    Args:
        context: Of the caller, whose call counts as ``GetInput``.
        path: What follows ``HOSTED_PREFIX`` in the path of the URL.

    Raises:
        ServiceError: There is none that the caller may see, or its media cannot be read.
    """
    match [unquote(part) for part in path.split("/")]:
        case [size, "users", user_id, "apps", app_id, "inputs", kind, input_id]:
            pass
        case _:
            raise _nothing()
    app = context.readable(v2.UserAppIDSet(user_id=user_id, app_id=app_id))
    store = context.state.store
    row = store.get(StoredCollection.of_app(INPUT_KIND, app), input_id)
    if row is None or size not in SIZES.get(kind, ()):
        raise _nothing()
    data = v2.Input.FromString(row.body).data
    if not data.HasField(kind):  # type: ignore[arg-type]
        raise _nothing()
    content = store.content(row.seq)
    ready = row.status == StatusCode.INPUT_SUCCESS
    if not ready and (content is None or row.status not in _WAITING):
        raise _nothing()
    if content is None:
        content = media_content.content_of(data, context.state.fetcher)
    return copy_of(content, data, kind, size, context.state.fetcher.budget)


def _nothing() -> ServiceError:
    return ServiceError(StatusCode.CONN_DOES_NOT_EXIST, "there is no such medium")
