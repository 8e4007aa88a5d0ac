"""The REST front: addresses, bodies, statuses, streams, limits, and its life."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._rpc import statuses
from clarigrpc._rpc.statuses import StatusKind
from clarigrpc._transports import transcoding
from clarigrpc.local.fronts.rest_front import RestFront
from clarigrpc.local.fronts.rest_gateway import parse_timeout
from clarigrpc.local.service_errors import HTTP_STATUSES, http_status
from clarigrpc.v2 import _index
from tests.backend import Backend, abort, outputs, respond

KEY = {"authorization": "Key some-pat"}
GENERATE = "/v2/users/u/apps/a/models/m/outputs/generate"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Backend, httpx.Client]]:
    backend = Backend()
    front = RestFront(backend, max_body_bytes=1 << 20)
    front.start()
    with httpx.Client(base_url=front.base, trust_env=False, timeout=10) as client:
        yield backend, client
    front.close()


@pytest.fixture
def backend(served: tuple[Backend, httpx.Client]) -> Backend:
    served[0].reset()
    return served[0]


@pytest.fixture
def http(backend: Backend, served: tuple[Backend, httpx.Client]) -> httpx.Client:
    return served[1]


def status_of(response: httpx.Response) -> tuple[int, int]:
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.json()["status"]["code"]


def test_every_address_reaches_its_method(backend: Backend, http: httpx.Client) -> None:
    router = transcoding.router()
    for name in methods.names():
        row = methods.lookup(name)
        for binding in transcoding.bindings(name):
            if router.match(binding.verb, binding.template) is not binding:
                continue
            path = binding.template.replace("{", "").replace("}", "")
            response = http.request(binding.verb, path)
            assert response.status_code == 200, (name, response.text)
            request, call = backend.calls[-1]
            assert call.method == name
            assert type(request) is row.request_class()
            for variable in binding.variables:
                value: Any = request
                for field in variable:
                    value = getattr(value, field)
                assert value == ".".join(variable)


def test_a_stream_of_requests_is_a_line_each(backend: Backend, http: httpx.Client) -> None:
    path = next(b for b in transcoding.bindings("PostModelVersionsUpload") if b.verb == "POST")
    template = path.template.replace("{", "").replace("}", "")
    parts = [{"content_part": {"part_number": number}} for number in (1, 2)]
    responses = [v2.PostModelVersionsUploadResponse(model_version_id=name) for name in "ab"]
    backend.handlers["PostModelVersionsUpload"] = lambda request, call: iter(responses)
    body = "\n".join(json.dumps(part) for part in parts)
    response = http.post(template, content=body)
    assert [call[0].content_part.part_number for call in backend.calls] == [1, 2]
    lines = [json.loads(line)["result"] for line in response.text.splitlines()]
    assert [line["model_version_id"] for line in lines] == ["a", "b"]
    backend.calls.clear()
    http.post(template, content=json.dumps(parts[0], indent=1))
    assert [call[0].content_part.part_number for call in backend.calls] == [1]
    refused = http.post(template, content=body + "\n{")
    assert status_of(refused) == (400, v2.StatusCode.CONN_BAD_REQUEST_FORMAT)


def test_methods_that_are_missing_answer_501(backend: Backend, http: httpx.Client) -> None:
    backend.missing.update(_index.METHODS)
    for target in ("/v2/apps", GENERATE.replace("/generate", "")):
        response = http.request("GET" if target == "/v2/apps" else "POST", target)
        assert status_of(response) == (501, v2.StatusCode.NOT_IMPLEMENTED)
        assert response.headers["grpc-status"] == "12"
    assert backend.calls == []


def test_metadata_and_deadline(backend: Backend, http: httpx.Client) -> None:
    http.get("/v2/apps", headers={**KEY, "grpc-timeout": "1500m", "X-Mixed-Case": "Value"})
    _, call = backend.calls[-1]
    assert call.metadata["authorization"] == "Key some-pat"
    assert call.metadata["x-mixed-case"] == "Value"
    remaining = call.remaining()
    assert remaining is not None
    assert remaining < 1.5
    http.get("/v2/apps")
    assert backend.calls[-1][1].remaining() is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2H", 7200), ("3M", 180), ("5S", 5), ("250m", 0.25), ("7u", 7e-6), ("9n", 9e-9)],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert parse_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "S", "-1S", "1s", "123456789S", "1.5S"])
def test_malformed_timeouts_are_none(text: str) -> None:
    assert parse_timeout(text) is None


def test_every_kind_and_every_code_has_an_http_status() -> None:
    assert set(HTTP_STATUSES) == set(StatusKind)
    for value in v2.StatusCode.DESCRIPTOR.values:
        status = http_status(value.number)
        passing = statuses.kind_of(value.number) in (
            StatusKind.SUCCESS,
            StatusKind.PENDING,
            StatusKind.PARTIAL,
        )
        assert (200 <= status < 300) == passing, value.name
    assert http_status(123456789) == 500


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (v2.StatusCode.SUCCESS, 200),
        (v2.StatusCode.ACCEPTED, 202),
        (v2.StatusCode.MIXED_STATUS, 200),
        (v2.StatusCode.FAILURE, 400),
        (v2.StatusCode.CONN_KEY_INVALID, 401),
        (v2.StatusCode.CONN_INSUFFICIENT_SCOPES, 403),
        (v2.StatusCode.MODEL_DOES_NOT_EXIST, 404),
        (v2.StatusCode.INPUT_DUPLICATE, 409),
        (v2.StatusCode.CONN_THROTTLED, 429),
        (v2.StatusCode.MODEL_DEPLOYING, 503),
        (v2.StatusCode.INTERNAL_UNCATEGORIZED, 500),
    ],
)
def test_the_v2_status_decides_the_http_status(
    backend: Backend, http: httpx.Client, code: Any, status: int
) -> None:
    backend.handlers["ListModels"] = respond("ListModels", code)
    response = http.get("/v2/models")
    assert status_of(response) == (status, code)
    assert response.json() == {"status": {"code": code, "description": "as told"}, "models": []}


def test_throttled_calls_say_how_long_to_wait(backend: Backend, http: httpx.Client) -> None:
    throttled = v2.StatusCode.CONN_THROTTLED
    backend.handlers["ListModels"] = respond("ListModels", throttled, retry_after="1.5")
    response = http.get("/v2/models")
    assert response.status_code == 429
    assert response.headers["x-throttle-wait-seconds"] == "1.5"
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("code", "status", "number"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "14"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "4"),
        (grpc.StatusCode.CANCELLED, 499, "1"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "8"),
        (grpc.StatusCode.DATA_LOSS, 500, "15"),
    ],
)
def test_aborted_calls(
    backend: Backend, http: httpx.Client, code: grpc.StatusCode, status: int, number: str
) -> None:
    backend.handlers["ListModels"] = abort(code)
    response = http.get("/v2/models")
    assert response.status_code == status
    assert response.headers["grpc-status"] == number
    body = response.json()["status"]
    assert body["details"] == "as told"
    assert statuses.kind_of(body["code"]) is statuses.kind_of_grpc(code)


def test_a_handler_that_fails_tells_the_log_and_not_the_caller(
    backend: Backend, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Any, call: Any) -> Any:
        raise RuntimeError("something private")

    backend.handlers["ListModels"] = fail
    response = http.get("/v2/models")
    assert status_of(response) == (500, v2.StatusCode.INTERNAL_UNCATEGORIZED)
    assert "private" not in response.text
    assert "something private" in caplog.text


@pytest.mark.parametrize("path", ["/", "/v2", "/v2/inputs/", "/nope", "/v2/inputs/a/b/c", "//v2"])
def test_unknown_paths(http: httpx.Client, path: str) -> None:
    assert status_of(http.get(path)) == (404, v2.StatusCode.CONN_DOES_NOT_EXIST)


@pytest.mark.parametrize("verb", ["PUT", "OPTIONS", "TRACE", "HELLO"])
def test_wrong_verbs(http: httpx.Client, verb: str) -> None:
    response = http.request(verb, "/v2/inputs")
    assert status_of(response) == (405, v2.StatusCode.CONN_METHOD_NOT_ALLOWED)
    assert response.headers["allow"] == "DELETE, GET, PATCH, POST"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "object"),
        (b'{"input": []}', 'no field named "input"'),
        (b'{"inputs": [{"data": {"image": {"base64": "data:image/png"}}}]}', "not base64"),
    ],
)
def test_malformed_bodies(http: httpx.Client, content: bytes, reason: str) -> None:
    response = http.post("/v2/inputs", content=content)
    assert status_of(response) == (400, v2.StatusCode.CONN_BAD_REQUEST_FORMAT)
    assert reason in response.json()["status"]["details"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "data", "image", "base64", "concepts", "value", "metadata", "id"]
            )
            | st.text(),
            inner,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary() | JSON.map(lambda tree: json.dumps(tree).encode()), query=st.binary())
def test_nothing_that_is_sent_breaks_the_front(
    backend: Backend, http: httpx.Client, body: bytes, query: bytes
) -> None:
    text = quote_from_bytes(query, safe="=&%+")
    for verb, path in (("POST", "/v2/inputs"), ("GET", f"/v2/models?{text}")):
        response = http.request(verb, path, content=body)
        assert response.status_code in (200, 400)
        assert response.json()["status"]["code"] in (10000, 11100)


def test_ids_may_have_any_character(backend: Backend, http: httpx.Client) -> None:
    http.get("/v2/inputs/a%2Fb%20%C3%BC%3F")
    assert backend.calls[-1][0].input_id == "a/b ü?"
    assert http.get("/v2/inputs/%FF").status_code == 400


def test_bodies_are_limited(backend: Backend, http: httpx.Client) -> None:
    fits = json.dumps({"inputs": [{"id": "x" * 1_000_000}]})
    assert http.post("/v2/inputs", content=fits).status_code == 200
    response = http.post("/v2/inputs", content=fits + " " * 100_000)
    assert status_of(response) == (413, v2.StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED)
    # Chunked, without a length that could be looked at first.
    chunks = iter([b" " * 500_000] * 10)
    assert http.post("/v2/inputs", content=chunks).status_code == 413
    assert len(backend.calls) == 1


def test_connections_are_kept(http: httpx.Client) -> None:
    ports = set()
    for _ in range(5):
        with http.stream("GET", "/v2/models") as response:
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr")[1])
            response.read()
    assert len(ports) == 1


def test_streams_are_lines(backend: Backend, http: httpx.Client) -> None:
    backend.handlers["GenerateModelOutputs"] = lambda request, call: outputs(50)
    with http.stream("POST", GENERATE, json={"inputs": [{}]}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = response.read().split(b"\n")
    assert lines.pop() == b""
    texts = [json.loads(line)["result"]["outputs"][0]["data"]["text"]["raw"] for line in lines]
    assert texts == [f"{number}\u2028\u0085" for number in range(50)]


def test_each_message_of_a_stream_is_sent_at_once(backend: Backend, http: httpx.Client) -> None:
    go_on = threading.Event()

    def slowly(request: Any, call: Any) -> Iterator[Any]:
        yield from outputs(1)
        assert go_on.wait(10)
        yield from outputs(1)

    backend.handlers["GenerateModelOutputs"] = slowly
    with http.stream("POST", GENERATE) as response:
        chunks = response.iter_raw()
        assert json.loads(next(chunks))["result"]["status"]["code"] == 10000
        go_on.set()
        assert json.loads(next(chunks))["result"]["status"]["code"] == 10000


def test_a_stream_that_fails_at_once(backend: Backend, http: httpx.Client) -> None:
    backend.handlers["GenerateModelOutputs"] = lambda request, call: iter(
        [respond("GenerateModelOutputs", v2.StatusCode.MODEL_DOES_NOT_EXIST)(request, call)]
    )
    assert http.post(GENERATE).status_code == 404
    backend.handlers["GenerateModelOutputs"] = abort(grpc.StatusCode.UNAVAILABLE)
    response = http.post(GENERATE)
    assert status_of(response) == (503, v2.StatusCode.RPC_SERVER_UNAVAILABLE)
    assert response.headers["grpc-status"] == "14"


def test_a_stream_that_breaks(backend: Backend, http: httpx.Client) -> None:
    def broken(request: Any, call: Any) -> Iterator[Any]:
        yield from outputs(2)
        abort(grpc.StatusCode.UNAVAILABLE)(request, call)

    backend.handlers["GenerateModelOutputs"] = broken
    *good, last = [json.loads(line) for line in http.post(GENERATE).content.splitlines()]
    assert len(good) == 2
    assert last == {"error": {"code": 14, "message": "as told"}}


def test_an_empty_stream(http: httpx.Client) -> None:
    response = http.post(GENERATE)
    assert (response.status_code, response.content) == (200, b"")


def test_a_client_that_goes_away_ends_its_stream(backend: Backend, http: httpx.Client) -> None:
    ended = threading.Event()

    def endless(request: Any, call: Any) -> Iterator[Any]:
        try:
            while call.is_active():
                yield from outputs(1)
        finally:
            ended.set()

    backend.handlers["GenerateModelOutputs"] = endless
    with http.stream("POST", GENERATE) as response:
        next(response.iter_raw())
    assert ended.wait(10)


def test_a_client_that_goes_away_is_seen_by_a_unary_handler(
    backend: Backend, http: httpx.Client
) -> None:
    running, gone = threading.Event(), threading.Event()

    def wait(request: Any, call: Any) -> Any:
        running.set()
        while call.is_active():
            time.sleep(0.01)
        gone.set()
        return respond("ListModels", v2.StatusCode.SUCCESS)(request, call)

    backend.handlers["ListModels"] = wait
    address = (http.base_url.host, http.base_url.port or 0)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /v2/models HTTP/1.1\r\nhost: x\r\n\r\n")
        assert running.wait(10)
    assert gone.wait(10)


def test_a_client_that_stops_reading_holds_back_the_stream(
    backend: Backend, http: httpx.Client
) -> None:
    made = 0

    def large(request: Any, call: Any) -> Iterator[Any]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield v2.MultiOutputResponse(outputs=[v2.Output(id="x" * 100_000)])

    backend.handlers["GenerateModelOutputs"] = large
    with http.stream("POST", GENERATE) as response:
        time.sleep(0.5)
        assert made < 500
        response.read()
    assert made == 1000


async def test_many_calls_run_at_once(backend: Backend) -> None:
    together = threading.Barrier(16)

    def meet(request: Any, call: Any) -> Any:
        together.wait(10)
        return respond("ListModels", v2.StatusCode.SUCCESS)(request, call)

    backend.handlers["ListModels"] = meet
    front = RestFront(backend, workers=16)
    front.start()
    try:
        async with httpx.AsyncClient(base_url=front.base, trust_env=False) as client:
            responses = await asyncio.gather(*(client.get("/v2/models") for _ in range(16)))
        assert {response.status_code for response in responses} == {200}
    finally:
        front.close()


def test_no_thread_and_no_socket_is_left(backend: Backend) -> None:
    before = set(threading.enumerate())
    front = RestFront(backend)
    front.start()
    with httpx.Client(base_url=front.base, trust_env=False) as client:
        assert client.get("/v2/models").status_code == 200
        front.close()
        with pytest.raises(httpx.TransportError):
            client.get("/v2/models")
    front.close()
    assert set(threading.enumerate()) <= before
    address = httpx.URL(front.base)
    assert address.port is not None
    with socket.create_server((address.host, address.port)):
        pass


def test_a_front_that_never_started_can_be_closed(backend: Backend) -> None:
    RestFront(backend).close()


def test_a_port_in_use_is_an_error(backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # noqa: SIM117
        with pytest.raises(OSError, match="in use"):
            RestFront(backend, port=taken.getsockname()[1])


def test_closing_lets_running_calls_end(backend: Backend) -> None:
    running = threading.Event()
    answers: list[int] = []

    def slow(request: Any, call: Any) -> Any:
        running.set()
        time.sleep(0.3)
        return respond("ListModels", v2.StatusCode.SUCCESS)(request, call)

    backend.handlers["ListModels"] = slow
    front = RestFront(backend)
    front.start()

    def call() -> None:
        answers.append(httpx.get(f"{front.base}/v2/models", trust_env=False).status_code)

    thread = threading.Thread(target=call)
    thread.start()
    assert running.wait(10)
    front.close(grace=5)
    thread.join(30)
    assert answers == [200]


@pytest.mark.measures
def test_closing_ends_calls_that_do_not(backend: Backend) -> None:
    running = threading.Event()

    def endless(request: Any, call: Any) -> Iterator[Any]:
        while call.is_active():
            running.set()
            yield from outputs(1)
            time.sleep(0.01)

    backend.handlers["GenerateModelOutputs"] = endless
    front = RestFront(backend)
    front.start()
    with httpx.Client(base_url=front.base, trust_env=False) as client:  # noqa: SIM117
        with client.stream("POST", GENERATE) as response:
            assert running.wait(10)
            next(response.iter_raw())
            started = time.monotonic()
            front.close(grace=0.2)
            assert time.monotonic() - started < 5
