"""Bad input: each gives one clear exception that names what to do, within the deadline."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import RetryPolicy, audio, errors, image, text, v2, video
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import PAT, Connect
from tests.scripted import ScriptedServer, reply
from tests.socket_server import kept_port, server_that

GET = v2.GetModelRequest(model_id="m")
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def local(connect: Connect, clarifai_local: LocalServer) -> Both:
    server = clarifai_local
    return connect(
        server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id, timeout=10
    )


def colors(both: Both) -> Any:
    return both.client.model("color-recognition", user_id="clarifai", app_id="main")


async def test_wrong_types(local: Both) -> None:
    model = colors(local)
    for wrong in (5, None, object(), {"image": "x"}, [5], 1.5):
        with pytest.raises(TypeError, match="takes a path, a URL, bytes or a binary file"):
            await local.run(model.predict, wrong)
    with pytest.raises(TypeError, match=r"say image\(\.\.\.\)"):
        await local.run(model.predict, "cat.jpg")
    with pytest.raises(TypeError, match=r"text\(\) takes a string, not int"):
        text(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await local.run(local.client.inputs.create, 5)
    with pytest.raises(TypeError, match="takes a PostInputsRequest, not PostModelsRequest"):
        await local.call("PostInputs", v2.PostModelsRequest())


async def test_empty_lists(local: Both) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="at least one"):
        await local.run(colors(local).predict, [])
    with pytest.raises(errors.InvalidArgumentError, match="at least one"):
        await local.run(local.client.inputs.create, [])
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await local.call("PostInputs", v2.PostInputsRequest())
    assert "inputs" in str(caught.value)


async def test_129_inputs_in_one_request(local: Both) -> None:
    request = v2.PostInputsRequest(inputs=[text(str(n)) for n in range(129)])
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await local.call("PostInputs", request)
    assert "128" in str(caught.value)


async def test_129_inputs_of_a_list_are_split(local: Both) -> None:
    inputs = [text(f"129 inputs {n}") for n in range(129)]
    assert len(await local.run(local.client.inputs.create, inputs)) == 129


async def test_an_image_that_is_none(local: Both) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await local.run(colors(local).predict, image(b"this is no image"))
    assert caught.value.code == v2.StatusCode.INPUT_UNSUPPORTED_FORMAT
    assert "image" in str(caught.value)


@pytest.mark.parametrize("make", [image, video, audio])
def test_a_missing_file(make: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "cat.jpg", str(tmp_path / "cat.jpg")):
        with pytest.raises(FileNotFoundError, match=r"cat\.jpg.*there is no such file"):
            make(path)
    with pytest.raises(IsADirectoryError):
        make(tmp_path)


@pytest.mark.parametrize("make", [image, video, audio])
@pytest.mark.parametrize("url", ["ftp://h/x.jpg", "file:///etc/passwd", "s3://b/k", "://x"])
def test_a_strange_scheme(make: Any, url: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="http:// and https:// URLs only"):
        make(url)


async def test_a_strange_scheme_that_the_service_sees(local: Both) -> None:
    value = v2.Input(data=v2.Data(image=v2.Image(url="ftp://h/x.jpg")))
    with pytest.raises(errors.ApiError) as caught:
        await local.run(colors(local).predict, value)
    assert not caught.value.retryable
    assert "ftp" in str(caught.value)


async def test_a_model_that_does_not_exist(local: Both) -> None:
    model = local.client.model("no-such-model", user_id="clarifai", app_id="main")
    with pytest.raises(errors.NotFoundError) as caught:
        await local.run(model.predict, b"x")
    assert caught.value.code == v2.StatusCode.MODEL_DOES_NOT_EXIST
    assert "no-such-model" in str(caught.value)
    for wrong in ("", None, 5):
        with pytest.raises(errors.InvalidArgumentError, match="needs the id of a model"):
            local.client.model(wrong)
    for address in ("clarifai/main/color-recognition", "https://h/clarifai/main/models/m"):
        with pytest.raises(errors.InvalidArgumentError, match="not the id of a model; use"):
            local.client.model(address)


@pytest.mark.parametrize("kind", ["pat", "api_key", "session_token"])
async def test_a_wrong_key(connect: Connect, clarifai_local: LocalServer, kind: str) -> None:
    both = connect(clarifai_local.base, **{kind: "wrong-0123456789abcdef"})
    with pytest.raises(errors.AuthenticationError) as caught:
        await both.call("GetModel", GET)
    assert "wrong-0123456789abcdef" not in str(caught.value)
    assert caught.value.code is not None
    assert not caught.value.retryable


async def fails(both: Both, *says: str, seconds: float) -> errors.ApiError:
    """The one failure of a call that must end within its deadline."""
    began = time.monotonic()
    with pytest.raises(errors.ApiError) as caught:
        await both.call("GetModel", GET)
    assert time.monotonic() - began < seconds
    for part in (both.client.settings.target.url, *says):
        assert part in str(caught.value)
    with pytest.raises(type(caught.value)):
        await both.collect(
            both.open("GenerateModelOutputs", v2.PostModelOutputsRequest(model_id="m"))
        )
    return caught.value


@pytest.mark.measures
async def test_a_server_that_is_not_there(connect: Connect) -> None:
    with kept_port() as port:
        both = connect(f"http://127.0.0.1:{port}", timeout=5, stream_timeout=5)
        error = await fails(both, "nothing listens at", "base=", seconds=5)
    assert type(error) is errors.UnavailableError
    assert error.retryable


@pytest.fixture
def http1() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.measures
async def test_a_server_that_speaks_http1(connect: Connect, http1: int) -> None:
    both = connect(f"http://127.0.0.1:{http1}", timeout=5, retry=ONCE)
    error = await fails(both, "HTTP/1", "gRPC address", "transport='rest'", seconds=5)
    assert type(error) is errors.UnavailableError


@pytest.mark.measures
async def test_rest_where_grpc_is_spoken(connect: Connect, clarifai_local: LocalServer) -> None:
    ids = {"user_id": "clarifai", "app_id": "main"}
    both = connect(clarifai_local.base, transport="rest", timeout=5, retry=ONCE, **ids)
    error = await fails(both, "HTTP/1", "address for REST", seconds=5)
    assert type(error) is errors.UnavailableError


@pytest.mark.measures
async def test_tls_where_http1_is_spoken(connect: Connect, http1: int) -> None:
    both = connect(f"https://127.0.0.1:{http1}", timeout=5, retry=ONCE)
    await fails(both, "does not speak TLS", "base='http://...'", seconds=5)


@pytest.mark.measures
async def test_a_blackhole(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        both = connect(
            f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5, stream_timeout=0.5
        )
        error = await fails(both, "in time", "timeout=", seconds=1.5)
        assert type(error) is errors.DeadlineExceededError


@pytest.mark.measures
async def test_a_server_that_hangs_up(connect: Connect) -> None:
    with server_that(lambda connection: None) as port:
        both = connect(f"http://127.0.0.1:{port}", timeout=5, retry=ONCE)
        await fails(both, "base='https://...'", seconds=5)


async def test_timeouts_of_a_call(both: Both) -> None:
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(errors.ConfigurationError, match="number of seconds above 0"):
            await both.call("GetModel", GET, timeout=wrong)
        with pytest.raises(errors.ConfigurationError, match="number of seconds above 0"):
            await both.collect(both.open("StreamModelOutputs", [], timeout=wrong))


@pytest.mark.parametrize(
    ("metadata", "error", "says"),
    [
        ([("Upper", "x")], errors.InvalidArgumentError, "metadata key 'Upper': lower-case"),
        ([("x y", "z")], errors.InvalidArgumentError, "metadata key 'x y'"),
        ([("x", "line\nbreak")], errors.InvalidArgumentError, "metadata 'x': printable ASCII"),
        ([("x", "é")], errors.InvalidArgumentError, "metadata 'x': printable ASCII"),
        ([("x", 5)], TypeError, "pairs of a key and a value"),
        ([("x-bin", "text")], TypeError, "'x-bin' takes bytes"),
        ("text", TypeError, "pairs of a key and a value"),
    ],
)
async def test_metadata_that_is_none(
    both: Both, metadata: Any, error: type[Exception], says: str
) -> None:
    # gRPC's own error would show all metadata, the credential among it.
    with pytest.raises(error, match=says) as caught:
        await both.call("GetModel", GET, metadata=metadata)
    assert PAT not in "".join(traceback.format_exception(caught.value))


async def test_binary_metadata(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel"))
    await both.call("GetModel", GET, metadata=(("x-bin", b"\x00\xff"), ("y", b"text")))
    assert scripted.seen[0].metadata["y"] == "text"
