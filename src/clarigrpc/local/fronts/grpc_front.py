"""The gRPC front: every method of V2, health checks and reflection on one port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from clarigrpc import v2
from clarigrpc._contract.methods import SERVICE
from clarigrpc._descriptor_pool import POOL
from clarigrpc.local.byte_budget import BudgetFullError, ByteBudget, Held
from clarigrpc.local.engine.runner_queues import MAX_CALLS
from clarigrpc.local.fronts.field_count import MAX_FIELDS, has_too_many_fields
from clarigrpc.local.fronts.listen_address import UNIX_PREFIX, check_unix_socket, host_and_port
from clarigrpc.local.served_call import ServedCall, WaitingShare
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.local.service_errors import CallAborted
from clarigrpc.v2._index import METHODS

_PATH_PREFIX = f"/{SERVICE}/"
_MAX_MESSAGE_BYTES = 132 << 20
"""Largest message either way: published clients send upload parts of 127 MB."""

_UNCOUNTED_BYTES = 1 << 20
"""Shorter requests are not counted: all workers together have few of them."""

_READABLE_DEPTH = 100
"""Messages inside each other that protobuf reads."""
_MAX_SEARCHED_BYTES = 1 << 20

_KEEPALIVE_SECONDS = 20.0
"""How often a client with a call is asked whether it is there; it has half of that to answer."""

_RUNNER_METHODS = (
    "GetRunner",
    "PostRunners",
    "ListRunnerItems",
    "PostRunnerItemOutputs",
    "ProcessRunnerItems",
)
"""What a runner needs to serve a model."""
"""A longer message is not searched for the reason why it cannot be read."""


_WORKERS_PER_REFLECTION = 16


class GrpcFront:
    """Serves the service over gRPC, without TLS.

    The port is bound when the object is made, so ``port`` is known and a port in use is an error
    at once.

    Args:
        service: Serves the calls. It is not closed here.
        host: Address to listen on; ``unix:/path`` for a Unix domain socket.
        port: Port to listen on, 0 for any. It says nothing for a Unix domain socket.
        workers: Calls that run at the same time; a stream takes one while it is open. Those of
            runners have workers of their own.

    Attributes:
        port: The port that it listens on.
        base: ``http://host:port``, or ``unix:/path``.

    Raises:
        OSError: The port is in use, or there is no such address here.
    """

    def __init__(self, service: V2Service, host: str, port: int, *, workers: int) -> None:
        is_unix = host.startswith(UNIX_PREFIX)
        if is_unix:
            check_unix_socket(host)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="clarigrpc-local")
        # Callers of a model wait in workers for its runner, which must not have to wait for one.
        self._runner_pool = ThreadPoolExecutor(
            MAX_CALLS + workers, thread_name_prefix="clarigrpc-local-runner"
        )
        self._server = grpc.server(
            self._pool,
            handlers=[
                _V2Handlers(service, service.budget, self._runner_pool, WaitingShare(workers))
            ],
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                # A worker of a runner that has fallen silent would keep its items for ever.
                ("grpc.keepalive_time_ms", int(_KEEPALIVE_SECONDS * 1000)),
                ("grpc.keepalive_timeout_ms", int(_KEEPALIVE_SECONDS * 500)),
                ("grpc.http2.ping_timeout_ms", int(_KEEPALIVE_SECONDS * 500)),
                ("grpc.http2.max_pings_without_data", 0),
                # A port in use is an error, not a second server on it.
                ("grpc.so_reuseport", 0),
            ],
        )
        try:
            self.port: int = self._server.add_insecure_port(host_and_port(host, port))
        except RuntimeError as error:
            self._server.stop(0)
            self._pool.shutdown()
            self._runner_pool.shutdown()
            raise OSError(f"cannot listen on {host_and_port(host, port)}: {error}") from error
        if is_unix:
            self.port = 0
        self.base: str = host if is_unix else f"http://{host_and_port(host, self.port)}"
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            _Reflection(workers), self._server
        )
        self._ended: threading.Event | None = None

    def start(self) -> None:
        """Begins to serve."""
        self._server.start()

    def refuse_calls(self, grace: float) -> None:
        """Takes no new calls and gives running ones ``grace`` seconds; does not wait for them."""
        self._health.enter_graceful_shutdown()
        self._ended = self._server.stop(grace)

    def close(self) -> None:
        """Waits until all calls have ended. ``refuse_calls`` comes before."""
        if self._ended is not None:
            self._ended.wait()
        self._pool.shutdown()
        self._runner_pool.shutdown()


class _Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """Tells anybody about the services. A stream of questions takes a worker, so few are open."""

    def __init__(self, workers: int) -> None:
        super().__init__((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), pool=POOL)
        self._most = max(1, workers // _WORKERS_PER_REFLECTION)
        self._free = threading.BoundedSemaphore(self._most)

    def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        if not self._free.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._most} streams of reflection are open already, the maximum",
            )
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            self._free.release()


class _V2Handlers(grpc.GenericRpcHandler):
    """Binds every method of V2 to the service, with the serializers of its messages."""

    def __init__(
        self,
        service: V2Service,
        budget: ByteBudget,
        runner_pool: ThreadPoolExecutor,
        waiting: WaitingShare,
    ) -> None:
        self._service = service
        self._waiting = waiting
        self._budget = budget
        self._runner_pool = runner_pool
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = handler_call_details.method
        method = path.removeprefix(_PATH_PREFIX)
        if method == path or method not in METHODS:
            self._service.unrouted(path)
            return None
        handler = self._handlers.get(method)
        if handler is None:
            handler = self._handlers[method] = self._bind(method)
        return handler

    def _bind(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        request_name, _, many_requests, many_responses, *_ = METHODS[method]
        codec: dict[str, Any] = {
            "request_deserializer": _parser(getattr(v2, request_name), self._budget),
            "response_serializer": _serialize,
        }
        service, waiting = self._service, self._waiting

        def unary(request: _Request, context: grpc.ServicerContext) -> Message:
            call = _call(method, context, waiting)
            try:
                return service.unary(method, _parsed(request), call)
            except CallAborted as aborted:
                context.abort(aborted.code, aborted.details)
            finally:
                _release(request)
                _send_trailing(call, context)

        def stream(payload: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            call = _call(method, context, waiting)
            try:
                if many_requests:
                    yield from service.duplex(method, _each_parsed(payload), call)
                else:
                    yield from service.server_stream(method, _parsed(payload), call)
            except CallAborted as aborted:
                context.abort(aborted.code, aborted.details)
            finally:
                _release(payload)
                _send_trailing(call, context)

        if method in _RUNNER_METHODS:
            for behaviour in (unary, stream):
                # Read by grpcio's server, which has no documented way.
                vars(behaviour)["experimental_thread_pool"] = self._runner_pool
        if not many_responses and not many_requests:
            return grpc.unary_unary_rpc_method_handler(unary, **codec)
        if many_requests and many_responses:
            return grpc.stream_stream_rpc_method_handler(stream, **codec)
        if many_responses:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        raise AssertionError(f"V2 has no client-streaming method, but {method} is one")


class _Refused(NamedTuple):
    """Stands for a request that is not read; gRPC would answer INTERNAL in our place."""

    code: grpc.StatusCode
    reason: str


class _Counted(NamedTuple):
    """A large request, and its bytes in the budget of all calls."""

    message: Message
    held: Held


_Request: TypeAlias = Message | _Counted | _Refused


def _parser(cls: type[Message], budget: ByteBudget) -> Callable[[bytes], _Request]:
    def parse(payload: bytes) -> _Request:
        try:
            if len(payload) < _UNCOUNTED_BYTES:
                return cls.FromString(payload)
            if has_too_many_fields(cls.DESCRIPTOR, payload):
                return _Refused(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"the message has more than {MAX_FIELDS} fields",
                )
            held = budget.take_for_body(len(payload))
            return _Counted(cls.FromString(payload), held)
        except BudgetFullError as error:
            return _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except DecodeError:
            deep = _too_deep(cls.DESCRIPTOR, payload)
            reason = (
                f"{deep}: nested more than {_READABLE_DEPTH} messages deep"
                if deep
                else f"this is not a {cls.DESCRIPTOR.name}"
            )
            return _Refused(grpc.StatusCode.INVALID_ARGUMENT, reason)

    return parse


def _too_deep(descriptor: Any, payload: bytes) -> str:
    """The beginning of the path of what is nested too deeply; empty where nothing is."""
    if len(payload) > _MAX_SEARCHED_BYTES:
        return ""
    waiting: list[tuple[Any, bytes, list[str]]] = [(descriptor, payload, [])]
    while waiting:
        inside, content, path = waiting.pop()
        if len(path) > _READABLE_DEPTH:
            return ".".join(path[:8]) + "..."
        try:
            # A message without fields of its own has them all as unknown ones.
            fields: Any = UnknownFieldSet(Empty.FromString(content))
        except DecodeError:
            continue
        for each in fields:
            field = inside.fields_by_number.get(each.field_number)
            if field is not None and field.message_type is not None and type(each.data) is bytes:
                waiting.append((field.message_type, each.data, [*path, field.name]))
    return ""


def _parsed(request: _Request) -> Message:
    if isinstance(request, _Refused):
        raise CallAborted(request.code, request.reason)
    return request.message if isinstance(request, _Counted) else request


def _each_parsed(requests: Iterator[_Request]) -> Iterator[Message]:
    """The requests of a stream; each counts until the next is asked for."""
    for request in requests:
        try:
            yield _parsed(request)
        finally:
            _release(request)


def _release(request: Any) -> None:
    if isinstance(request, _Counted):
        request.held.release()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _call(method: str, context: grpc.ServicerContext, waiting: WaitingShare) -> ServedCall:
    metadata = {
        key: value for key, value in context.invocation_metadata() if isinstance(value, str)
    }
    return ServedCall(method, metadata, context.is_active, context.time_remaining, waiting=waiting)


def _send_trailing(call: ServedCall, context: grpc.ServicerContext) -> None:
    if call.trailing:
        context.set_trailing_metadata(tuple(call.trailing.items()))
