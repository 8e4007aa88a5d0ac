"""Methods with named arguments: signatures, checks, values, streams; with both clients."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import errors, image, v2
from clarigrpc._named_methods.signatures import read_signatures, signature_text
from clarigrpc._named_methods.values import MediaReader, decode, encode, type_of
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import ScriptedServer, refuse, reply

Code = v2.StatusCode
Field = v2.ModelTypeField
PREDICT = "PostModelOutputs"


class Toolbox:
    """Methods of every shape."""

    def text(self, value: str) -> str:
        return value

    def content(self, value: bytes) -> bytes:
        return value

    def integer(self, value: int) -> int:
        return value

    def number(self, value: float) -> float:
        return value

    def truth(self, value: bool) -> bool:
        return value

    def listing(self, value: list[int]) -> list[int]:
        return value

    def nested(self, value: list[tuple[str, float]]) -> list[tuple[str, float]]:
        return value

    def json(self, value: dict[str, Any]) -> dict[str, Any]:
        return value

    def array(self, value: np.ndarray) -> np.ndarray:
        return value

    def picture(self, value: PIL.Image.Image) -> PIL.Image.Image:
        return value.rotate(90, expand=True)

    def message(self, value: v2.Text) -> v2.Text:
        return value

    def sound(self, value: v2.Audio) -> v2.Audio:
        return value

    def film(self, value: v2.Video) -> v2.Video:
        return value

    def concept(self, value: v2.Concept) -> v2.Concept:
        return value

    def concepts(self, value: list[v2.Concept]) -> list[v2.Concept]:
        return value

    def region(self, value: v2.Region) -> v2.Region:
        return value

    def frames(self, value: list[v2.Frame]) -> list[v2.Frame]:
        return value

    def anything(self, value):  # type: ignore[no-untyped-def]
        return value

    def shout(self, text: str, times: int = 1, mark: str = "!") -> str:
        return text.upper() * times + mark

    def count(self, upto: int) -> Iterator[int]:
        yield from range(upto)

    def total(self, values: Iterator[float], start: float = 0.0) -> float:
        return sum(values, start)

    def echo(self, words: Iterator[str], prefix: str) -> Iterator[str]:
        for word in words:
            yield prefix + word

    def timeout(self, timeout: float) -> float:
        return timeout

    def fail(self) -> str:
        raise ValueError("no luck")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(models={"tools": Toolbox}) as server:
        yield server


@pytest.fixture
def tools(connect: Connect, server: LocalServer) -> Tools:
    both = connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)
    return Tools(both, both.client.model("tools"))


class Tools:
    """Calls methods of a model with either client."""

    def __init__(self, both: Both, model: Any) -> None:
        self.both = both
        self.model = model

    async def call(self, method: str, **arguments: Any) -> Any:
        """The result of a method."""

        def blocking() -> Any:
            return self.model.call(method, **arguments)

        return await (asyncio.to_thread(blocking) if self.both.is_sync else blocking())

    async def stream(self, method: str, **arguments: Any) -> list[Any]:
        """The results of a method that streams them."""
        return await self.both.collect(await self.call(method, **arguments))


VALUES: list[tuple[str, Any]] = [
    ("text", "Grüße\n"),
    ("text", ""),
    ("content", b"\0\xff"),
    ("integer", 0),
    ("integer", -(2**63)),
    ("integer", np.int16(7)),
    ("number", 1.5),
    ("number", 2),
    ("number", np.float32(0.25)),
    ("truth", True),
    ("truth", False),
    ("truth", np.True_),
    ("listing", [1, 2, 0]),
    ("listing", []),
    ("nested", [("a", 1.0), ("b", 0.0)]),
    ("json", {"deep": [1, None, {"x": "y"}]}),
    ("message", v2.Text(raw="hey")),
    ("sound", v2.Audio(base64=b"snd")),
    ("film", v2.Video(url="https://example.com/v.mp4")),
    ("concept", v2.Concept(id="cat", value=0.5)),
    ("concepts", [v2.Concept(id="cat"), v2.Concept(id="dog")]),
    ("region", v2.Region(id="r", value=0.5)),
    ("frames", [v2.Frame(id="f")]),
    ("anything", "word"),
    ("anything", 5),
    ("anything", [1, "two", 3.5]),
]


@pytest.mark.parametrize(("method", "value"), VALUES, ids=lambda value: str(value)[:30])
async def test_a_value_comes_back(tools: Tools, method: str, value: Any) -> None:
    found = await tools.call(method, value=value)
    assert found == value
    if method != "number" and not isinstance(value, np.generic):
        assert type(found) is type(value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint16", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
async def test_arrays(tools: Tools, dtype: str, shape: tuple[int, ...]) -> None:
    value = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    found = await tools.call("array", value=value)
    assert (found.dtype, found.shape) == (value.dtype, shape)
    np.testing.assert_array_equal(found, value)
    found += found.dtype.type(1)  # it is the caller's own


def picture() -> PIL.Image.Image:
    made = PIL.Image.new("RGB", (3, 2), "red")
    made.putpixel((0, 0), (1, 2, 3))
    return made


@pytest.mark.parametrize(
    "value",
    [
        picture(),
        np.asarray(picture()),
        image(picture()),
        image(picture()).data.image,
        image(picture()).data.image.base64,
    ],
    ids=["pil", "array", "input", "message", "bytes"],
)
async def test_images(tools: Tools, value: Any) -> None:
    found = await tools.call("picture", value=value)
    assert isinstance(found, PIL.Image.Image)
    assert found.size == (2, 3)
    assert found.convert("RGB").getpixel((0, 2)) == (1, 2, 3)


async def test_defaults_stay_with_the_server(tools: Tools) -> None:
    assert await tools.call("shout", text="hey") == "HEY!"
    assert await tools.call("shout", text="hey", times=None, mark="?") == "HEY?"
    assert await tools.call("shout", text="hey", times=2) == "HEYHEY!"


async def test_signatures(tools: Tools) -> None:
    methods = await tools.both.run(tools.model.methods)
    assert set(methods) >= {"shout", "count", "total", "echo"}
    texts = {name: signature_text(signature) for name, signature in methods.items()}
    assert texts["shout"] == "shout(text: str, times: int = 1, mark: str = '!') -> str"
    assert texts["echo"] == "echo(words: Iterator[str], prefix: str) -> Iterator[str]"
    assert texts["nested"] == ("nested(value: list[tuple[str, float]]) -> list[tuple[str, float]]")
    assert methods["shout"].input_fields[0].required


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("shout", {}, "missing argument 'text'"),
    ("shout", {"text": None}, "missing argument 'text'"),
    ("shout", {"text": "a", "loud": True}, "unknown argument 'loud'"),
    ("shout", {"text": 5}, "argument 'text': expected str, not int"),
    ("shout", {"text": "a", "times": "2"}, "argument 'times': expected int, not str"),
    ("shout", {"text": "a", "times": 2.0}, "argument 'times': expected int, not float"),
    ("shout", {"text": "a", "times": True}, "argument 'times': expected int, not bool"),
    ("number", {"value": "1"}, "expected float, not str"),
    ("number", {"value": False}, "expected float, not bool"),
    ("truth", {"value": 1}, "expected bool, not int"),
    ("content", {"value": "a"}, "expected bytes, not str"),
    ("listing", {"value": 5}, r"expected list\[int\], not int"),
    ("listing", {"value": [1, "a"]}, "at 1: expected int, not str"),
    ("nested", {"value": [("a",)]}, "at 0: expected 2 elements, not 1"),
    ("json", {"value": {"a": {1}}}, "argument 'value': .*set"),
    ("array", {"value": [1, 2]}, "expected numpy.ndarray, not list"),
    ("array", {"value": np.array([object()])}, "arrays of dtype object"),
    ("picture", {"value": "cat.jpg"}, r"use image\(...\)"),
    ("picture", {"value": 5}, "expected Image, not int"),
    ("concept", {"value": v2.Region()}, "expected Concept, not Region"),
    ("concepts", {"value": [v2.Region()]}, "expected Concept, not Region"),
    ("anything", {"value": object()}, "type object are not supported"),
    ("total", {"values": 5}, "argument 'values': expected an iterable, not int"),
    ("echo", {"words": "abc", "prefix": "a"}, "argument 'words': expected an iterable, not str"),
    ("echo", {"prefix": "a"}, "missing argument 'words'"),
]


@pytest.mark.parametrize(("method", "arguments", "text"), WRONG)
async def test_wrong_arguments_are_told_here(
    tools: Tools, method: str, arguments: dict[str, Any], text: str
) -> None:
    methods = await tools.both.run(tools.model.methods)
    with pytest.raises(TypeError, match=text) as caught:
        await tools.call(method, **arguments)
    assert str(caught.value).startswith(f"{method}()")
    assert signature_text(methods[method]) in str(caught.value)


async def test_values_that_cannot_be_sent(tools: Tools) -> None:
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"a": deep}
    for name, value in (("integer", 2**63), ("number", 10**400), ("json", deep)):
        with pytest.raises(errors.InvalidArgumentError, match=rf"{name}\(\): argument 'value'"):
            await tools.call(name, value=value)


async def test_an_unknown_method(tools: Tools) -> None:
    with pytest.raises(
        errors.InvalidArgumentError, match=r"no method 'nope'; its methods are .*shout"
    ):
        await tools.call("nope")


async def test_a_method_that_fails(tools: Tools) -> None:
    with pytest.raises(errors.ApiError, match="no luck"):
        await tools.call("fail")


async def test_an_argument_called_timeout(tools: Tools) -> None:
    assert await tools.call("timeout", timeout=3.0, _timeout=5.0) == 3.0


async def test_streams_out(tools: Tools) -> None:
    assert await tools.stream("count", upto=5) == [0, 1, 2, 3, 4]


async def test_streams_in(tools: Tools) -> None:
    assert await tools.call("total", values=iter([1.0, 2.0]), start=0.5) == 3.5
    assert await tools.call("total", values=[], start=0.5) == 0.5


async def test_streams_both_ways(tools: Tools) -> None:
    words = [f"w{number}" for number in range(200)]
    found = await tools.stream("echo", words=iter(words), prefix="-")
    assert found == [f"-{word}" for word in words]
    assert await tools.stream("echo", words=[], prefix="-") == []


async def test_a_wrong_value_in_a_stream(tools: Tools) -> None:
    with pytest.raises(TypeError, match="argument 'words': expected str, not int"):
        await tools.stream("echo", words=["a", 5], prefix="-")


async def test_a_source_that_fails_gives_no_result(tools: Tools) -> None:
    def values() -> Iterator[float]:
        yield 1.0
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        await tools.call("total", values=values())


async def test_the_async_client_iterates_without_await(server: LocalServer) -> None:
    async def words() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0.01)
        yield "b"

    async with server.async_client() as client:
        model = client.model("tools")
        assert [one async for one in model.call("echo", words=words(), prefix="-")] == ["-a", "-b"]
        assert await model.call("total", values=(float(i) for i in range(4))) == 6.0
        with pytest.raises(TypeError, match="await it"):
            async for _ in model.call("shout", text="a"):
                pass


# What is on the wire


def asked(told: Any) -> Any:
    """An answer with the signatures."""
    output = v2.Output(status=v2.Status(code=Code.SUCCESS))
    output.data.text.raw = json.dumps(told)
    return reply(PREDICT, outputs=[output])


async def test_the_request(both: Both, scripted: ScriptedServer) -> None:
    told = {
        "act": {
            "name": "act",
            "methodType": "UNARY_UNARY",
            "inputFields": [
                {"name": "a", "type": "STR", "required": True},
                {"name": "b", "type": "INT", "default": "3"},
                {
                    "name": "who",
                    "type": "NAMED_FIELDS",
                    "typeArgs": [
                        {"name": "name", "type": "STR", "required": True},
                        {"name": "age", "type": "INT"},
                    ],
                },
            ],
            "outputFields": [
                {"name": "x", "type": "INT"},
                {"name": "y", "type": "LIST", "typeArgs": [{"type": "STR"}]},
            ],
            "unknownToThisClient": 1,
        }
    }
    output = v2.Output(status=v2.Status(code=Code.SUCCESS))
    output.data.parts.add(id="x").data.int_value = 5
    output.data.parts.add(id="y").data.parts.add(id="0").data.string_value = "z"
    scripted.on(PREDICT, asked(told), reply(PREDICT, outputs=[output]))
    tools = Tools(both, both.client.model("m"))
    found = await tools.call("act", a="hey", who={"name": "Ada"})
    assert found == {"x": 5, "y": ["z"]}
    first, second = (seen.request.inputs[0].data for seen in scripted.seen)
    assert dict(first.metadata) == {"_method_name": "_GET_SIGNATURES"}
    assert dict(second.metadata) == {"_method_name": "act"}
    assert [(part.id, part.data.string_value) for part in second.parts] == [
        ("a", "hey"),
        ("who", ""),
    ]
    assert second.parts[1].data.parts[0].id == "name"
    with pytest.raises(TypeError, match="unknown key 'size'"):
        await tools.call("act", a="", who={"name": "Ada", "size": 1})
    with pytest.raises(TypeError, match="missing key 'name'"):
        await tools.call("act", a="", who={})
    assert len(scripted.seen) == 2  # signatures are asked for once


async def test_later_requests_have_the_streamed_argument_only(
    both: Both, scripted: ScriptedServer
) -> None:
    told = {
        "talk": {
            "name": "talk",
            "methodType": "STREAMING_STREAMING",
            "inputFields": [
                {"name": "word", "type": "STR", "iterator": True, "required": True},
                {"name": "mood", "type": "STR", "required": True},
            ],
            "outputFields": [{"name": "return", "type": "STR", "iterator": True}],
        }
    }

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in requests:
            output = v2.Output(status=v2.Status(code=Code.SUCCESS))
            output.data.parts.add(id="return").data.string_value = "ok"
            yield reply("StreamModelOutputs", outputs=[output])

    scripted.on(PREDICT, asked(told))
    scripted.on("StreamModelOutputs", serve)
    tools = Tools(both, both.client.model("m"))
    assert await tools.stream("talk", word=["a", "b", "c"], mood="good") == ["ok"] * 3
    parts = [
        {part.id: part.data.string_value for part in request.inputs[0].data.parts}
        for request in scripted.seen[-1].requests
    ]
    assert parts == [{"mood": "good", "word": "a"}, {"word": "b"}, {"word": "c"}]


async def test_a_model_without_named_methods(both: Both, scripted: ScriptedServer) -> None:
    output = v2.Output(status=v2.Status(code=Code.SUCCESS))
    output.data.text.raw = "I am a language model"
    scripted.on(PREDICT, reply(PREDICT, outputs=[output]))
    with pytest.raises(errors.UnimplementedError, match=r"no methods with named arguments"):
        await both.run(both.client.model("m").methods)


@pytest.mark.parametrize("code", [Code.INPUT_UNSUPPORTED_FORMAT, Code.INPUT_INVALID_ARGUMENT])
async def test_a_model_that_takes_the_question_for_an_input(
    both: Both, scripted: ScriptedServer, code: v2.StatusCode.ValueType
) -> None:
    scripted.on(PREDICT, refuse(PREDICT, code))
    with pytest.raises(errors.UnimplementedError, match=r"no methods with named arguments"):
        await both.run(both.client.model("m").methods)


async def test_an_answer_that_is_not_what_was_said(both: Both, scripted: ScriptedServer) -> None:
    told = {"act": {"name": "act", "outputFields": [{"name": "return", "type": "NDARRAY"}]}}
    output = v2.Output(status=v2.Status(code=Code.SUCCESS))
    output.data.parts.add(id="return").data.ndarray.dtype = "O"
    scripted.on(PREDICT, asked(told), reply(PREDICT, outputs=[output]))
    with pytest.raises(errors.InternalError, match="arrays of dtype 'O'"):
        await Tools(both, both.client.model("m")).call("act")


# Values, without a server

plain = st.recursive(
    st.text()
    | st.binary(min_size=1)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.booleans(),
    lambda inner: st.lists(inner, min_size=1, max_size=4),
    max_leaves=8,
)


def described(value: Any) -> v2.ModelTypeField:
    """The field that a signature has for values like this one: lists as tuples."""
    field = Field(type=type_of(value))
    if isinstance(value, list):
        field.type = Field.TUPLE
        field.type_args.extend(described(item) for item in value)
    return field


def thaw(value: Any) -> Any:
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def encoded_picture(kind: str) -> bytes:
    content = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), (10, 200, 30)).save(content, kind)
    return content.getvalue()


@given(plain)
def test_any_value_comes_back(value: Any) -> None:
    data = v2.Data()
    field = described(value)
    encode(value, field, data)
    sent = v2.Data.FromString(data.SerializeToString())
    assert thaw(decode(sent, field, MediaReader())) == value


PICTURES = [encoded_picture(kind) for kind in ("PNG", "GIF", "TIFF", "BMP", "PPM", "TGA", "WEBP")]
NUMBERS = ["float32", ">f4", "int8", "bool", "complex64", "?", "<u1", "double", "int", "=H", "L"]
ODD = [
    "",
    "a",
    "a8",
    "O",
    "S3",
    "str",
    "object",
    "void",
    "M8[ns]",
    "timedelta64",
    "float7",
    "i4,i4",
]
ODD += [",", "01", "0(", "2f4", "(2,)f4", "f4\n", "[('x', 'f4')]", "{'names': []}", "\0", "é"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with some of its bytes changed, perhaps cut off."""
    content = bytearray(draw(st.sampled_from(PICTURES)))
    # Most of what a reader looks at is at the beginning.
    places = st.integers(0, min(len(content), 80) - 1)
    for place, value in draw(st.dictionaries(places, st.integers(0, 255), max_size=8)).items():
        content[place] = value
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "NaN", '"\\ud800"']),
)


