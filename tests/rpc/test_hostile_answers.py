"""Whatever a server or proxy answers ends in an exception of clarigrpc."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarigrpc import Client, RetryPolicy, errors, image, text, v2
from tests.both import Both
from tests.conftest import PAT, Connect

ONCE = RetryPolicy(max_attempts=1)
OK = v2.Status(code=v2.StatusCode.SUCCESS)
quick = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Bytes(grpc.GenericRpcHandler):
    """Answers every unary call and every stream with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""

    def service(self, details: Any) -> Any:
        if details.method.rpartition("/")[2] in ("GenerateModelOutputs", "StreamModelOutputs"):
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: iter([self.answer])
            )
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.answer)


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[Bytes, str]]:
    handler = Bytes()
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"http://127.0.0.1:{port}"
    server.stop(None)


def ends_well(error: errors.ApiError, method: str = "") -> None:
    assert error.method
    assert error.request_id
    assert method in ("", error.method)
    assert len(str(error)) < 20_000


def predict(client: Client) -> Any:
    return client.model("m").predict(text("x"))


def generate(client: Client) -> Any:
    return list(client.model("m").generate(text("x")))


WORK: list[Callable[[Client], Any]] = [
    predict,
    generate,
    lambda client: client.model("m").methods(),
    lambda client: client.model("m").predict([text("x"), text("y")]),
    lambda client: client.concepts.create("x"),
    lambda client: client.concepts.get("x"),
    lambda client: client.concepts.create_many(["x", "y"]),
    lambda client: client.models.rename("a", "b"),
    lambda client: client.inputs.create(text("x")),
    lambda client: client.inputs.get("x"),
    lambda client: client.workflows.predict("w", text("x")),
    lambda client: client.datasets.get("d"),
    lambda client: list(client.inputs.list(per_page=2)),
    lambda client: client.uploads.upload(b"content"),
]


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff",
        b"",
        v2.MultiConceptResponse(status=OK).SerializeToString(),
        v2.MultiOutputResponse(status=OK, outputs=[v2.Output(status=OK)]).SerializeToString(),
    ],
    ids=["no message", "nothing", "success and nothing", "an empty output"],
)
def test_answers_that_are_none(raw: tuple[Bytes, str], answer: bytes, work: Any) -> None:
    handler, base = raw
    handler.answer = answer
    with Client(base=base, pat=PAT, user_id="u", app_id="a", retry=ONCE, timeout=5) as client:
        try:
            work(client)
        except errors.ApiError as error:
            failure = error
        else:
            return  # a list without items, an output without data
    assert failure.method


async def test_bytes_that_are_no_message(connect: Connect, raw: tuple[Bytes, str]) -> None:
    handler, base = raw
    handler.answer = b"\xff\xff\xff"
    both = connect(base, retry=ONCE)
    model = both.client.model("m", user_id="u", app_id="a")
    with pytest.raises(errors.InternalError, match="cannot be parsed") as unary:
        await both.run(model.predict, text("x"))
    ends_well(unary.value, "PostModelOutputs")
    with pytest.raises(errors.InternalError, match="cannot be parsed") as stream:
        await both.collect(model.generate(text("x")))
    ends_well(stream.value, "GenerateModelOutputs")


@quick
@given(answer=st.binary(max_size=60), work=st.sampled_from(WORK))
def test_any_bytes(raw: tuple[Bytes, str], answer: bytes, work: Any) -> None:
    handler, base = raw
    handler.answer = answer
    with Client(base=base, pat=PAT, user_id="u", app_id="a", retry=ONCE, timeout=5) as client:
        try:
            work(client)
        except errors.ClarigrpcError as error:
            assert isinstance(error, errors.ApiError)  # noqa: PT017 - others may succeed


