"""gRPC over HTTP/2 in Rust: ``pyqwest`` by itself, and ``connectrpc``, the RPC library above it.

The bare calls send what a call of the service needs: credential, request id, deadline, framing, a
check of the length before a message is kept, and of the status in the trailers. The messages are
those of the published stub.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import repeat
from queue import SimpleQueue
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from google.protobuf import json_format
from protocol import Config, Variant, awaiting, blocking, counting, serve
from pyqwest import (
    Client,
    Headers,
    HTTPTransport,
    HTTPVersion,
    SyncClient,
    SyncHTTPTransport,
    SyncRequest,
)
from pyqwest import Request as AsyncRequest

TIMEOUT = 60.0
LARGEST = 256 << 20
SERVICE = "clarifai.api.V2"


def _options(config: Config) -> dict[str, Any]:
    return {
        "http_version": HTTPVersion.HTTP2,
        "tls_ca_cert": config.certificate(),
        "timeout": TIMEOUT,
        # What a call of gRPC does not use.
        "enable_gzip": False,
        "enable_brotli": False,
        "enable_zstd": False,
        "enable_otel": False,
        "follow_redirects": False,
    }


def _request(config: Config) -> Any:
    """A request; an image is set in place, as large bytes should be."""
    place = config.server
    request = service_pb2.PostModelOutputsRequest(
        user_app_id=resources_pb2.UserAppIDSet(user_id=place["user_id"], app_id=place["app_id"]),
        model_id=place["model_id"],
    )
    data = request.inputs.add().data
    if config.payload:
        data.image.base64 = config.payload
    else:
        data.text.raw = config.text
    return request


def _fields(output: Any) -> dict[str, Any]:
    return json_format.MessageToDict(output.data, preserving_proto_field_name=True)


def _headers_of(config: Config) -> Callable[[], Headers]:
    """Headers of one call after the other."""
    count = itertools.count(1)

    def headers() -> Headers:
        return Headers(
            {
                "content-type": "application/grpc",
                "te": "trailers",
                "grpc-timeout": f"{TIMEOUT * 1000:.0f}m",
                "authorization": f"Key {config.server['pat']}",
                "x-clarifai-request-id-prefix": f"0123456789ab-{next(count):x}",
            }
        )

    return headers


def _url(config: Config, method: str) -> str:
    return f"{config.base}/{SERVICE}/{method}"


def _framed(request: Any) -> bytes:
    content: bytes = request.SerializeToString()
    return b"\0" + len(content).to_bytes(4, "big") + content


class _Messages:
    """Takes chunks of a response's body apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Any]:
        buffer = self._buffer
        buffer += chunk
        start, end = 0, len(buffer)
        while end - start >= 5:
            length = int.from_bytes(buffer[start + 1 : start + 5], "big")
            if buffer[start] or length > LARGEST:
                raise RuntimeError("a compressed or too long message")
            if end - start < 5 + length:
                break
            with memoryview(buffer)[start + 5 : start + 5 + length] as message:
                yield service_pb2.MultiOutputResponse.FromString(message.tobytes())
            start += 5 + length
        del buffer[:start]


def _check(response: Any) -> None:
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}")
    status = response.trailers.get("grpc-status") or response.headers.get("grpc-status")
    if status != "0":
        raise RuntimeError(f"gRPC status {status}: {response.trailers.get('grpc-message')}")


def _only(response: Any, chunks: list[bytes]) -> Any:
    """The message of a call with one response."""
    _check(response)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    length = int.from_bytes(body[1:5], "big")
    if body[0] or length > LARGEST or len(body) != 5 + length:
        raise RuntimeError("not one plain message")
    return service_pb2.MultiOutputResponse.FromString(bytes(body[5:]))


def _post(config: Config) -> Callable[[], Any]:
    transport, headers = SyncHTTPTransport(**_options(config)), _headers_of(config)
    url = _url(config, "PostModelOutputs")

    def call() -> Any:
        request = SyncRequest("POST", url, headers(), _framed(_request(config)))
        response = transport.execute_sync(request)
        return _only(response, list(response.content))

    return call