@given(
    st.one_of(st.sampled_from(NUMBERS + ODD), st.text(max_size=4)),
    st.binary(max_size=32),
    st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1)), max_size=70),
    TEXTS,
    damaged(),
    st.floats(),
    st.sampled_from(list(Field.DataType.values())),
)
def test_any_data_is_a_value_or_a_value_error(
    dtype: str,
    content: bytes,
    shape: list[int],
    plain: str,
    picture: bytes,
    number: float,
    kind: Any,
) -> None:
    """Whatever a foreign model says of an array, an image or JSON, without a warning."""
    data = v2.Data(string_value=plain)
    data.image.base64 = picture
    data.ndarray.buffer = content
    data.ndarray.dtype = dtype
    data.ndarray.shape.extend(shape)
    structured = v2.Data()
    structured.struct_value["number"] = number
    for one in (data, structured, v2.Data()):
        with contextlib.suppress(ValueError):
            decode(one, Field(type=kind), MediaReader())


@pytest.mark.parametrize("dtype", NUMBERS)
def test_arrays_of_any_number(dtype: str) -> None:
    sent = np.array([[1, 0, 1]], dtype)
    data = v2.Data(ndarray=v2.NDArray(buffer=sent.tobytes(), dtype=dtype, shape=[1, 3]))
    found = decode(data, Field(type=Field.NDARRAY), MediaReader())
    assert found.dtype == sent.dtype
    assert found.tolist() == sent.tolist()


