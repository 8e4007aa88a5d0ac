"""What the sync and the async channel share: everything about a call but the waiting."""

from __future__ import annotations

import contextlib
import inspect
import logging
import time
from collections.abc import Callable, Generator
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from clarigrpc import errors
from clarigrpc._config.credentials import CREDENTIAL_KEYS, check_metadata, pairs_of
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._config.settings import Settings
from clarigrpc._contract import deprecations
from clarigrpc._contract.methods import Method, lookup
from clarigrpc._rpc.call_counts import CallCounts
from clarigrpc._rpc.connected import Connected
from clarigrpc._rpc.retry import deadline_after, retry_delays
from clarigrpc._rpc.shared_transport import SharedTransport
from clarigrpc._transports.transport import CHANNEL_CLOSED, Metadata, transport_of

REQUEST_ID_KEY = "x-clarifai-request-id-prefix"
SUCCESS = 10000
"""``StatusCode.SUCCESS``, for the comparison that every response passes."""

# What gRPC says where the server reset the call without a status.
_STOPPED = ("", "CANCELLED", "Received RST_STREAM with error code 8")

_STREAM_PATIENCE = 60.0
"""Seconds for which opening a stream is repeated at least, if its timeout allows it."""

logger = logging.getLogger("clarigrpc")

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]
RetryLoop = Generator[float, errors.ApiError, None]


class CallCore:
    """What the calls of a client, or of a view of it, have in common.

    Attributes:
        settings: Those of the client or the view.
        shared: What the views of a client share with it.
    """

    def __init__(self, settings: Settings, shared: SharedTransport[Any]) -> None:
        self.settings = settings
        self.shared = shared
        self.credentials = shared.credentials
        self.budget = shared.budget
        self.timeout = settings.timeout
        self._own = settings.metadata

    def metadata(self, credentials: Metadata, extra: Metadata | None) -> tuple[str, Metadata]:
        """The id of a new call and its metadata; an id among ``extra`` is used as it is."""
        shared = self.shared
        request_id = f"{shared.prefix}-{next(shared.count):x}"
        # That of grpc.aio is a mapping of its own kind, which dict() may not read.
        extra = self._own if extra is None else (*self._own, *pairs_of(extra))
        if not extra:
            return request_id, (*credentials, (REQUEST_ID_KEY, request_id))
        check_metadata(extra)
        given = dict(extra)
        if not CREDENTIAL_KEYS.isdisjoint(given):
            # Two credentials in one call: the service would see one of them, and not say which.
            credentials = tuple(pair for pair in credentials if pair[0] not in CREDENTIAL_KEYS)
        if REQUEST_ID_KEY in given:
            return str(given[REQUEST_ID_KEY]), (*credentials, *extra)
        return request_id, (*credentials, (REQUEST_ID_KEY, request_id), *extra)

    def deadline(self, timeout: float | None, *, streaming: bool) -> tuple[float, float]:
        """The timeout that holds, and the moment by ``time.monotonic`` at which it is over."""
        if timeout is None:
            timeout = self.settings.stream_timeout if streaming else self.settings.timeout
        return timeout, deadline_after(timeout, time.monotonic())


def check_interceptors(settings: Settings, kind: Any, client: str, module: str) -> None:
    """Check that interceptors are for this kind of client.

    Raises:
        ConfigurationError: One is not.
    """
    for one in settings.interceptors:
        if not isinstance(one, kind):
            raise errors.ConfigurationError(
                f"interceptors: {client} takes interceptors of {module}, "
                f"{module}.UnaryUnaryClientInterceptor for example, not {type(one).__name__}"
            )


def _documentation(bound: BoundMethod) -> str:
    return bound.method.documentation() if bound.method is not None else ""


DOCUMENTATION: Any = property(_documentation)
"""For the ``__doc__`` of multicallables: what their method does, read when somebody asks."""


