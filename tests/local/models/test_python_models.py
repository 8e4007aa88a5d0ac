"""Functions and classes of users as models: signatures, values, streams, failures."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest
from google.protobuf import json_format

from clarigrpc import errors, v2
from clarigrpc._named_methods.annotations import Converter
from clarigrpc._named_methods.method_loop import ModelLoop
from clarigrpc._named_methods.values import MediaReader
from clarigrpc.local import LocalServer
from clarigrpc.runner import batched
from tests.local.conftest import Raw, png
from tests.refused_threads import refused_threads

Code = v2.StatusCode


class Toolbox:
    """Methods of every shape."""

    def shout(self, text: str, times: int = 1, mark: str = "!") -> str:
        """Says it loudly."""
        return text.upper() * times + mark

    def count(self, upto: int) -> Iterator[int]:
        yield from range(upto)

    def total(self, values: Iterator[float], start: float = 0.0) -> float:
        return sum(values, start)

    def echo(self, words: Iterator[str], prefix: str) -> Iterator[str]:
        for word in words:
            yield prefix + word

    def mean(self, image: PIL.Image.Image) -> list[float]:
        return [float(c) for c in np.asarray(image.convert("RGB")).reshape(-1, 3).mean(axis=0)]

    def double(self, array: np.ndarray) -> np.ndarray:
        return array * 2

    def swap(self, pair: tuple[int, str], options: dict[str, Any]) -> dict[str, Any]:
        return {"pair": [pair[1], pair[0]], **options}

    def fail(self) -> str:
        raise ValueError("no luck")

    def fail_later(self) -> Iterator[str]:
        yield "one"
        raise ValueError("no luck")

    def _hidden(self) -> str:
        return "hidden"


@pytest.fixture
def tools(serve: Callable[..., Raw]) -> Raw:
    return serve(models={"tools": Toolbox})


def encoded(value: Any) -> v2.Data:
    return Converter("x", None).encode(value)


def request(method: str = "", model_id: str = "tools", **arguments: Any) -> Any:
    made = v2.PostModelOutputsRequest(model_id=model_id)
    data = made.inputs.add().data
    if method:
        data.metadata.update({"_method_name": method})
    for name, value in arguments.items():
        data.parts.add(id=name).data.CopyFrom(encoded(value))
    return made


def returned(response: Any, annotation: Any = None) -> Any:
    assert response.status.code == Code.SUCCESS, response
    (part,) = response.outputs[0].data.parts
    assert part.id == "return"
    return Converter("return", annotation).decode(part.data, MediaReader())


def call(raw: Raw, method: str, **arguments: Any) -> Any:
    return raw("PostModelOutputs", request(method, **arguments))


def test_named_arguments(tools: Raw) -> None:
    assert returned(call(tools, "shout", text="hey", times=2, mark="?")) == "HEYHEY?"
    assert returned(call(tools, "shout", text="hey")) == "HEY!"
    assert returned(call(tools, "shout", text="hey", unknown=5)) == "HEY!"  # as the service does


def test_values_of_all_kinds(tools: Raw) -> None:
    image = v2.Data()
    image.image.base64 = png("red", "blue")
    colors = returned(call(tools, "mean", image=image), list[float])
    assert colors == [127.5, 0.0, 127.5]
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    double = returned(call(tools, "double", array=array))
    np.testing.assert_array_equal(double, array * 2)
    assert double.dtype == np.float32
    swapped = call(tools, "swap", pair=(1, "a"), options=encoded(json.dumps({"deep": [1, None]})))
    assert returned(swapped, dict) == {"pair": ["a", 1], "deep": [1, None]}


def test_signatures(tools: Raw) -> None:
    response = call(tools, "_GET_SIGNATURES")
    told = json.loads(response.outputs[0].data.text.raw)
    signatures = {
        name: json_format.ParseDict(value, v2.MethodSignature()) for name, value in told.items()
    }
    assert "_hidden" not in signatures
    shout = signatures["shout"]
    assert (shout.name, shout.description) == ("shout", "Says it loudly.")
    assert shout.method_type == v2.RunnerMethodType.UNARY_UNARY
    field = v2.ModelTypeField
    assert [(f.name, f.type, f.required, f.default) for f in shout.input_fields] == [
        ("text", field.STR, True, ""),
        ("times", field.INT, False, "1"),
        ("mark", field.STR, False, "!"),
    ]
    assert [(f.name, f.type) for f in shout.output_fields] == [("return", field.STR)]
    assert signatures["count"].method_type == v2.RunnerMethodType.UNARY_STREAMING
    assert signatures["total"].method_type == v2.RunnerMethodType.STREAMING_UNARY
    echo = signatures["echo"]
    assert echo.method_type == v2.RunnerMethodType.STREAMING_STREAMING
    assert [f.iterator for f in echo.input_fields] == [True, False]
    pair, options = signatures["swap"].input_fields
    assert [a.type for a in pair.type_args] == [field.INT, field.STR]
    assert options.type == field.JSON_DATA
    (numbers,) = signatures["mean"].output_fields
    assert (numbers.type, numbers.type_args[0].type) == (field.LIST, field.FLOAT)
    version = tools("GetModel", v2.GetModelRequest(model_id="tools")).model.model_version
    assert {s.name: s for s in version.method_signatures} == signatures


def test_streamed_results(tools: Raw) -> None:
    responses = list(tools("GenerateModelOutputs", request("count", upto=3)))
    assert [returned(r, int) for r in responses] == [0, 1, 2]
    wrong = call(tools, "count", upto=3).outputs[0].status
    assert (wrong.code, "GenerateModelOutputs" in wrong.details) == (
        Code.INPUT_INVALID_ARGUMENT,
        True,
    )


def test_streamed_arguments(tools: Raw) -> None:
    requests = [request("total", values=1.5, start=10.0), request(values=2.5), request(values=3.0)]
    (response,) = tools("StreamModelOutputs", iter(requests))
    assert returned(response) == 17.0


def test_duplex_answers_each_value_at_once(tools: Raw) -> None:
    feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    responses = tools("StreamModelOutputs", iter(feed.get, None))
    feed.put(request("echo", words="a", prefix="> "))
    assert returned(next(responses)) == "> a"
    feed.put(request(words="b"))
    assert returned(next(responses)) == "> b"
    feed.put(None)
    assert list(responses) == []


def test_unary_methods_over_a_stream(tools: Raw) -> None:
    requests = [request("shout", text="a"), request("shout"), request("shout", text="c")]
    responses = list(tools("StreamModelOutputs", iter(requests)))
    assert [r.outputs[0].status.code for r in responses] == [
        Code.SUCCESS,
        Code.INPUT_INVALID_ARGUMENT,
        Code.SUCCESS,
    ]


def test_failures_are_those_of_the_input(tools: Raw, caplog: pytest.LogCaptureFixture) -> None:
    status = call(tools, "fail").outputs[0].status
    assert (status.code, status.details) == (Code.MODEL_PREDICTION_FAILED, "ValueError: no luck")
    assert "failed" in caplog.text
    first, second = tools("GenerateModelOutputs", request("fail_later"))
    assert returned(first) == "one"
    assert second.status.code == Code.FAILURE
    assert second.outputs[0].status.code == Code.MODEL_PREDICTION_FAILED
    for bad, text in (
        (call(tools, "none"), "it has count, "),
        (call(tools, "_hidden"), "no method '_hidden'"),
        (call(tools, ""), "no method 'predict'"),
        (call(tools, "shout"), "needs text"),
    ):
        status = bad.outputs[0].status
        assert status.code == Code.INPUT_INVALID_ARGUMENT
        assert text in status.details


def test_functions(serve: Callable[..., Raw]) -> None:
    def brightness(image: PIL.Image.Image) -> v2.Data:
        value = float(np.asarray(image.convert("L")).mean()) / 255
        return v2.Data(concepts=[v2.Concept(id="bright", value=value)])

    def words(text: str) -> Iterator[str]:
        yield from text.split()

    raw = serve(models={"brightness": brightness, "words": words, "any": lambda x: x})
    ask = v2.PostModelOutputsRequest(model_id="brightness")
    ask.inputs.add().data.image.base64 = png("white")  # no parts: the data is the argument
    output = raw("PostModelOutputs", ask).outputs[0]
    assert [(c.id, c.value) for c in output.data.concepts] == [("bright", 1.0)]
    ask = v2.PostModelOutputsRequest(model_id="words")
    ask.inputs.add().data.text.raw = "a b"
    texts = [returned(r) for r in raw("GenerateModelOutputs", ask)]
    assert texts == ["a", "b"]
    for value in ("text", b"bytes", 5, 2.5, True, ["a", 1], np.ones(3)):
        got = returned(raw("PostModelOutputs", request(model_id="any", x=value)))
        np.testing.assert_array_equal(got, value)


@dataclasses.dataclass
class Dataclass:
    """What cannot be sent."""

    x: int


class Mode(enum.Enum):
    FAST = "fast"
    GOOD = "good"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Choices:
    """Methods that allow some values only."""

    def mode(self, mode: Mode = Mode.FAST) -> Mode:
        assert isinstance(mode, Mode)
        return mode

    def level(self, level: Level | None) -> Level | None:
        assert level is None or isinstance(level, Level)
        return level

    def side(self, side: Literal["left", "right"]) -> Literal["left", "right"]:
        return side


def test_literals_and_enumerations(serve: Callable[..., Raw]) -> None:
    raw = serve(models={"c": Choices()})
    with raw.server.client() as client:
        model = client.model("c")
        assert model.call("mode") == "fast"
        assert model.call("mode", mode="good") == "good"
        assert model.call("level", level=2) == 2
        assert model.call("level", level=None) is None
        assert model.call("side", side="left") == "left"
        for method, arguments, allowed in (
            ("mode", {"mode": "slow"}, "'fast', 'good'"),
            ("level", {"level": 3}, "1, 2"),
            ("side", {"side": "up"}, "'left', 'right'"),
        ):
            with pytest.raises(errors.InvalidArgumentError, match=f"is none of {allowed}"):
                model.call(method, **arguments)
        (field,) = model.methods()["mode"].input_fields
        assert field.default == "fast"
        assert [option.id for option in field.model_type_enum_options] == ["fast", "good"]


class Later:
    """Asynchronous methods of every shape."""

    def __init__(self) -> None:
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.ended = threading.Event()

    async def add(self, a: int, b: int = 1) -> int:
        self.loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return a + b

    async def count(self, upto: int) -> AsyncIterator[int]:
        self.loops.add(asyncio.get_running_loop())
        try:
            for number in range(upto):
                await asyncio.sleep(0)
                yield number
        finally:
            self.ended.set()

    async def total(self, values: AsyncIterator[float]) -> float:
        return sum([value async for value in values])

    async def echo(self, words: AsyncIterator[str], prefix: str) -> AsyncIterator[str]:
        async for word in words:
            yield prefix + word

    async def fail(self) -> str:
        raise TimeoutError("no luck")

    async def wait(self) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return ""


def test_asynchronous_methods(serve: Callable[..., Raw]) -> None:
    later = Later()
    raw = serve(models={"l": later})
    with raw.server.client() as client:
        model = client.model("l")
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda n: model.call("add", a=n), range(20))) == [*range(1, 21)]
        assert list(model.call("count", upto=3)) == [0, 1, 2]
        assert model.call("total", values=iter([1.0, 2.0])) == 3.0
        assert list(model.call("echo", words=iter(["a", "b"]), prefix="-")) == ["-a", "-b"]
        assert len(later.loops) == 1
        with pytest.raises(errors.ApiError, match="TimeoutError: no luck"):
            model.call("fail")


@pytest.mark.parametrize(("method", "arguments"), [("wait", {}), ("count", {"upto": 10**9})])
def test_asynchronous_methods_end_with_their_call(
    serve: Callable[..., Raw], method: str, arguments: dict[str, Any]
) -> None:
    later = Later()
    raw = serve(models={"l": later})
    # Long enough for the method to begin also on a busy machine.
    seconds = 3.0 if method == "wait" else 60.0
    with raw.server.client(timeout=seconds) as client, contextlib.suppress(errors.ApiError):
        for _ in client.model("l").call(method, **arguments) or ():
            break
    assert later.ended.wait(20)


class Exiting:
    """Raises what is to end a process, a thread or a generator."""

    def plain(self, what: str) -> str:
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "end": GeneratorExit()}[
            what
        ]

    async def later(self, what: str) -> str:
        return self.plain(what)

    def items(self, what: str) -> Iterator[str]:
        yield "first"
        yield self.plain(what)

    async def later_items(self, what: str) -> AsyncIterator[str]:
        yield "first"
        yield self.plain(what)

    async def task(self, what: str) -> str:
        asyncio.get_running_loop().call_soon(self.plain, what)
        await asyncio.sleep(0)
        raise RuntimeError("the method raised nothing")

    async def fine(self) -> str:
        return "fine"


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_methods_that_exit_fail_alone(serve: Callable[..., Raw], transport: str) -> None:
    raw = serve(models={"e": Exiting()}, rest_port=0)
    with raw.server.client(transport=transport, timeout=20, stream_timeout=20) as client:
        model = client.model("e")
        for what in ("exit", "interrupt", "end"):
            for method in ("plain", "later", "items", "later_items", "task"):
                if (what, method) == ("end", "task"):
                    continue  # asyncio takes it for any exception
                with pytest.raises(errors.ApiError, match="the method raised") as caught:
                    list(model.call(method, what=what))
                assert caught.value.code == Code.MODEL_PREDICTION_FAILED
                assert model.call("fine") == "fine"


def test_the_loop_of_a_model_ends_with_the_server() -> None:
    def loops() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "clarigrpc-model"]

    server = LocalServer(models={"l": Later()})
    for _ in range(2):
        with server, server.client() as client:
            assert client.model("l").call("add", a=1) == 2
            assert loops()
        assert not loops()


def test_functions_that_cannot_be_models() -> None:
    async def iterator_of_coroutine() -> AsyncIterator[str]:
        return Later().count(1)  # type: ignore[return-value]

    async def blocking(x: Iterator[str]) -> str:
        return ""

    def not_blocking(x: AsyncIterator[str]) -> str:
        return ""

    def mixed(x: Literal["a", 1]) -> str:
        return ""

    def of_class(x: Dataclass) -> str:
        return ""

    def odd(x: set[int]) -> str:
        return ""

    def unnamed(*x: int) -> str:
        return ""

    def two(a: Iterator[int], b: Iterator[int]) -> str:
        return ""

    for source, reason in (
        (iterator_of_coroutine, "use yield"),
        (blocking, "must be an AsyncIterator"),
        (not_blocking, "must be an Iterator"),
        (mixed, "must be str, or all int"),
        (of_class, "take a dict or str instead"),
        (odd, "cannot be sent"),
        (unnamed, "by name"),
        (two, "several streams"),
        (object(), "no signature"),
        (1, "no signature"),
    ):
        with pytest.raises(TypeError, match=reason):
            LocalServer(models={"m": source})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "grüße"),
        (str, ""),
        (bytes, b"\x00\xff"),
        (int, -(2**62)),
        (float, 0.1),
        (float, 3),
        (bool, False),
        (dict, {"a": [1, {"b": None}]}),
        (list, [1, "a", None]),
        (Any, 5),
        (list[int], []),
        (list[list[str]], [["a"], [], ["b", "c"]]),
        (tuple[int, str, bool], (1, "a", True)),
        (int | None, 5),
        (list[v2.Concept], [v2.Concept(id="a"), v2.Concept(id="b")]),
        (v2.Concept, v2.Concept(id="a", value=0.5)),
        (v2.Text, v2.Text(raw="x")),
        (v2.Image, v2.Image(url="http://x/y.png")),
        (v2.Data, v2.Data(int_value=3)),
    ],
)
def test_values_cross_both_ways(annotation: Any, value: Any) -> None:
    converter = Converter("x", annotation)
    assert converter.decode(converter.encode(value), MediaReader()) == value


def test_arrays_that_lie_are_refused(tools: Raw) -> None:
    for dtype, shape in (("float32", [5]), ("object", [1]), ("nonsense", [1]), ("float32", [2, 9])):
        data = v2.Data(ndarray=v2.NDArray(buffer=b"\0" * 8, dtype=dtype, shape=shape))
        status = call(tools, "double", array=data).outputs[0].status
        assert status.code == Code.INPUT_INVALID_ARGUMENT, dtype


def test_silent_conversations_hold_up_no_others() -> None:
    loop, over = ModelLoop(), threading.Event()

    def silent() -> Iterator[str]:
        over.wait(60)
        yield "late"

    async def first(words: Iterator[str]) -> str:
        return await anext(loop.each(words))

    end = time.monotonic() + 20
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(loop.run, lambda: first(silent()), lambda: True) for _ in range(40)]
        try:
            assert loop.run(lambda: first(iter(["now"])), lambda: time.monotonic() < end) == "now"
        finally:
            over.set()
        assert [each.result() for each in waiting] == ["late"] * 40
    loop.close()


def test_a_loop_whose_thread_cannot_start_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def three() -> int:
        return 3

    end = time.monotonic() + 20
    loop = ModelLoop()
    with (
        refused_threads(monkeypatch, "clarigrpc-model"),
        pytest.raises(RuntimeError, match="new thread"),
    ):
        loop.run(three, lambda: True)
    assert loop.run(three, lambda: time.monotonic() < end) == 3
    loop.close()


def test_a_result_that_comes_with_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            if timeout is not None:
                raise TimeoutError
            return super().result()

    def finished(work: Coroutine[Any, Any, int], _: asyncio.AbstractEventLoop) -> Future[int]:
        work.close()
        future = Late()
        future.set_result(3)
        return future

    async def three() -> int:
        return 3

    loop = ModelLoop()
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", finished)
    assert loop.run(three, lambda: True) == 3
    loop.close()


def test_a_batched_function_has_one_caller_here() -> None:
    calls: list[list[str]] = []

    @batched
    def lengths(text: list[str]) -> list[int]:
        calls.append(text)
        return [len(one) for one in text][: 1 if "short" not in text else 0]

    with LocalServer(models={"m": lengths}) as server, server.client() as client:
        model = client.model("m")
        assert model.methods()["predict"].input_fields[0].type == v2.ModelTypeField.STR
        assert model.call("predict", text="four") == 4
        with pytest.raises(errors.ApiError, match="has to return a list of 1 results"):
            model.call("predict", text="short")
    assert calls == [["four"], ["short"]]