@pytest.mark.parametrize("dtype", ODD)
def test_an_odd_dtype_is_a_value_error(dtype: str) -> None:
    data = v2.Data(ndarray=v2.NDArray(buffer=b"a", dtype=dtype, shape=[1]))
    with pytest.raises(ValueError, match="are not supported"):
        decode(data, Field(type=Field.NDARRAY), MediaReader())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
signature_keys = st.sampled_from(["name", "methodType", "inputFields", "typeArgs", "type"])


@given(
    st.one_of(
        TEXTS,
        json_values.map(json.dumps),
        st.dictionaries(st.text(max_size=2), json_values, min_size=1).map(json.dumps),
        st.dictionaries(
            st.text(max_size=2), st.dictionaries(signature_keys, json_values), min_size=1
        ).map(json.dumps),
    )
)
def test_any_answer_is_signatures_or_none(text: str) -> None:
    output = v2.Output()
    output.data.text.raw = text
    with contextlib.suppress(errors.UnimplementedError):
        read_signatures(output, "m")


class Nullable:
    """Methods whose arguments and results may be None."""

    def whole(self, a: int | None = 5) -> int | None:
        return a

    def words(self, a: str | None = "") -> str | None:
        return a

    def share(self, a: float | None) -> float | None:
        return a

    def many(self, a: list[int] | None = None) -> list[int] | None:
        return a

    def plain(self, a: int = 5) -> int:
        return a

    def untyped(self, a):  # type: ignore[no-untyped-def]
        return a


async def test_none_stays_none(connect: Connect) -> None:
    with LocalServer(models={"nullable": Nullable()}) as server:
        both = connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)
        model = both.client.model("nullable")
        for name, value in (("whole", 7), ("words", "x"), ("share", 0.5), ("many", [1])):
            assert await both.run(model.call, name, a=None) is None
            assert await both.run(model.call, name, a=value) == value
        assert await both.run(model.call, "whole") == 5
        assert await both.run(model.call, "words") == ""
        assert await both.run(model.call, "whole", a=0) == 0
        assert await both.run(model.call, "plain", a=None) == 5
        signatures = await both.run(model.methods)
        assert signatures["whole"].input_fields[0].type == v2.ModelTypeField.INT


@pytest.mark.parametrize("value", [{"x": 1}, {"a": {"b": [1, "c", None]}}, [{"k": 1}], "text", 7])
async def test_what_an_untyped_argument_is_given_arrives(connect: Connect, value: Any) -> None:
    with LocalServer(models={"nullable": Nullable()}) as server:
        both = connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)
        assert await both.run(both.client.model("nullable").call, "untyped", a=value) == value