class Web:
    """An HTTP server that answers every request the same."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[str, str]] = []
        self.body = b"{}"
        self.asked: list[float] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                web.asked.append(time.monotonic())
                self.send_response(web.status)
                for name, value in (*web.headers, ("content-length", str(len(web.body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(web.body)

            do_GET = do_PATCH = do_DELETE = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()
        thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as running:
        yield running


def over_rest(connect: Connect, web: Web, **options: Any) -> Both:
    options = {"retry": ONCE, "timeout": 5, "user_id": "u", "app_id": "a", **options}
    return connect(web.base, transport="rest", **options)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (301, errors.ApiError, "elsewhere"),
        (302, errors.ApiError, "elsewhere"),
        (307, errors.ApiError, "elsewhere"),
        (308, errors.ApiError, "elsewhere"),
        (413, errors.InvalidArgumentError, "too large"),
        (429, errors.RateLimitError, "429"),
        (502, errors.UnavailableError, "502"),
    ],
)
async def test_pages_of_proxies(
    connect: Connect, web: Web, status: int, kind: type[errors.ApiError], words: str
) -> None:
    web.status, web.body = status, b"<html>from the proxy</html>"
    web.headers = [("location", "https://elsewhere.example/v2")]
    both = over_rest(connect, web)
    with pytest.raises(kind, match=words) as found:
        await both.run(both.client.inputs.create, image(b"x" * 100))
    ends_well(found.value, "PostInputs")


ODD_HEADERS = [
    [("x-trace-bin", "a")],
    [("grpc-status", "9" * 5000)],
    [("grpc-status", "-1")],
    [("retry-after", "soon")],
    [("content-encoding", "gzip, gzip")],
    [("content-encoding", "br")],
    [("content-encoding", "gzip")],
    [("content-type", "application/x-ndjson")],
]
ODD_BODIES = [
    b'{"status":{"code":10000}}',
    b'{"status":{"code":[]}}',
    b'{"status":[]}',
    b'{"status":{"code":' + b"9" * 5000 + b"}}",
    b'{"inputs":{"id":"x"},"status":{"code":10000}}',
    b'{"error":{"code":[],"message":"x"}}\n',
    b'{"result":[]}\n',
    b'{"error":[]}\n',
    b"[" * 100_000,
    b"\xff\xfe",
    b"null",
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
@pytest.mark.parametrize("headers", ODD_HEADERS, ids=range(len(ODD_HEADERS)))
async def test_odd_answers_over_http(
    connect: Connect, web: Web, headers: list[tuple[str, str]], body: bytes
) -> None:
    web.headers, web.body = headers, body
    both = over_rest(connect, web)
    model = both.client.model("m")
    works: list[Callable[[], Any]] = [
        lambda: both.run(both.client.inputs.status),
        lambda: both.run(model.predict, text("x")),
        lambda: both.collect(model.generate(text("x"))),
    ]
    for work in works:
        try:
            await work()
        except errors.ClarigrpcError as error:
            assert isinstance(error, errors.ApiError)  # noqa: PT017 - some of them are fine


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_compressed_response(connect: Connect, web: Web, pack: Any) -> None:
    web.headers = [("content-encoding", "gzip" if pack is gzip.compress else "deflate")]
    web.body = pack(json.dumps({"status": {"code": 10000}, "counts": {"processed": 7}}).encode())
    both = over_rest(connect, web)
    assert (await both.run(both.client.inputs.status)).processed == 7


@pytest.mark.measures
async def test_a_response_that_unfolds_without_end(connect: Connect, web: Web) -> None:
    web.headers = [("content-encoding", "gzip")]
    web.body = gzip.compress(bytes(400 << 20), 9)
    both = over_rest(connect, web, max_message_bytes=8 << 20, timeout=60)
    began = time.monotonic()
    with pytest.raises(errors.ApiError, match=r"max_message_bytes|larger than max"):
        await both.run(both.client.inputs.status)
    assert time.monotonic() - began < 10


async def test_a_date_to_wait_for(connect: Connect, web: Web) -> None:
    web.status, web.body = 429, b'{"status":{"code":11005,"description":"Throttled"}}'
    web.headers = [("retry-after", formatdate(time.time() + 3, usegmt=True))]
    both = over_rest(connect, web, retry=RetryPolicy(), timeout=4)
    # The deadline may also pass in an attempt after the wait.
    with pytest.raises((errors.RateLimitError, errors.DeadlineExceededError)) as found:
        await both.run(both.client.inputs.status)
    if isinstance(found.value, errors.RateLimitError):
        assert found.value.retry_after is not None
        assert found.value.retry_after < 3.1
    if len(web.asked) > 1:
        assert web.asked[1] - web.asked[0] > 1.5


async def test_metadata_beyond_the_limit_is_sent_once(connect: Connect) -> None:
    from clarigrpc.local import LocalServer

    with LocalServer() as server:
        both = connect(server.base, pat=server.pat)
        with pytest.raises(errors.InvalidArgumentError, match="metadata") as found:
            await both.call(
                "GetInputCount", v2.GetInputCountRequest(), metadata=[("x-token", "a" * 17_000)]
            )
    assert not found.value.retryable
    assert found.value.attempts == ()
