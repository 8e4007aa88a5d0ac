"""Uploads against the local server, and against services that misbehave, with both clients."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from clarigrpc import errors, v2
from clarigrpc._uploads import async_driver, sync_driver
from clarigrpc._uploads.resume_state import SUFFIX
from clarigrpc._uploads.upload_progress import UploadProgress
from clarigrpc._uploads.upload_session import UploadResult
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.waiting import until

PART = 128 << 10
CONTENT = random.Random(1).randbytes(11 * PART + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(data_dir: Path) -> Iterator[LocalServer]:
    with LocalServer(data_dir=data_dir) as running:
        prepare(running)
        yield running


@pytest.fixture
def both(server: LocalServer, connect: Connect) -> Both:
    return connect(server.base, **identity(server))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    return path


def prepare(server: LocalServer) -> None:
    """Make what versions can be uploaded to."""
    with server.client() as client:
        client.v2.PostModels(v2.PostModelsRequest(models=[v2.Model(id="m")]))
        client.artifacts.create("a")
        client.pipeline_steps.create("p")


def identity(server: LocalServer) -> dict[str, Any]:
    return {"pat": server.pat, "user_id": server.user_id, "app_id": server.app_id}


def stored(data_dir: Path) -> set[str]:
    """SHA-256 of every uploaded file, as it lies on the server's disk."""
    # Beside a file whose parts came in any order stands the record of their ranges.
    files = (
        path
        for path in (data_dir / "uploads").iterdir()
        if path.is_file() and path.suffix != ".ranges"
    )
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def states(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(SUFFIX)]


async def upload(both: Both, source: Any, **options: Any) -> UploadResult:
    options.setdefault("part_size", PART)
    model = both.client.model("m")
    result: UploadResult = await both.run(model.upload_version, source, **options)
    return result


async def test_a_model_version(both: Both, file: Path, data_dir: Path) -> None:
    result = await upload(both, file, version=v2.ModelVersion(description="mine"), verify=True)
    assert result.sha256 == SHA256
    assert result.size == len(CONTENT)
    assert result.status.code == v2.StatusCode.MODEL_BUILDING
    assert result.resumed_from == 0
    assert SHA256 in stored(data_dir)
    assert states(file.parent) == []
    request = v2.GetModelVersionRequest(model_id="m", version_id=result.version_id)
    version = (await both.call("GetModelVersion", request)).model_version
    assert version.description == "mine"
    assert version.metadata["content_sha256"] == SHA256


async def test_an_artifact_version(both: Both, file: Path, data_dir: Path) -> None:
    artifacts = both.client.artifacts
    result = await both.run(artifacts.upload, file, "a", verify=True)
    assert result.sha256 == SHA256
    assert SHA256 in stored(data_dir)
    version = await both.run(artifacts.versions("a").get, result.version_id)
    assert version.upload.content_length == len(CONTENT)
    found = await both.collect(artifacts.versions("a").list())
    assert [one.id for one in found] == [result.version_id]
    assert [one.id for one in await both.collect(artifacts.list())] == ["a"]


async def test_a_pipeline_step_version(both: Both, file: Path, data_dir: Path) -> None:
    steps = both.client.pipeline_steps
    result = await both.run(steps.upload, file, "p", verify=True)
    assert result.sha256 == SHA256
    assert SHA256 in stored(data_dir)
    assert (await both.run(steps.versions("p").get, result.version_id)).id == result.version_id
    assert [one.id for one in await both.collect(steps.versions("p").list())] == [result.version_id]


async def test_an_upload_of_its_own(both: Both, file: Path, data_dir: Path) -> None:
    uploads = both.client.uploads
    done = await both.run(uploads.upload, file, name="x.bin", part_size=PART, verify=True)
    assert done.status.code == v2.StatusCode.UPLOAD_DONE
    assert done.content_name == "x.bin"
    assert SHA256 in stored(data_dir)
    assert [one.id for one in await both.collect(uploads.list())] == [done.id]
    await both.run(uploads.delete, done.id)
    with pytest.raises(errors.NotFoundError):
        await both.run(uploads.get, done.id)


