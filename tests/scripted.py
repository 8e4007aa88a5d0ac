"""A V2 server whose every answer is written down by the test.

    server.on("GetModel", Fail(UNAVAILABLE), reply("GetModel"))

It answers the first call with the failure and the second with the message. A call that nobody
wrote an answer for fails, and so does the test (``check``). It talks over a real socket.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from clarigrpc import v2
from clarigrpc._contract import methods

SUCCESS = v2.StatusCode.SUCCESS
THREADS = "scripted"
"""Prefix of the names of the server's own threads."""

Pairs = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Fail:
    """End the call with a gRPC status."""

    code: grpc.StatusCode
    details: str = "as told"
    trailing: Pairs = ()


@dataclass(frozen=True)
class Answer:
    """Messages to send, after ``delay`` seconds, then trailing metadata or a failure."""

    messages: Sequence[Any]
    trailing: Pairs = ()
    fail: Fail | None = None
    delay: float = 0.0


Stream = Callable[[Iterator[Any], grpc.ServicerContext], Iterable[Any]]
"""Requests and context -> responses, for what cannot be told beforehand."""

Script = Any
"""A message, a list of them, a ``Fail``, an ``Answer`` or a ``Stream``."""


@dataclass
class Seen:
    """A call as it arrived."""

    method: str
    metadata: dict[str, str]
    seconds_left: float
    at: float
    requests: list[Any] = field(default_factory=list)

    @property
    def request(self) -> Any:
        (request,) = self.requests
        return request


def reply(method: str, **fields: Any) -> Any:
    """A response of the method's type with status SUCCESS."""
    return refuse(method, SUCCESS, **fields)


def refuse(method: str, code: int, description: str = "", details: str = "", **fields: Any) -> Any:
    """A response of the method's type with this V2 status."""
    status = v2.Status(code=code, description=description, details=details)  # type: ignore[arg-type]
    return methods.lookup(method).response_class()(status=status, **fields)


def when_ended(context: grpc.ServicerContext, function: Callable[[], None]) -> None:
    """Call a function when the call ends, or now where it has ended before its handler began."""
    if not context.add_callback(function):
        function()


class ScriptedServer:
    """The server. ``seen`` has every call in the order of arrival."""

    def __init__(
        self,
        credentials: grpc.ServerCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        workers: int = 40,
        port: int = 0,
    ) -> None:
        self.seen: list[Seen] = []
        self.unexpected: list[str] = []
        self._scripts: dict[str, deque[Script]] = defaultdict(deque)
        self._always: dict[str, Script] = {}
        self._others: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(workers, thread_name_prefix=THREADS)
        self._server = grpc.server(
            self._pool,
            handlers=[_Handlers(self)],
            options=[("grpc.so_reuseport", 0), *options],
        )
        if credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        scheme = "http" if credentials is None else "https"
        self.base = f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> ScriptedServer:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what runs and stop."""
        self._server.stop(None).wait()
        self._pool.shutdown(wait=True)

    def on(self, method: str, *scripts: Script) -> None:
        """Answer the next calls of a method, one after the other."""
        self._scripts[method].extend(scripts)

    def always(self, method: str, script: Script) -> None:
        """Answer every call of a method for which there is no ``on`` left."""
        self._always[method] = script

    def other(self, path: str, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        """Serve a method that is none of V2."""
        self._others[path] = handler

    def calls(self, method: str) -> list[Seen]:
        """The calls of one method that arrived."""
        return [seen for seen in self.seen if seen.method == method]

    def check(self) -> None:
        """Fail if somebody asked for what was not scripted, or did not ask for what was."""
        assert not self.unexpected, f"nobody expected {self.unexpected}"
        left = {method: len(scripts) for method, scripts in self._scripts.items() if scripts}
        assert not left, f"calls that did not come: {left}"

    def handler(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, by its path."""
        path = str(details.method)
        if path in self._others:
            return self._others[path]
        service, _, name = path.rpartition("/")
        if service != f"/{methods.SERVICE}" or name not in methods.names():
            self.unexpected.append(path)
            return None
        row = methods.lookup(name)
        decode = row.request_class().FromString
        if row.response_streaming:

            def respond_many(request: Any, context: Any) -> Iterator[bytes]:
                return self._respond(row, request, context)

            make = (
                grpc.stream_stream_rpc_method_handler
                if row.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(respond_many, request_deserializer=decode)

        def respond_one(request: Any, context: Any) -> bytes:
            return list(self._respond(row, request, context))[-1]

        return grpc.unary_unary_rpc_method_handler(respond_one, request_deserializer=decode)

    def _respond(
        self, row: methods.Method, request: Any, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        seen = Seen(
            row.name,
            {key: str(value) for key, value in context.invocation_metadata()},
            context.time_remaining(),
            time.monotonic(),
        )
        requests = _recorded(request if row.request_streaming else iter([request]), seen.requests)
        with self._lock:
            self.seen.append(seen)
            scripts = self._scripts[row.name]
            script = scripts.popleft() if scripts else self._always.get(row.name)
        if script is None:
            self.unexpected.append(row.name)
            context.abort(grpc.StatusCode.UNKNOWN, f"nobody expected {row.name}")
        if callable(script):
            answers = script(requests, context)
        else:
            list(requests)
            answers = _play(script, context)
        for answer in answers:
            if isinstance(answer, Fail):
                context.set_trailing_metadata(tuple(answer.trailing))
                context.abort(answer.code, answer.details)
            yield answer.SerializeToString()


def _recorded(requests: Iterator[Any], into: list[Any]) -> Iterator[Any]:
    for request in requests:
        into.append(request)
        yield request


def _play(script: Script, context: grpc.ServicerContext) -> Iterator[Any]:
    if isinstance(script, Fail):
        script = Answer((), fail=script)
    elif not isinstance(script, Answer):
        script = Answer(script if isinstance(script, list) else [script])
    end = time.monotonic() + script.delay
    while context.is_active() and time.monotonic() < end:
        time.sleep(0.005)
    yield from script.messages
    context.set_trailing_metadata(tuple(script.trailing))
    if script.fail is not None:
        yield script.fail


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        return self._server.handler(handler_call_details)
