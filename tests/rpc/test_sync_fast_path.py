"""Calls straight on gRPC's core: the same outcome as by grpcio's multicallable, or that one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc import _observability

from clarigrpc import Client, errors, v2
from clarigrpc._contract import methods
from clarigrpc._rpc import grpcio_internals, sync_fast_path
from tests.both import Both
from tests.conftest import PAT
from tests.scripted import Answer, Fail, ScriptedServer, reply, when_ended
from tests.waiting import until

GET = v2.GetModelRequest(model_id="m")
PATH = methods.lookup("GetModel").path
RELEASE = tuple(int(part) for part in grpc.__version__.split(".")[:2])
METADATA = (("authorization", "Key of-a-test"), ("data-bin", b"\x00\xff"))


@pytest.fixture
def multicallable(scripted: ScriptedServer) -> Iterator[Any]:
    with grpc.insecure_channel(scripted.base.removeprefix("http://")) as channel:
        yield channel.unary_unary(PATH)


@pytest.fixture(params=["waited for", "started"])
def call(request: pytest.FixtureRequest, multicallable: Any) -> Any:
    """Both kinds of direct calls; one that was started is waited for here."""
    found = sync_fast_path.direct(multicallable)
    if found is None:
        assert grpcio_internals.TESTED_VERSIONS[1] < RELEASE
        pytest.skip(f"not with grpcio {grpc.__version__}")
    if request.param == "waited for":
        return found.call

    def start_and_wait(payload: bytes, timeout: float, metadata: Any) -> Any:
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        note = lambda *outcome: ended.put(outcome)  # noqa: E731
        assert found.start(payload, timeout, metadata, note) is not None
        encoded, status, error = ended.get(timeout=30)
        if error is not None:
            raise error
        return encoded, status

    return start_and_wait


def test_a_response_and_its_trailing_metadata(scripted: ScriptedServer, call: Any) -> None:
    answer = reply("GetModel", model=v2.Model(id="m"))
    scripted.on("GetModel", Answer([answer], trailing=(("k", "v"), ("b-bin", b"\x01"))))
    encoded, ended = call(GET.SerializeToString(), 10.0, METADATA)
    assert v2.SingleModelResponse.FromString(encoded) == answer
    assert [tuple(pair) for pair in ended.trailing_metadata()] == [("k", "v"), ("b-bin", b"\x01")]
    (seen,) = scripted.seen
    assert seen.request == GET
    assert seen.metadata["authorization"] == "Key of-a-test"
    assert 5 < seen.seconds_left < 11


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_a_failure_is_that_of_the_multicallable(
    scripted: ScriptedServer, call: Any, multicallable: Any, code: grpc.StatusCode
) -> None:
    scripted.always("GetModel", Fail(code, "no \u2603", (("why", "told"),)))
    found = []
    for attempt in (call, multicallable):
        with pytest.raises(grpc.RpcError) as caught:
            attempt(GET.SerializeToString(), 10.0, METADATA)
        error: Any = caught.value
        trailing = [tuple(pair) for pair in error.trailing_metadata()]
        found.append((type(error), error.code(), error.details(), trailing))
        assert error.debug_error_string()
    assert found[0] == found[1]
    assert found[0][1:] == (code, "no \u2603", [("why", "told")])


def test_metadata_that_cannot_be_sent_is_refused(call: Any, multicallable: Any) -> None:
    found = []
    for attempt in (call, multicallable):
        with pytest.raises((grpc.RpcError, ValueError)) as caught:
            attempt(b"", 10.0, (("Upper", "x"),))
        error: Any = caught.value
        told = (error.code(), error.details()) if isinstance(error, grpc.RpcError) else None
        found.append((type(error), told))
    assert found[0] == found[1]
    if RELEASE >= (1, 85):
        assert found[0][1] == (grpc.StatusCode.INTERNAL, "Invalid metadata")


def test_a_handler_of_a_server_passes_its_deadline_on(
    scripted: ScriptedServer, multicallable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = sync_fast_path._core()
    if core is not None:
        monkeypatch.setitem(core, "get_deadline_from_context", lambda: time.time() + 2)
    found = sync_fast_path.direct(multicallable)
    if found is None:
        pytest.skip(f"not with grpcio {grpc.__version__}")
    scripted.on("GetModel", reply("GetModel"))
    found.call(GET.SerializeToString(), 10.0, METADATA)
    assert scripted.seen[0].seconds_left < 3


@pytest.fixture(params=["direct", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a client makes its calls."""
    if request.param == "public":
        monkeypatch.setattr("clarigrpc._rpc.grpcio_internals.usable", lambda: False)
    elif not grpcio_internals.usable():
        pytest.skip(f"not with grpcio {grpc.__version__}")
    return str(request.param)