@contextmanager
def _pipe() -> Iterator[Any]:
    """The content through a pipe of the system, written by a thread."""
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as end:
            end.write(CONTENT)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open(read, "rb") as end:
        yield end
    feeder.join()


@contextmanager
def _sources(kind: str, file: Path) -> Iterator[Any]:
    if kind == "pipe":
        with _pipe() as pipe:
            yield pipe
    elif kind == "open file":
        with file.open("rb") as opened:
            yield opened
    elif kind == "gzip":
        packed = file.with_suffix(".gz")
        packed.write_bytes(gzip.compress(CONTENT, 1))
        with gzip.open(packed) as opened:
            yield opened
    else:
        yield {
            "path": file,
            "string": str(file),
            "bytes": CONTENT,
            "bytearray": bytearray(CONTENT),
            "memoryview": memoryview(CONTENT),
            "BytesIO": io.BytesIO(CONTENT),
        }[kind]


KINDS = ["path", "string", "bytes", "bytearray", "memoryview", "BytesIO", "gzip", "open file"]


@pytest.mark.parametrize("kind", [*KINDS, "pipe"])
async def test_every_kind_of_source(both: Both, file: Path, kind: str, data_dir: Path) -> None:
    with _sources(kind, file) as source:
        assert (await upload(both, source, verify=True)).sha256 == SHA256
    assert SHA256 in stored(data_dir)


async def test_a_stream_of_known_size_is_sent_as_it_comes(both: Both, data_dir: Path) -> None:
    with _pipe() as pipe:
        assert (await upload(both, pipe, size=len(CONTENT))).sha256 == SHA256
    assert SHA256 in stored(data_dir)


async def test_a_file_that_was_cut_says_so(both: Both, file: Path) -> None:
    """Whichever part is the first that is not there."""
    ended: list[UploadProgress] = []

    def cut(progress: UploadProgress) -> None:
        if not ended and progress.bytes_done:
            ended.append(progress)
            os.truncate(file, PART // 2)

    with pytest.raises(errors.InvalidArgumentError, match=r"model.bin: the file was changed"):
        await upload(both, file, stream_bytes=PART, progress=cut)


@pytest.mark.parametrize("kind", ["model", "unary"])
async def test_a_pipe_that_does_not_end_is_read_until_the_deadline(both: Both, kind: str) -> None:
    send = both.client.model("m").upload_version if kind == "model" else both.client.uploads.upload
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as source, open(write, "wb", buffering=0) as end:
        end.write(b"abc")
        async with asyncio.timeout(10):
            with pytest.raises(errors.DeadlineExceededError, match=r"not read to its end.*3 bytes"):
                await both.run(send, source, timeout=0.5)


@pytest.mark.parametrize("kind", ["model", "unary"])
async def test_content_that_does_not_come_in_time_is_blamed(both: Both, kind: str) -> None:
    send = both.client.model("m").upload_version if kind == "model" else both.client.uploads.upload
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as source, open(write, "wb", buffering=0) as end:
        end.write(b"abc")
        async with asyncio.timeout(20):
            with pytest.raises(errors.DeadlineExceededError, match="content did not come in time"):
                await both.run(send, source, size=len(CONTENT), timeout=0.7)


async def test_an_open_file_is_sent_from_where_it_stands(both: Both, file: Path) -> None:
    with file.open("rb") as opened:
        opened.seek(1000)
        result = await upload(both, opened)
        assert opened.tell() == 1000
    assert result.sha256 == hashlib.sha256(CONTENT[1000:]).hexdigest()


async def test_a_folder_becomes_an_archive(both: Both, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    file.rename(folder / "sub" / "weights")
    (folder / "config.yaml").write_text("model: {}\n")
    first = await upload(both, folder)
    assert first.size > len(CONTENT)
    assert (await upload(both, folder)).sha256 == first.sha256


async def test_a_long_upload_goes_over_several_streams(
    both: Both, file: Path, data_dir: Path
) -> None:
    assert (await upload(both, file, stream_bytes=3 * PART)).sha256 == SHA256
    assert SHA256 in stored(data_dir)


async def test_progress_is_reported(both: Both, file: Path) -> None:
    seen: list[UploadProgress] = []
    await upload(both, file, progress=seen.append)
    done = [one.bytes_done for one in seen]
    assert done == sorted(done)
    assert seen[-1].bytes_done == seen[-1].bytes_total == len(CONTENT)
    assert seen[-1].percent == 100


async def test_a_bar_is_drawn_on_a_terminal_only(
    both: Both, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(both, file, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    threads = set(threading.enumerate())
    await upload(both, file, progress=True)
    assert "model.bin" in capsys.readouterr().err
    assert not [t for t in set(threading.enumerate()) - threads if "refresh" in t.name.lower()]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"part_size": 1000}, "part_size must be"),
        ({"part_size": 15 << 20}, "part_size must be"),
        ({"stream_bytes": 1000}, "less than part_size"),
        ({"size": 0}, "size must be"),
        ({"size": 5}, "not size=5"),
    ],
)
async def test_limits_are_checked_before_anything_is_sent(
    both: Both, file: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=text):
        await upload(both, file, **options)
    request = v2.ListModelVersionsRequest(model_id="m")
    assert not (await both.call("ListModelVersions", request)).model_versions