class BoundMethod(Connected):
    """A method of the service with its serializers; what both kinds of multicallable are."""

    __slots__ = ("checked", "core", "counts", "deserialize", "method", "name", "path", "serialize")

    def __init__(
        self,
        core: CallCore,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        self.core = core
        self.path = path
        self.name = path.rpartition("/")[2]
        self.counts = core.shared.calls.of(self.name)
        self.method = _row(path)
        self.serialize = _serializer(core.settings, self.method, serialize)
        # A message class says what is meant as well: stubs for JSON channels have those.
        self.deserialize = getattr(deserialize, "FromString", deserialize) or _unchanged
        # Without a deserializer the caller wants bytes, and there is no status to look at.
        self.checked = deserialize is not None and self.method is not None

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def __signature__(self) -> inspect.Signature:
        streaming = self.method is not None and self.method.request_streaming
        request = "request_iterator" if streaming else "request"
        kinds = inspect.Parameter
        return inspect.Signature(
            [
                kinds(request, kinds.POSITIONAL_OR_KEYWORD),
                kinds("timeout", kinds.KEYWORD_ONLY, default=None, annotation="float | None"),
                kinds("metadata", kinds.KEYWORD_ONLY, default=None),
            ]
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def rpc_error(self, error: grpc.RpcError, request_id: str, call: Any = None) -> errors.ApiError:
        """The exception for a call that gRPC ended.

        Args:
            error: How it ended, with a code.
            request_id: Id of the call.
            call: The call; None where it is the error.
        """
        from clarigrpc._rpc import grpc_failures, statuses  # not before something fails

        core = self.core
        if core.shared.closed and grpc_failures.text_of(error) == CHANNEL_CLOSED:
            closed = self.closed(request_id)
            closed.__cause__ = error
            return closed
        state = None
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            used = transport_of(error if call is None else call)
            state = (core.shared if used is None else used).connectivity()
        result = statuses.from_rpc(
            error,
            method=self.name,
            request_id=request_id,
            target=core.settings.target.url,
            connected=None if state is None else state is grpc.ChannelConnectivity.READY,
        )
        if isinstance(result, errors.AuthenticationError):
            self.core.credentials.rejected()
        return result

    def unary_error(self, error: Any, request_id: str, call: Any = None) -> errors.ApiError:
        """As ``rpc_error``, for a call with one response that this side did not cancel."""
        result = self.rpc_error(error, request_id, call)
        # A server that stops cancels what it runs, without a word; another one may answer.
        if (
            result.grpc_code is grpc.StatusCode.CANCELLED
            and result.details in _STOPPED
            and not self.core.shared.closed
        ):
            result.retryable = result.connection_lost = True
        return result

    def cancelled(self, request_id: str) -> errors.CancelledError:
        """The exception for a call that was cancelled on this side."""
        return errors.CancelledError(
            "cancelled by the caller", method=self.name, request_id=request_id
        )

    def closed(self, request_id: str) -> errors.CancelledError:
        """The exception for a call that the end of the client cancelled."""
        return errors.CancelledError(
            "the client was closed",
            grpc_code=grpc.StatusCode.CANCELLED,
            method=self.name,
            request_id=request_id,
        )

    def unidentified(self) -> errors.DeadlineExceededError:
        """The exception for a call that got no credentials before its deadline."""
        return errors.DeadlineExceededError("no credentials in time", method=self.name)

    def garbled(self, error: Exception, request_id: str) -> errors.InternalError:
        """The exception for a response that is no message of the method's type."""
        failure = errors.InternalError(
            "the response cannot be parsed",
            details=str(error),
            method=self.name,
            request_id=request_id,
        )
        failure.__cause__ = error
        return failure

    def parse(self, encoded: bytes, request_id: str) -> Any:
        """The response that was received.

        Raises:
            InternalError: The bytes are no message of the method's type.
        """
        try:
            return self.deserialize(encoded)
        except DecodeError as error:
            raise self.garbled(error, request_id) from error

    def silent(self, request_id: str) -> errors.InternalError:
        """The exception for a server that says OK and answers nothing."""
        return errors.InternalError(
            "the server ended the call without a response", method=self.name, request_id=request_id
        )

    def response_error(
        self,
        response: Any,
        request_id: str,
        trailing: Metadata | None,
        raise_on_partial: bool | None,
    ) -> errors.ApiError | None:
        """The exception that the V2 status of a response stands for, if it is a failure."""
        from clarigrpc._rpc import statuses

        error = statuses.from_response(
            response,
            method=self.name,
            request_id=request_id,
            item_field=self.method.item_field if self.method is not None else "",
            trailing=trailing,
        )
        if isinstance(error, errors.AuthenticationError):
            self.core.credentials.rejected()
        if isinstance(error, errors.PartialFailureError):
            if raise_on_partial is None:
                raise_on_partial = self.core.settings.raise_on_partial
            if not raise_on_partial:
                return None
        return error

    def retries(
        self, idempotent: bool | None, deadline: float, retry: RetryPolicy | None = None
    ) -> RetryLoop:
        """The retry loop of one call, ready to be sent its first error.

        Args:
            idempotent: Whether the call may be sent twice. None uses the property of the method.
            deadline: When the call has to be over, by ``time.monotonic``.
            retry: Its policy. None uses the client's setting.
        """
        if idempotent is None:
            idempotent = self.method is not None and self.method.idempotent
        if self.method is not None and self.method.kind != "unary_unary":
            # The hour that a stream may take is not for waiting until it begins.
            patience = max(self.core.settings.timeout, _STREAM_PATIENCE)
            deadline = min(deadline, time.monotonic() + patience)
        loop = _logged(
            retry_delays(
                retry or self.core.settings.retry,
                self.core.budget,
                idempotent=idempotent,
                deadline=deadline,
                clock=time.monotonic,
                random=_draw,
            ),
            self.counts,
        )
        next(loop)
        return loop


def is_sent_once(idempotent: bool | None, retry: RetryPolicy | None) -> bool:
    """Whether the caller wants a call to be sent once, whatever the settings of the client are.

    Args:
        idempotent: As of the call.
        retry: The call's own policy; None for the client's.
    """
    return idempotent is False or (retry is not None and retry.max_attempts == 1)


def _draw() -> float:
    import random

    return random.random()


def _logged(delays: RetryLoop, counts: CallCounts) -> RetryLoop:
    with contextlib.closing(delays):
        error = yield next(delays)
        while True:
            try:
                delay = delays.send(error)
            except errors.ApiError:
                logger.debug("failed: %s", error)
                raise
            counts.retried()
            logger.info("trying again in %.2f s: %s", delay, error)
            error = yield delay


def _row(path: str) -> Method | None:
    """The row of a method; None for a method of another service on the same channel."""
    try:
        row = lookup(path)
    except KeyError:
        return None
    return row if row.path == path else None


def message_codec(
    path: str, serialize: Serializer | None
) -> tuple[Deserializer | None, Serializer | None]:
    """For those who want messages where a caller has serialized requests: what parses these.

    Args:
        path: Path of the method.
        serialize: The caller's serializer, None for serialized requests.

    Returns:
        What makes messages of requests, None where they are that already; and the serializer.
    """
    method = _row(path) if serialize is None else None
    if method is None:
        return None, serialize
    request = method.request_class()
    return request.FromString, request.SerializeToString


_GRPC_ARGUMENTS = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")


def split_arguments(
    args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The arguments of a multicallable: the request, those that gRPC knows, and ours."""
    given = dict(zip(("request", *_GRPC_ARGUMENTS), args, strict=False)) | options
    requests = given.pop("request_iterator", None)
    request = given.pop("request", requests)
    known = {name: given.pop(name, None) for name in _GRPC_ARGUMENTS}
    return request, known, given


def _unchanged(value: Any) -> Any:
    return value


def _serialized(request: Any) -> bytes:
    """What the serializer of a message class does not take: a message of another package.

    Raises:
        TypeError: It is no message.
    """
    if not isinstance(request, Message):
        raise TypeError(f"{type(request).__name__} is no message")
    return request.SerializeToString()


def _serializer(
    settings: Settings, method: Method | None, serialize: Serializer | None
) -> Serializer:
    """``serialize`` that takes the method's request only, and fills an empty ``user_app_id``.

    protobuf would serialize any message. The caller's message stays as it is: the field is
    appended to the serialized form, which protobuf defines as a merge.
    """
    if serialize is None:
        return _unchanged
    if method is None:
        return serialize
    name = method.request_name
    watch = None if method.request_streaming else deprecations.watch(method.name)

    def wrong(request: Any) -> TypeError:
        return TypeError(f"{method.name} takes a {name}, not {type(request).__name__}")

    if not method.has_user_app_id or not (settings.user_id or settings.app_id):

        def serialize_checked(request: Any) -> bytes:
            if type(request).__name__ != name:
                raise wrong(request)
            if watch is not None:
                watch(request)
            try:
                return serialize(request)
            except TypeError:
                return _serialized(request)

        return serialize_checked
    ids = method.user_app_id_bytes(settings.user_id, settings.app_id)

    def serialize_filled(request: Any) -> bytes:
        if type(request).__name__ != name:
            raise wrong(request)
        if watch is not None:
            watch(request)
        try:
            encoded = serialize(request)
        except TypeError:
            encoded = _serialized(request)
        given = request.user_app_id
        return encoded if given.user_id or given.app_id else encoded + ids

    return serialize_filled