@pytest.fixture
def client(way: str, scripted: ScriptedServer) -> Iterator[Client]:
    with Client(base=scripted.base, pat=PAT, timeout=10) as made:
        yield made
        bound: Any = made.v2.GetModel
        assert (bound._direct is not None) is (way == "direct")


def held(ended: threading.Event) -> Any:
    """A handler that answers when its call is over."""

    def handler(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        when_ended(context, ended.set)
        ended.wait(10)
        yield reply("GetModel")

    return handler


def test_a_call_that_is_begun_tells_when_it_has_ended(
    client: Client, scripted: ScriptedServer
) -> None:
    scripted.on(
        "GetModel", reply("GetModel", model=v2.Model(id="m")), Fail(grpc.StatusCode.ABORTED)
    )
    get: Any = client.v2.GetModel
    started: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    get.begin(GET, None, started.put, ended.put)
    call = ended.get(timeout=30)
    assert call is started.get(timeout=30)
    assert call.result().model.id == "m"
    get.begin(GET, 5.0, started.put, ended.put)
    call = ended.get(timeout=30)
    assert call is started.get(timeout=30)
    with pytest.raises(errors.UnavailableError) as caught:
        call.result()
    assert caught.value.request_id
    over = threading.Event()
    scripted.on("GetModel", held(over))
    get.begin(GET, 5.0, started.put, ended.put)
    until(lambda: len(scripted.seen) >= 3)
    call = started.get(timeout=30)
    call.cancel()
    assert ended.get(timeout=30) is call
    assert over.wait(30)
    with pytest.raises(errors.CancelledError):
        call.result()


@pytest.mark.measures
def test_the_deadline_passes(client: Client, scripted: ScriptedServer) -> None:
    ended = threading.Event()
    scripted.on("GetModel", held(ended))
    started = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError) as caught:
        client.v2.GetModel(GET, timeout=0.3)
    assert 0.25 < time.monotonic() - started < 5
    assert caught.value.grpc_code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details == "Deadline Exceeded"
    assert ended.wait(30)


def test_closing_ends_what_runs(client: Client, scripted: ScriptedServer) -> None:
    ended, arrived = threading.Event(), threading.Event()
    hold = held(ended)

    def handler(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        arrived.set()
        return hold(requests, context)  # type: ignore[no-any-return]

    scripted.on("GetModel", handler)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.v2.GetModel, GET)
        assert arrived.wait(30)
        client.close()
        error = call.exception(5)
    assert isinstance(error, errors.CancelledError)
    assert (error.grpc_code, error.description) == (
        grpc.StatusCode.CANCELLED,
        "the client was closed",
    )
    assert ended.wait(30)


def test_threads_that_make_the_first_call_at_once(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_direct = sync_fast_path.direct

    def slow(multicallable: Any) -> Any:
        time.sleep(0.05)
        return real_direct(multicallable)

    monkeypatch.setattr("clarigrpc._rpc.sync_channel.direct", slow)
    scripted.always("GetModel", reply("GetModel", model=v2.Model(id="m")))
    with Client(base=scripted.base, pat=PAT) as client, ThreadPoolExecutor(8) as pool:

        def call(delay: float) -> str:
            time.sleep(delay)
            return client.v2.GetModel(GET).model.id

        assert set(pool.map(call, [number * 0.01 for number in range(8)])) == {"m"}


async def test_an_answer_without_a_message_is_an_error(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.other(PATH, grpc.unary_stream_rpc_method_handler(lambda *_: iter(())))
    with pytest.raises(errors.InternalError, match="without a response"):
        await both.call("GetModel", GET)


@pytest.mark.parametrize("version", ["1.75.1", "1.999.0", "2.0.0"])
def test_other_versions_of_grpcio_are_called_the_public_way(
    scripted: ScriptedServer, multicallable: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    assert sync_fast_path.direct(multicallable) is None
    scripted.on("GetModel", reply("GetModel", model=v2.Model(id="m")))
    with Client(base=scripted.base, pat=PAT) as client:
        assert client.v2.GetModel(GET).model.id == "m"


def test_an_instrumented_grpcio_is_called_the_public_way(
    multicallable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_observability, "_OBSERVABILITY_PLUGIN", object())
    assert sync_fast_path.direct(multicallable) is None


def test_interceptors_are_not_passed_by(scripted: ScriptedServer) -> None:
    class Interceptor(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(details, request)

    with grpc.insecure_channel(scripted.base.removeprefix("http://")) as channel:
        intercepted = grpc.intercept_channel(channel, Interceptor())
        assert sync_fast_path.direct(intercepted.unary_unary(PATH)) is None