async def test_parts_fit_the_client_s_messages(
    server: LocalServer, connect: Connect, file: Path
) -> None:
    small = connect(server.base, max_message_bytes=PART, **identity(server))
    with pytest.raises(errors.InvalidArgumentError, match="max_message_bytes"):
        await upload(small, file)


async def test_what_there_is_not(both: Both, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await upload(both, tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(errors.InvalidArgumentError, match="empty"):
        await upload(both, empty)
    model = both.client.model("no-such-model")
    with pytest.raises(errors.NotFoundError):
        await both.run(model.upload_version, CONTENT)
    with pytest.raises(TypeError):
        await upload(both, 5)
    with pytest.raises(TypeError):
        await upload(both, CONTENT, no_such_option=1)


async def test_an_error_of_the_source_is_the_caller_s(both: Both) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1, /) -> bytes:
            raise OSError("the disk is on fire")

    for options in ({}, {"size": len(CONTENT)}):
        with pytest.raises(OSError, match="the disk is on fire"):
            await upload(both, Broken(), **options)
    short = io.BufferedReader(Unseekable(CONTENT[:-1]))
    with pytest.raises(errors.InvalidArgumentError, match=f"ends at byte {len(CONTENT) - 1}"):
        await upload(both, short, size=len(CONTENT))


class Unseekable(io.RawIOBase):
    """Bytes that can only be read on."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


async def test_no_thread_is_left(both: Both, file: Path) -> None:
    await upload(both, CONTENT)
    before = {thread for thread in threading.enumerate() if "asyncio" not in thread.name}
    await upload(both, file, stream_bytes=2 * PART)

    def left() -> set[threading.Thread]:
        others = set(threading.enumerate()) - before
        return {t for t in others if not t.name.startswith(("asyncio", "clarigrpc-local"))}

    assert await asyncio.to_thread(until, lambda: not left()), left()


# Services that misbehave


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For services that do not answer a config."""
    for driver in (async_driver, sync_driver):
        monkeypatch.setattr(driver, "RESPONSE_SECONDS", 0.1)


class Fake(grpc.GenericRpcHandler):
    """A service whose upload methods do as ``script`` says; ``configs`` keeps what it was sent."""

    def __init__(self, script: Callable[[int, Any, Iterator[Any]], Iterator[Any]]) -> None:
        self._script = script
        self.configs: list[v2.PostModelVersionsUploadConfig] = []

    def service(self, handler_call_details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(
            self._run,
            v2.PostModelVersionsUploadRequest.FromString,
            v2.PostModelVersionsUploadResponse.SerializeToString,
        )

    def _run(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self.configs.append(next(requests).upload_config)
        yield from self._script(len(self.configs), context, requests)


@contextmanager
def fake(script: Callable[[int, Any, Iterator[Any]], Iterator[Any]]) -> Iterator[tuple[str, Fake]]:
    handler = Fake(script)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", handler
    finally:
        server.stop(0).wait()


def answer(
    code: v2.StatusCode.ValueType, remaining: int = 0, details: str = "", version: str = "v"
) -> Any:
    return v2.PostModelVersionsUploadResponse(
        status=v2.Status(code=code, details=details),
        bytes_remaining=remaining,
        model_version_id=version,
    )


UPLOADING, BUILDING = v2.StatusCode.MODEL_UPLOADING, v2.StatusCode.MODEL_BUILDING


async def test_a_service_that_answers_once_at_the_end(connect: Connect, impatient: None) -> None:
    got: list[bytes] = []

    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        got.extend(request.content_part.data for request in requests)
        yield answer(BUILDING)

    with fake(script) as (base, _):
        both = connect(base)
        result = await upload(both, CONTENT)
        assert result.sha256 == ""
        with pytest.raises(errors.InternalError, match="no SHA-256"):
            await upload(both, CONTENT, verify=True)
        await both.close()
    assert b"".join(got) == CONTENT * 2


async def test_a_service_without_progress_over_several_streams(connect: Connect) -> None:
    got: list[bytes] = []

    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        yield answer(UPLOADING)
        got.extend(request.content_part.data for request in requests)
        if sum(map(len, got)) == len(CONTENT):
            yield answer(BUILDING)

    with fake(script) as (base, handler):
        both = connect(base)
        await upload(both, CONTENT, stream_bytes=4 * PART)
        await both.close()
    assert b"".join(got) == CONTENT
    assert [config.model_version.id for config in handler.configs] == ["", "v", "v"]
    assert {config.total_size for config in handler.configs} == {len(CONTENT)}


async def test_a_stream_that_ends_early_is_no_success(connect: Connect) -> None:
    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        yield answer(UPLOADING, len(CONTENT))
        next(requests)

    with fake(script) as (base, handler):
        both = connect(base)
        with pytest.raises(errors.UnavailableError):
            await upload(both, CONTENT)
        await both.close()
    assert len(handler.configs) == 5, "tried again, and given up"


async def test_success_before_all_was_sent_is_no_success(connect: Connect) -> None:
    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        yield answer(BUILDING)

    content = bytes(64 << 20)  # more than fits in what nobody reads
    with fake(script) as (base, _):
        both = connect(base)
        with pytest.raises(errors.InternalError, match="before the whole content was sent"):
            await upload(both, content, part_size=4 << 20)
        await both.close()


@pytest.mark.parametrize("at_end", [True, False])
async def test_an_answer_about_another_version_is_an_error(connect: Connect, at_end: bool) -> None:
    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        yield answer(UPLOADING, len(CONTENT))
        if not at_end:
            yield answer(UPLOADING, len(CONTENT), version="w")
        for _ in requests:
            pass
        yield answer(BUILDING, version="w")

    with fake(script) as (base, handler):
        both = connect(base)
        with pytest.raises(errors.InternalError, match=r"about version 'w' during .* 'v'"):
            await upload(both, CONTENT)
        await both.close()
    assert len(handler.configs) == 1


async def test_a_complete_upload_without_a_version_is_an_error(
    connect: Connect, impatient: None
) -> None:
    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        for _ in requests:
            pass
        yield answer(BUILDING, version="")

    with fake(script) as (base, _):
        both = connect(base)
        with pytest.raises(errors.InternalError, match="without the id of its version"):
            await upload(both, CONTENT)
        await both.close()


async def test_another_content_at_the_service_is_an_error(
    connect: Connect, impatient: None
) -> None:
    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        for _ in requests:
            pass
        yield answer(BUILDING, details=f"sha256 {'0' * 64}")

    with fake(script) as (base, _):
        both = connect(base)
        with pytest.raises(errors.InternalError, match="the content differs"):
            await upload(both, CONTENT)
        assert (await upload(both, CONTENT, verify=False)).sha256 == ""
        await both.close()


async def test_a_failure_told_in_an_answer_is_raised(connect: Connect) -> None:
    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        yield answer(UPLOADING, len(CONTENT))
        next(requests)
        yield answer(v2.StatusCode.MODEL_UPLOADING_FAILED, details="no space")

    with fake(script) as (base, handler):
        both = connect(base)
        with pytest.raises(errors.ApiError, match="no space"):
            await upload(both, CONTENT)
        await both.close()
    assert len(handler.configs) == 1


async def test_throttled_by_the_service(connect: Connect, impatient: None) -> None:
    times: list[float] = []

    def script(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
        times.append(time.monotonic())
        if stream == 1:
            context.set_trailing_metadata((("retry-after", "0.5"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
        for _ in requests:
            pass
        yield answer(BUILDING)

    with fake(script) as (base, _):
        both = connect(base)
        await upload(both, CONTENT)
        await both.close()
    assert times[1] - times[0] >= 0.5


def _stuck(stream: int, context: Any, requests: Iterator[Any]) -> Iterator[Any]:
    """Takes two parts and then neither responses nor reads."""
    yield answer(UPLOADING, len(CONTENT))
    for _ in range(2):
        next(requests)
    yield answer(UPLOADING, len(CONTENT) - 2 * PART)
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(30)


@pytest.mark.measures
async def test_a_deadline_ends_it_within_a_second(connect: Connect, file: Path) -> None:
    with fake(_stuck) as (base, _):
        both = connect(base)
        before = set(threading.enumerate())
        start = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError):
            await upload(both, file, timeout=0.5)
        assert time.monotonic() - start < 1.5
        left = {t.name for t in set(threading.enumerate()) - before if "upload" in t.name}
        assert left == set()
        assert len(states(file.parent)) == 1, "it can be resumed"
        await both.close()


@pytest.mark.measures
async def test_a_cancelled_task_ends_within_a_second(
    connect: Connect, file: Path, client_kind: str
) -> None:
    if client_kind == "sync":
        pytest.skip("a blocking call is ended by Ctrl-C, see below")
    with fake(_stuck) as (base, _):
        both = connect(base)
        task = asyncio.create_task(upload(both, file))
        await asyncio.to_thread(until, lambda: states(file.parent))
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < 1
        others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        assert [t for t in others if "upload" in repr(t.get_coro())] == []
        assert len(states(file.parent)) == 1
        await both.close()


def _interrupt(base: str, pat: str, client_kind: str, source: str, options: str) -> float:
    """Seconds from Ctrl-C to the end of a process that uploads."""
    script = Path(__file__).with_name("upload_client.py")
    process = subprocess.Popen(
        [sys.executable, script, base, pat, client_kind, source, options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline()
        start = time.monotonic()
        process.send_signal(2)
        try:
            _, text = process.communicate(timeout=60)
        finally:
            process.kill()
        assert "KeyboardInterrupt" in text
    return time.monotonic() - start


@pytest.mark.measures
def test_ctrl_c_ends_it_within_a_second(client_kind: str, file: Path) -> None:
    with fake(_stuck) as (base, _):
        # Leaving the process takes a while as well.
        options = f'{{"part_size": {PART}}}'
        assert _interrupt(base, "x" * 20, client_kind, str(file), options) < 1.5
    assert len(states(file.parent)) == 1