def predict(config: Config) -> Variant:
    """One call after the other. Nothing can end such a call before its deadline."""
    call = _post(config)
    return Variant(_fields(call().outputs[0]), blocking(call))


def cancellable(config: Config) -> Variant:
    """The same on a thread of its own, so that the caller can stop waiting (Ctrl-C, cancel)."""
    call = _post(config)
    asked: SimpleQueue[Any] = SimpleQueue()
    answered: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        while asked.get():
            try:
                answered.put((call(), None))
            except Exception as error:  # noqa: BLE001 - raised where the answer is waited for
                answered.put((None, error))

    threading.Thread(target=work, daemon=True).start()

    def handed_over() -> Any:
        asked.put(True)
        answer, error = answered.get()
        if error is not None:
            raise error
        return answer

    return Variant(_fields(handed_over().outputs[0]), blocking(handed_over))


def identity(config: Config) -> Variant:
    """The limit: the same bytes, and no protobuf."""
    transport, headers = SyncHTTPTransport(**_options(config)), _headers_of(config)
    url, body = _url(config, "PostModelOutputs"), _framed(_request(config))

    def call() -> bytes:
        response = transport.execute_sync(SyncRequest("POST", url, headers(), body))
        chunks = list(response.content)
        _check(response)
        return b"".join(chunks)

    answer = service_pb2.MultiOutputResponse.FromString(call()[5:])
    return Variant(_fields(answer.outputs[0]), blocking(call))


def apredict(config: Config) -> Variant:
    """asyncio."""
    runner = asyncio.Runner()
    headers, url = _headers_of(config), _url(config, "PostModelOutputs")

    async def open_transport() -> HTTPTransport:
        return HTTPTransport(**_options(config))

    transport = runner.run(open_transport())

    async def call() -> Any:
        request = AsyncRequest("POST", url, headers(), _framed(_request(config)))
        async with asyncio.timeout(TIMEOUT):
            response = await transport.execute(request)
            return _only(response, [chunk async for chunk in response.content])

    return Variant(_fields(runner.run(call()).outputs[0]), awaiting(runner, call))


def _reading(tokens: Callable[[], Iterator[Any]]) -> Variant:
    """Reads one stream after the other, a token at a time."""

    def items(count: int, in_flight: int) -> int:
        done = 0
        while done < count:
            for response in tokens():
                done += bool(response.outputs[0].data.text.raw)
        return done

    return Variant(_fields(next(tokens()).outputs[0]), counting(items))


def generate(config: Config) -> Variant:
    """Tokens of a server stream."""
    transport, headers = SyncHTTPTransport(**_options(config)), _headers_of(config)
    url = _url(config, "GenerateModelOutputs")
    body = _framed(_request(config))

    def tokens() -> Iterator[Any]:
        response = transport.execute_sync(SyncRequest("POST", url, headers(), body))
        messages = _Messages()
        for chunk in response.content:
            yield from messages.feed(chunk)
        _check(response)

    return _reading(tokens)


def agenerate(config: Config) -> Variant:
    """Tokens of a server stream, asyncio."""
    runner = asyncio.Runner()
    headers, url = _headers_of(config), _url(config, "GenerateModelOutputs")
    body = _framed(_request(config))

    async def open_transport() -> HTTPTransport:
        return HTTPTransport(**_options(config))

    transport = runner.run(open_transport())

    async def tokens() -> AsyncIterator[Any]:
        response = await transport.execute(AsyncRequest("POST", url, headers(), body))
        messages = _Messages()
        async for chunk in response.content:
            for message in messages.feed(chunk):
                yield message
        _check(response)

    async def read(count: int) -> int:
        done = 0
        while done < count:
            async with asyncio.timeout(TIMEOUT):
                async for response in tokens():
                    done += bool(response.outputs[0].data.text.raw)
        return done

    async def first() -> Any:
        found = tokens()
        try:
            return await anext(found)
        finally:
            await found.aclose()  # type: ignore[attr-defined]

    def items(count: int, in_flight: int) -> int:
        return runner.run(read(count))

    return Variant(_fields(runner.run(first()).outputs[0]), counting(items))


