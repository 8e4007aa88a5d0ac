"""``predict_many`` of both clients against servers that answer, fail and vanish."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from clarigrpc import AsyncClient, Client, RetryPolicy, errors, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.types import PredictBatch, UploadReport
from tests.both import Both
from tests.bulk.service import METHOD, Hanging, outputs, poisoned, script
from tests.conftest import Connect
from tests.faults.proxy import FaultProxy
from tests.scripted import Fail, ScriptedServer, refuse
from tests.socket_server import kept_port
from tests.waiting import until

COLORS = {"user_id": "clarifai", "app_id": "main"}
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def picture() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def texts(count: int) -> list[v2.Input]:
    return [text(str(number)) for number in range(count)]


async def predict(both: Both, values: Any, model: str = "m", **options: Any) -> list[Any]:
    return await both.collect(both.client.model(model).predict_many(values, **options))


def check(results: list[Any], count: int, failed: list[int], *, ordered: bool = True) -> None:
    """Each input once, with its own output, or its error."""
    indexes = [result.index for result in results]
    assert (indexes if ordered else sorted(indexes)) == list(range(count))
    assert sorted(result.index for result in results if result.error) == failed
    for result in results:
        if result.error is None:
            assert result.output.data.text.raw == str(result.index)
        else:
            assert result.output is None


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("options", [{}, {"batch_size": 7, "in_flight": 3}, {"batch_size": 128}])
async def test_poisoned_inputs_fail_alone(
    both: Both, scripted: ScriptedServer, options: dict[str, Any], ordered: bool
) -> None:
    scripted.always(METHOD, script(poisoned("13")))
    values: list[Any] = texts(300)
    values[200] = text("13")
    values[250] = "a string"
    results = await predict(both, values, ordered=ordered, **options)
    check(results, 300, [13, 200, 250], ordered=ordered)
    failures = {result.index: result.error for result in results if result.error}
    assert isinstance(failures[13], errors.InvalidArgumentError)
    assert failures[13].request_id
    assert isinstance(failures[250], TypeError)
    assert max(len(seen.request.inputs) for seen in scripted.seen) <= options.get("batch_size", 128)


async def test_a_single_value_is_no_source(both: Both) -> None:
    model = both.client.model("m")
    for wrong in ("photo.jpg", b"bytes", Path("photo.jpg"), text("one")):
        for verb in (model.predict_many, model.predict_batches, model.stream):
            with pytest.raises(TypeError, match=r"\(\) takes an iterable of inputs, not "):
                await both.collect(verb(wrong))


@pytest.mark.parametrize("ordered", [True, False])
async def test_batches_have_the_results_of_their_inputs(
    both: Both, scripted: ScriptedServer, ordered: bool
) -> None:
    scripted.always(METHOD, script(poisoned("13")))
    values: list[Any] = texts(300)
    values[250] = "a string"
    model = both.client.model("m")
    stream = model.predict_batches(values, batch_size=50, in_flight=2, ordered=ordered)
    batches = await both.collect(stream)
    assert all(isinstance(batch, PredictBatch) for batch in batches)
    for batch in batches:
        raws = [output.data.text.raw for output in batch.outputs]
        assert raws == [str(index) for index in batch.indexes]
    places = [[*batch.indexes, *batch.errors] for batch in batches]
    assert sorted(itertools.chain(*places)) == list(range(300))
    failures = {index: one for batch in batches for index, one in batch.errors.items()}
    assert {index: type(one) for index, one in failures.items()} == {
        13: errors.InvalidArgumentError,
        250: TypeError,
    }
    # Only the inputs of the batch with the poisoned one were sent again, in smaller batches.
    assert sum(len(place) == 50 for place in places) == 5
    if ordered:
        firsts = [min(place) for place in places]
        assert firsts == sorted(firsts)


async def test_fixed_batches_are_full(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(outputs))
    check(await predict(both, texts(100), batch_size=32), 100, [])
    assert sorted(len(seen.request.inputs) for seen in scripted.seen) == [4, 32, 32, 32]


async def test_requests_are_in_flight_together(both: Both, scripted: ScriptedServer) -> None:
    barrier = threading.Barrier(6, timeout=30)

    def together(request: Any) -> Any:
        barrier.wait()
        return outputs(request)

    scripted.always(METHOD, script(together))
    check(await predict(both, texts(60), batch_size=5, in_flight=6), 60, [])


@pytest.mark.measures
async def test_the_next_run_starts_with_the_window_of_the_last(
    both: Both, scripted: ScriptedServer
) -> None:
    barrier = threading.Barrier(6, timeout=30)

    def together(request: Any) -> Any:
        barrier.wait()
        return outputs(request)

    scripted.always(METHOD, script(outputs))
    check(await predict(both, texts(1200)), 1200, [])
    check(await predict(both, texts(60), batch_size=10, in_flight=1), 60, [])  # says nothing
    scripted.always(METHOD, script(together))
    view = both.client.with_options(timeout=50)
    check(await both.collect(view.model("m").predict_many(texts(768))), 768, [])


async def test_outputs_that_failed_in_a_response_of_mixed_status(
    both: Both, scripted: ScriptedServer
) -> None:
    def mixed(request: Any) -> Any:
        response = outputs(request)
        response.status.code = v2.StatusCode.MIXED_STATUS
        response.outputs[1].status.code = v2.StatusCode.MODEL_PREDICTION_FAILED
        return response

    scripted.always(METHOD, script(mixed))
    check(await predict(both, texts(20), batch_size=10), 20, [1, 11])
    assert len(scripted.seen) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuse(METHOD, v2.StatusCode.MODEL_DOES_NOT_EXIST), errors.NotFoundError),
        (refuse(METHOD, v2.StatusCode.CONN_KEY_INVALID), errors.AuthenticationError),
        (Fail(grpc.StatusCode.UNAUTHENTICATED), errors.AuthenticationError),
        (Fail(grpc.StatusCode.UNIMPLEMENTED), errors.UnimplementedError),
    ],
)
async def test_what_holds_for_all_is_an_error_for_each(
    both: Both, scripted: ScriptedServer, answer: Any, error: type[Exception]
) -> None:
    scripted.always(METHOD, answer)
    results = await predict(both, texts(30), batch_size=10)
    assert [type(result.error) for result in results] == [error] * 30
    assert len(scripted.seen) == 3


async def test_a_wrong_key_and_an_unknown_model(connect: Connect, local: LocalServer) -> None:
    stranger = connect(local.base, pat="a-wrong-pat-0123456789", user_id=local.user_id)
    for result in await predict(stranger, [picture()] * 3):
        assert isinstance(result.error, errors.AuthenticationError)
    owner = connect(local.base, pat=local.pat, user_id=local.user_id, app_id=local.app_id)
    for result in await predict(owner, [picture()] * 3, model="no-such-model"):
        assert isinstance(result.error, errors.NotFoundError)


async def test_broken_images_on_the_local_server(connect: Connect, local: LocalServer) -> None:
    client = connect(local.base, pat=local.pat, user_id=local.user_id, app_id=local.app_id)
    values = [picture()] * 100
    values[37] = b"no picture"
    model = client.client.model("color-recognition", **COLORS)
    results = await client.collect(model.predict_many(values))
    assert [result.index for result in results] == list(range(100))
    assert [result.index for result in results if result.error] == [37]
    assert results[0].output.data.colors


async def test_passing_failures_cost_nothing(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(
        METHOD,
        Fail(UNAVAILABLE),
        refuse(METHOD, v2.StatusCode.CONN_THROTTLED),
        refuse(METHOD, v2.StatusCode.MODEL_DEPLOYING),
        Fail(grpc.StatusCode.RESOURCE_EXHAUSTED),
        Fail(grpc.StatusCode.CANCELLED, details="CANCELLED"),  # by a server that stops
    )
    scripted.always(METHOD, script(outputs))
    check(await predict(both, texts(100), batch_size=10), 100, [])
    assert len(scripted.seen) == 15


async def test_no_retries_where_the_policy_says_so(
    connect: Connect, scripted: ScriptedServer
) -> None:
    client = connect(scripted.base, retry=RetryPolicy(max_attempts=1))
    scripted.on(METHOD, Fail(UNAVAILABLE))
    scripted.always(METHOD, script(outputs))
    results = await predict(client, texts(20), batch_size=10, in_flight=1)
    check(results, 20, list(range(10)))


async def test_the_service_says_how_long_to_wait(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(METHOD, Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing=[("retry-after", "0.4")]))
    scripted.always(METHOD, script(outputs))
    check(await predict(both, texts(50), batch_size=10, in_flight=1), 50, [])
    first, second, *_ = scripted.seen
    assert second.at - first.at >= 0.4


async def test_a_rate_limit_is_kept_to(connect: Connect) -> None:
    with LocalServer() as server:
        server.faults.rate_limit, server.faults.rate_burst = 20, 2
        client = connect(server.base, pat=server.pat, user_id=server.user_id, timeout=20)
        model = client.client.model("color-recognition", **COLORS)
        results = await client.collect(model.predict_many([picture()] * 40, batch_size=4))
    assert not [result.error for result in results if result.error]


@pytest.mark.measures
async def test_a_deadline_is_an_error_for_each(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, Hanging())
    began = time.monotonic()
    results = await predict(both, texts(3), timeout=0.2)
    assert [type(result.error) for result in results] == [errors.DeadlineExceededError] * 3
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"batch_size": 0}, errors.InvalidArgumentError),
        ({"in_flight": 0}, errors.InvalidArgumentError),
        ({"timeout": -1}, errors.ConfigurationError),
    ],
)
async def test_wrong_options_are_told_at_once(
    both: Both, options: dict[str, int], error: type[Exception]
) -> None:
    with pytest.raises(error):
        both.client.model("m").predict_many([], **options)


async def test_an_error_of_the_source_comes_after_the_results(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.always(METHOD, script(outputs))

    def source() -> Iterator[v2.Input]:
        yield from texts(25)
        raise KeyError("producer")

    found: list[Any] = []
    stream = both.client.model("m").predict_many(source(), batch_size=10)
    with pytest.raises(KeyError, match="producer") as caught:
        await both.collect(stream, found)
    check(found, 25, [])
    (note,) = caught.value.__notes__
    assert "after 25 values" in note
    assert "predict_many(paths)" in note


class Stopped(BaseException):
    """What ends a source and is no ``Exception``, as the failure of a test."""


@pytest.mark.parametrize("kind", [asyncio.CancelledError, Stopped])
async def test_whatever_an_asynchronous_source_raises_ends_its_run(
    scripted: ScriptedServer, kind: type[BaseException]
) -> None:
    scripted.always(METHOD, script(outputs))

    async def source(count: int) -> AsyncIterator[v2.Input]:
        for one in texts(count):
            yield one
        raise kind

    async with AsyncClient(pat="x" * 20, base=scripted.base) as client:
        found: list[Any] = []
        report = UploadReport()
        async with asyncio.timeout(30):
            with pytest.raises(kind):
                async for result in client.model("m").predict_many(source(25), batch_size=10):
                    found.append(result)
            with pytest.raises(kind):
                await client.inputs.upload(source(0), report=report)
        check(found, 25, [])
        assert not report.complete


async def test_a_closed_client_is_told(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(outputs))
    model = both.client.model("m")
    await both.close()
    with pytest.raises(errors.ClosedError):
        await both.collect(model.predict_many(texts(3)))


@pytest.mark.measures
async def test_memory_stays_where_it_is_over_an_endless_source(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.always(METHOD, script(lambda request: outputs(request)))
    taken = itertools.count()
    source = (text(f"{number:>1000}") for number in taken)
    stream = both.client.model("m").predict_many(source, batch_size=16, in_flight=4)
    marks = []
    tracemalloc.start()
    try:
        for place in range(4):
            async for result in both.items(stream):
                if result.index == 500 * (place + 1):
                    break
            scripted.seen.clear()
            del result
            gc.collect()
            marks.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert marks[3] - marks[1] < 500_000
    assert next(taken) <= 2001 + 2 * 4 * 32 + 64
    await (both.run(stream.close) if both.is_sync else stream.aclose())


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith("scripted")}


def test_stopping_early_ends_calls_and_threads(scripted: ScriptedServer) -> None:
    hanging = Hanging()
    scripted.on(METHOD, *[hanging.answered_meanwhile] * 3)
    scripted.always(METHOD, hanging)
    before = threads()
    with Client(pat="x" * 20, base=scripted.base) as client:
        values = map(text, map(str, itertools.count()))
        # Which of the requests the server answers is chance.
        stream = client.model("m").predict_many(values, batch_size=2, in_flight=8, ordered=False)
        assert len({next(stream).index for _ in range(3)}) == 3
        assert hanging.began.is_set()
        stream.close()
        assert until(lambda: hanging.running == 0)
    assert until(lambda: threads() <= before)


@pytest.mark.measures
async def test_stopping_early_ends_tasks(scripted: ScriptedServer) -> None:
    hanging = Hanging()
    scripted.on(METHOD, *[hanging.answered_meanwhile] * 3)
    scripted.always(METHOD, hanging)
    closed = asyncio.Event()

    async def source() -> AsyncIterator[v2.Input]:
        try:
            for number in itertools.count():
                yield text(str(number))
        finally:
            closed.set()

    async with AsyncClient(pat="x" * 20, base=scripted.base) as client:
        before = asyncio.all_tasks()
        model = client.model("m")
        stream = model.predict_many(source(), batch_size=2, in_flight=8, ordered=False)
        await anext(stream)
        await anext(stream)
        assert hanging.began.is_set()
        began = time.monotonic()
        await stream.aclose()
        assert time.monotonic() - began < 1
        assert asyncio.all_tasks() <= before
        assert await asyncio.to_thread(until, lambda: hanging.running == 0)
        gc.collect()
        await asyncio.wait_for(closed.wait(), 30)


async def test_a_cancelled_task_ends_its_run(scripted: ScriptedServer) -> None:
    hanging = Hanging()
    scripted.always(METHOD, hanging)
    async with AsyncClient(pat="x" * 20, base=scripted.base) as client:

        async def consume() -> None:
            async for _ in client.model("m").predict_many(texts(10)):
                pass

        task = asyncio.create_task(consume())
        assert await asyncio.to_thread(hanging.began.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(until, lambda: hanging.running == 0)


@pytest.mark.measures
async def test_results_of_a_slow_asynchronous_source_come_at_once(
    scripted: ScriptedServer,
) -> None:
    scripted.always(METHOD, script(outputs))
    given: list[float] = []

    async def source() -> AsyncIterator[v2.Input]:
        for number in range(5):
            given.append(time.monotonic())
            yield text(str(number))
            await asyncio.sleep(0.15)

    async with AsyncClient(pat="x" * 20, base=scripted.base) as client:
        async for result in client.model("m").predict_many(source(), batch_size=128):
            assert time.monotonic() - given[result.index] < 0.14


@pytest.mark.measures
def test_results_of_a_slow_blocking_source_come_between_its_values(
    scripted: ScriptedServer,
) -> None:
    scripted.always(METHOD, script(outputs))
    given: list[float] = []

    def source() -> Iterator[v2.Input]:
        for number in range(8):
            given.append(time.monotonic())
            yield text(str(number))
            time.sleep(0.12)

    with Client(pat="x" * 20, base=scripted.base) as client:
        for result in client.model("m").predict_many(source(), batch_size=128):
            assert time.monotonic() - given[result.index] < 0.5


@pytest.mark.parametrize("fault", ["cut", "before response", "goaway"])
async def test_cuts_lose_and_double_nothing(connect: Connect, fault: str) -> None:
    with ScriptedServer() as server:
        server.always(METHOD, script(outputs))
        with FaultProxy("127.0.0.1", server.port) as proxy:
            client = connect(proxy.base, timeout=20)
            if fault == "cut":
                proxy.cut_after(bytes=6_000, times=4)
            elif fault == "before response":
                proxy.cut_before_response(skip=3, times=3)
            results = []
            stream = client.client.model("m").predict_many(texts(600), batch_size=10)
            async for result in client.items(stream):
                if fault == "goaway" and result.index % 150 == 10:
                    proxy.goaway()
                results.append(result)
            assert proxy.counters.faults
    check(results, 600, [])


async def test_a_server_that_restarts(connect: Connect) -> None:
    with kept_port() as port, ScriptedServer(port=port) as first:
        first.always(METHOD, script(outputs))
        client = connect(first.base, timeout=20)
        results = []
        stream = client.client.model("m").predict_many(texts(400), batch_size=4, in_flight=2)
        async for result in client.items(stream):
            results.append(result)
            if result.index == 50:
                await asyncio.to_thread(first.close)
                second = ScriptedServer(port=port)
                second.always(METHOD, script(outputs))
                second.__enter__()
        second.close()
    check(results, 400, [])


def test_a_bar_on_a_terminal_only(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.always(METHOD, script(outputs))
    with Client(pat="x" * 20, base=scripted.base) as client:
        model = client.model("m")
        check(list(model.predict_many(texts(10), progress=True)), 10, [])
        assert capsys.readouterr().err == ""
        monkeypatch.setenv("FORCE_COLOR", "1")
        check(list(model.predict_many([*texts(9), text("9")], progress=True)), 10, [])
    assert "10/10" in capsys.readouterr().err


def test_counts(scripted: ScriptedServer) -> None:
    """Nothing is sent twice without a need."""
    scripted.always(METHOD, script(outputs))
    with Client(pat="x" * 20, base=scripted.base) as client:
        check(list(client.model("m").predict_many(texts(500))), 500, [])
    sent = Counter(one.data.text.raw for seen in scripted.seen for one in seen.request.inputs)
    assert set(sent.values()) == {1}
