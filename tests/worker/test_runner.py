"""Callers get from a runner what they get from a model that the server runs itself."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clarigrpc import Client, errors, runner, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.types import Model
from tests.both import ClientKind
from tests.waiting import until
from tests.worker.conftest import MODEL, workers
from tests.worker.toolbox import Toolbox

Code = v2.StatusCode


@pytest.fixture(scope="module", params=["sync", "async"])
def worker_kind(request: pytest.FixtureRequest) -> ClientKind:
    found: ClientKind = request.param
    return found


class Served:
    """A running worker, its model and a handle on it."""

    def __init__(self, worker: Any, toolbox: Toolbox, model: Model) -> None:
        self.worker = getattr(worker, "worker", worker)
        self.toolbox = toolbox
        self.model = model


@pytest.fixture(scope="module")
def served(worker_kind: ClientKind, server: LocalServer, caller: Client) -> Iterator[Served]:
    toolbox = Toolbox()
    with workers(worker_kind, server) as start:
        worker = start(toolbox, max_batch=4, max_delay=0.05, concurrency=6, health_port=0)
        yield Served(worker, toolbox, caller.model(MODEL))


def test_methods_are_those_of_the_model(served: Served) -> None:
    methods = served.model.methods()
    kinds = {name: one.method_type for name, one in methods.items()}
    kind = v2.RunnerMethodType
    assert kinds["predict"] == kinds["lengths"] == kind.UNARY_UNARY
    assert kinds["generate"] == kinds["spell"] == kind.UNARY_STREAMING
    assert kinds["stream"] == kinds["converse"] == kind.STREAMING_STREAMING
    assert kinds["total"] == kind.STREAMING_UNARY
    assert methods["predict"].description == "Says it loudly."


def test_unary_calls(served: Served) -> None:
    assert served.model.call("predict", text="abc") == "ABC"
    assert served.model.call("reverse", text="abc") == "cba"
    output = served.model.predict(text("abc"))
    assert output.data.parts[0].data.string_value == "ABC"


def test_many_inputs_in_one_request(served: Served) -> None:
    outputs = served.model.predict([text(word) for word in ("a", "b", "c")])
    assert [one.data.parts[0].data.string_value for one in outputs] == ["A", "B", "C"]


def test_generated_results(served: Served) -> None:
    assert list(served.model.call("generate", text="abc")) == ["a", "b", "c"]
    assert list(served.model.call("spell", text="abc")) == ["a", "b", "c"]
    assert list(served.model.call("nothing", text="abc")) == []


def test_streams_in_both_directions(served: Served) -> None:
    for method in ("stream", "converse"):
        words = iter(["x", "y", "z"])
        assert list(served.model.call(method, words=words, prefix="-")) == ["-x", "-y", "-z"]


def test_answers_come_while_the_caller_still_sends(served: Served) -> None:
    answered = threading.Event()

    def words() -> Iterator[str]:
        yield "first"
        assert answered.wait(20)
        yield "second"

    results = served.model.call("stream", words=words())
    assert next(results) == "first"
    answered.set()
    assert list(results) == ["second"]


def test_failures_are_those_of_the_input(served: Served) -> None:
    with pytest.raises(errors.ApiError, match="no luck with x") as caught:
        served.model.call("fail", text="x")
    assert caught.value.code == Code.MODEL_PREDICTION_FAILED
    with pytest.raises(errors.InvalidArgumentError, match="no method 'none'"):
        served.model.predict(v2.Input(data=_named("none")))
    got = []
    with pytest.raises(errors.ApiError, match="no further"):
        for letter in served.model.call("fail_after", text="abc", count=2):
            got.append(letter)
    assert got == ["a", "b"]


@pytest.mark.parametrize("method", ["exits", "exits_later", "exits_after", "exits_in_batch"])
def test_a_method_that_exits_fails_alone(served: Served, method: str) -> None:
    for _ in range(2):
        with pytest.raises(errors.ApiError, match=r"the method raised SystemExit: now"):
            list(served.model.call(method, text="now"))
    assert served.model.call("reverse", text="abc") == "cba"
    assert served.model.call("predict", text="abc") == "ABC"


def _named(method: str) -> v2.Data:
    data = v2.Data()
    data.metadata.update({"_method_name": method})
    return data


def test_urls_are_refused_unless_there_is_a_function(served: Served) -> None:
    given = text("x")
    given.data.text.url = "https://example.com/x"
    given.data.text.ClearField("raw")
    with pytest.raises(errors.ApiError, match="fetches no URLs"):
        served.model.predict(given)


def test_a_caller_who_leaves_stops_the_model(served: Served, caller: Client) -> None:
    toolbox = served.toolbox
    before = served.worker.stats().cancelled
    results = served.model.call("count_for_ever", text="a")
    assert [next(results), next(results)] == [0, 1]
    results.cancel()
    until(lambda: "closed a" in toolbox.log)
    toolbox.started.clear()

    def reaches_the_model() -> bool:
        # At the deadline, the service may be the first to say so.
        with pytest.raises((errors.DeadlineExceededError, errors.NotReadyError)):
            caller.with_options(timeout=1.0).model(MODEL).call("endless", text="b")
        return toolbox.started.is_set()

    until(reaches_the_model)
    until(lambda: "cancelled b" in toolbox.log)
    until(lambda: served.worker.stats().cancelled >= before + 2)
    assert served.model.call("predict", text="c") == "C"


def test_callers_share_batches(served: Served) -> None:
    toolbox = served.toolbox
    toolbox.batches.clear()
    words = ["a" * count for count in range(12)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda word: served.model.call("lengths", text=word), words))
    assert found == list(range(12))
    assert sorted(word for batch in toolbox.batches for word in batch) == words
    assert max(map(len, toolbox.batches)) > 1
    assert max(map(len, toolbox.batches)) <= 4


def test_a_bad_row_fails_alone(served: Served) -> None:
    def ask(word: str) -> Any:
        try:
            return served.model.call("lengths", text=word)
        except errors.ApiError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, ["aa", "bad", "cccc", "d"]))
    assert found == [2, Code.MODEL_PREDICTION_FAILED, 4, 1]


def test_a_slow_reader_holds_the_model_back(served: Served) -> None:
    toolbox = served.toolbox
    toolbox.produced = 0
    results = served.model.call("flood", text="x")
    assert len(next(results)) == 1 << 20
    seen = -1
    while toolbox.produced != seen:  # until it stands still
        seen = toolbox.produced
        time.sleep(0.5)
    assert seen < 100, "100 MiB are on their way"
    results.cancel()
    until(lambda: "closed flood" in toolbox.log)


def test_health_and_readiness(served: Served) -> None:
    base = f"http://127.0.0.1:{served.worker.health_port}"
    until(lambda: _status(f"{base}/readyz") == 200)
    assert _status(f"{base}/healthz") == 200
    assert _status(f"{base}/other") == 404


def test_connections_that_say_nothing_keep_no_probe_out(served: Served) -> None:
    address = ("127.0.0.1", served.worker.health_port)
    with contextlib.ExitStack() as stack:
        first, *_ = [stack.enter_context(socket.create_connection(address)) for _ in range(40)]
        first.settimeout(5)  # one that says nothing ends after 10 seconds anyway
        assert first.recv(1) == b"", "the oldest connection did not make room"
        assert _status(f"http://127.0.0.1:{address[1]}/healthz") == 200


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_what_is_wrong_is_said_at_the_start(caller: Client) -> None:
    with pytest.raises(errors.ConfigurationError, match="no method marked with"):
        runner.RunnerWorker(caller, lambda text: text, runner_id="r", max_batch=2)
    with pytest.raises(errors.ConfigurationError, match="concurrency must be 1 to 1024, not 0"):
        runner.RunnerWorker(caller, Toolbox, runner_id="r", concurrency=0)
    with pytest.raises(errors.ConfigurationError, match="pass runner_id=, or set CLARIFAI_"):
        runner.RunnerWorker(caller, Toolbox)
    worker = runner.RunnerWorker(caller, Toolbox, runner_id="unknown")
    with pytest.raises(errors.NotFoundError, match="give the model"):
        worker.start()

    @runner.batched
    def lengths(text: str) -> list[int]:
        return [len(text)]

    with pytest.raises(TypeError, match="text has to be annotated as a list"):
        runner.RunnerWorker(caller, lengths, runner_id="r")