def stream(config: Config) -> Variant:
    """Outputs of a stream in both directions; a queue bounds what is unanswered."""
    transport, headers = SyncHTTPTransport(**_options(config)), _headers_of(config)
    url = _url(config, "StreamModelOutputs")

    def outputs(requests: Iterator[bytes]) -> Iterator[Any]:
        response = transport.execute_sync(SyncRequest("POST", url, headers(), requests))
        messages = _Messages()
        for chunk in response.content:
            yield from messages.feed(chunk)
        _check(response)

    def items(inputs: int, in_flight: int) -> int:
        free: SimpleQueue[None] = SimpleQueue()
        for _ in range(in_flight):
            free.put(None)

        def requests() -> Iterator[bytes]:
            for _ in repeat(None, inputs):
                free.get()
                yield _framed(_request(config))

        count = 0
        for response in outputs(requests()):
            free.put(None)
            count += len(response.outputs)
        return count

    (first,) = outputs(iter([_framed(_request(config))]))
    return Variant(_fields(first.outputs[0]), counting(items))


def _connect(config: Config, method: str, kind: str) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """Options of a client, the method and the headers for ``connectrpc``."""
    from connectrpc.compat import google_protobuf_binary_codec
    from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
    from connectrpc.protocol import ProtocolType

    options = {
        "codec": google_protobuf_binary_codec(),
        "protocol": ProtocolType.GRPC,
        "accept_compression": (),
        "send_compression": None,
        "timeout_ms": int(TIMEOUT * 1000),
        "read_max_bytes": LARGEST,
    }
    info: Any = MethodInfo(
        name=method,
        service_name=SERVICE,
        input=service_pb2.PostModelOutputsRequest,
        output=service_pb2.MultiOutputResponse,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType[kind],
    )
    return options, info, {"authorization": f"Key {config.server['pat']}"}


def _connect_client(config: Config, options: dict[str, Any]) -> Any:
    from connectrpc.client import ConnectClientSync

    http = SyncClient(SyncHTTPTransport(**_options(config)))
    return ConnectClientSync(config.base, http_client=http, **options)


def connect_predict(config: Config) -> Variant:
    """connectrpc, one call after the other."""
    options, info, headers = _connect(config, "PostModelOutputs", "UNARY")
    client = _connect_client(config, options)

    def call() -> Any:
        return client.execute_unary(request=_request(config), method=info, headers=headers)

    return Variant(_fields(call().outputs[0]), blocking(call))


def connect_apredict(config: Config) -> Variant:
    """connectrpc, asyncio."""
    from connectrpc.client import ConnectClient

    runner = asyncio.Runner()
    options, info, headers = _connect(config, "PostModelOutputs", "UNARY")

    async def open_client() -> Any:
        http = Client(HTTPTransport(**_options(config)))
        return ConnectClient(config.base, http_client=http, **options)

    client = runner.run(open_client())

    async def call() -> Any:
        return await client.execute_unary(request=_request(config), method=info, headers=headers)

    return Variant(_fields(runner.run(call()).outputs[0]), awaiting(runner, call))


def connect_generate(config: Config) -> Variant:
    """connectrpc, tokens of a server stream."""
    options, info, headers = _connect(config, "GenerateModelOutputs", "SERVER_STREAM")
    client, request = _connect_client(config, options), _request(config)

    def tokens() -> Iterator[Any]:
        found: Iterator[Any] = client.execute_server_stream(
            request=request, method=info, headers=headers
        )
        return found

    return _reading(tokens)


VARIANTS = {
    "predict": predict,
    "cancellable": cancellable,
    "identity": identity,
    "apredict": apredict,
    "generate": generate,
    "agenerate": agenerate,
    "stream": stream,
    "connect_predict": connect_predict,
    "connect_apredict": connect_apredict,
    "connect_generate": connect_generate,
}

if __name__ == "__main__":
    serve(VARIANTS, ("pyqwest", "connectrpc", "clarifai-grpc", "protobuf"))
