"""Uploads through everything that can go wrong on the way, and processes that are killed."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import errors, v2
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._uploads.resume_state import SUFFIX
from clarigrpc._uploads.upload_progress import UploadProgress
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.faults.processes import ServerProcess
from tests.faults.proxy import Direction, FaultProxy
from tests.uploads.test_upload import Unseekable, identity, prepare, states, stored
from tests.waiting import join

PART = 128 << 10
CONTENT = random.Random(2).randbytes(40 * PART + 5)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HERE = Path(__file__).parent
QUICK = RetryPolicy(max_attempts=8, initial_backoff=0.05, max_backoff=0.5)
PATIENT = RetryPolicy(max_attempts=10, initial_backoff=3, max_backoff=30)
"""For the seconds that a server takes to start."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(data_dir: Path) -> Iterator[LocalServer]:
    with LocalServer(data_dir=data_dir) as running:
        prepare(running)
        yield running


@pytest.fixture
def proxy(server: LocalServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as running:
        yield running


@pytest.fixture
def both(server: LocalServer, proxy: FaultProxy, connect: Connect) -> Both:
    return connect(proxy.base, retry=QUICK, **identity(server))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    return path


async def send(both: Both, source: Any, kind: str = "model", **options: Any) -> Any:
    options = {"part_size": PART, "verify": True, "timeout": 30, **options}
    client = both.client
    if kind == "model":
        return await both.run(client.model("m").upload_version, source, **options)
    if kind == "artifact":
        return await both.run(client.artifacts.upload, source, "a", **options)
    if kind == "step":
        return await both.run(client.pipeline_steps.upload, source, "p", **options)
    return await both.run(client.uploads.upload, source, **options)


@pytest.mark.parametrize("kind", ["model", "artifact", "step", "unary"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_cut_in_the_middle_of_messages(
    both: Both, proxy: FaultProxy, file: Path, data_dir: Path, kind: str, reset: bool
) -> None:
    proxy.cut_after(bytes=len(CONTENT) // 4, reset=reset, times=3)
    await send(both, file, kind)
    assert proxy.counters.connections >= 4
    assert stored(data_dir) == {SHA256}
    assert states(file.parent) == []


@pytest.mark.parametrize("kind", ["model", "unary"])
@pytest.mark.parametrize("skip", [0, 1, 20, 40])
async def test_answers_that_are_lost(
    both: Both, proxy: FaultProxy, file: Path, data_dir: Path, kind: str, skip: int
) -> None:
    """The last one included: the version is complete, and no second one is made."""
    proxy.cut_before_response(half_closed=kind == "unary", skip=skip)
    await send(both, file, kind)
    assert stored(data_dir) >= {SHA256}
    if kind == "model" and skip:
        request = v2.ListModelVersionsRequest(model_id="m")
        versions = (await both.call("ListModelVersions", request)).model_versions
        assert len(versions) == 1


async def test_goaway(both: Both, proxy: FaultProxy, file: Path, data_dir: Path) -> None:
    def on_progress(progress: UploadProgress) -> None:
        if progress.percent < 90:
            proxy.goaway()

    await send(both, file, stream_bytes=4 * PART, progress=on_progress)
    assert stored(data_dir) == {SHA256}


async def test_refused_for_a_while(both: Both, proxy: FaultProxy, file: Path) -> None:
    proxy.cut_after(bytes=len(CONTENT) // 2)
    cut = threading.Event()

    def on_progress(progress: UploadProgress) -> None:
        if not cut.is_set():
            cut.set()
            proxy.refuse()
            restoring.start()

    restoring = threading.Timer(0.4, proxy.restore)
    await send(both, file, progress=on_progress)
    assert cut.is_set()
    await asyncio.to_thread(join, restoring)


async def test_slow_and_late(both: Both, proxy: FaultProxy, file: Path, data_dir: Path) -> None:
    proxy.delay(0.05)
    proxy.throttle(16 << 20)
    await send(both, file)
    assert stored(data_dir) == {SHA256}


@pytest.mark.measures
async def test_a_blackhole_ends_at_the_deadline_and_the_next_call_goes_on(
    both: Both, proxy: FaultProxy, file: Path, data_dir: Path
) -> None:
    proxy.throttle(4 << 20, Direction.TO_SERVER)

    def on_progress(progress: UploadProgress) -> None:
        if progress.bytes_done > len(CONTENT) // 3:
            proxy.blackhole()

    start = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError):
        await send(both, file, timeout=2, progress=on_progress)
    assert time.monotonic() - start < 3
    proxy.restore()
    proxy.throttle(None)
    result = await send(both, file)
    assert result.resumed_from > len(CONTENT) // 4
    assert stored(data_dir) == {SHA256}


@pytest.mark.parametrize("seed", range(3))
async def test_chaos(both: Both, proxy: FaultProxy, file: Path, data_dir: Path, seed: int) -> None:
    proxy.chaos(seed, every_bytes=len(CONTENT) / 8, lasting=0.1, limit=12)
    await send(both, file, stream_bytes=10 * PART)
    # A version whose id was lost on the way stays behind with a part of the content.
    assert SHA256 in stored(data_dir)


async def test_a_stream_that_cannot_seek_survives_cuts(
    both: Both, proxy: FaultProxy, data_dir: Path
) -> None:
    proxy.cut_after(bytes=len(CONTENT) // 4, times=3)
    await send(both, Unseekable(CONTENT), size=len(CONTENT))
    assert stored(data_dir) == {SHA256}


class _SlowOnce(io.BytesIO):
    """A file over a network, which once takes longer to read than an upload waits for a thread."""

    def __init__(self, content: bytes, slow: Callable[[], None]) -> None:
        super().__init__(content)
        self._reads = 0
        self._slow = slow
        self._done = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        piece = super().read(PART // 4)
        self._reads += 1
        if self._reads == 14:
            self._slow()
            self._done.wait(1.3)
            self.seek(at + len(piece))
        elif self._reads > 14:  # so that it ends while the rest is read
            self._done.wait(0.01)
        return piece


async def test_a_read_that_outlasts_its_stream_does_not_move_the_next_one(
    both: Both, proxy: FaultProxy, data_dir: Path
) -> None:
    content = CONTENT[: 16 * PART]
    await send(both, _SlowOnce(content, proxy.reset))
    assert hashlib.sha256(content).hexdigest() in stored(data_dir)


_BLOCKED_FOR_EVER = """
import asyncio, sys, threading
from clarigrpc import AsyncClient, errors

class Source:
    name, left = "blocked", [b"first"]

    def read(self, size=-1):
        return self.left.pop() if self.left else threading.Event().wait()

async def upload():
    base, pat, user_id, app_id = sys.argv[1:]
    async with AsyncClient(base=base, pat=pat, user_id=user_id, app_id=app_id) as client:
        how = {"size": 1 << 20, "resume": False, "timeout": 0.5}
        await client.model("m").upload_version(Source(), **how)

try:
    asyncio.run(upload())
except errors.DeadlineExceededError:
    print("given up")
"""


def test_a_process_ends_although_a_source_blocks_for_ever(server: LocalServer) -> None:
    program = [sys.executable, "-c", _BLOCKED_FOR_EVER, server.base, *identity(server).values()]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr) == ("given up\n", "")


@pytest.mark.parametrize("required", [False, True])
async def test_a_full_disk_where_the_state_is_kept(
    both: Both,
    file: Path,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    required: bool,
) -> None:
    def full(source: str, target: Path) -> None:
        if str(target).endswith(SUFFIX):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", full)
    folder = tmp_path / "state" if required else file.parent
    if required:
        with pytest.raises(OSError, match="No space left on device"):
            await send(both, file, state_dir=folder)
    else:
        # Nobody asked for a state in that folder, so that the upload goes on without.
        await send(both, file)
        assert stored(data_dir) == {SHA256}
        assert "cannot resume this upload" in caplog.text
    assert not [path for path in folder.iterdir() if ".clarigrpc-" in path.name]


class _Interrupted(Exception):
    """Ends an upload in the middle."""


def _interrupt(progress: UploadProgress) -> None:
    if progress.bytes_done:
        raise _Interrupted


async def test_a_stale_state_is_not_used(both: Both, file: Path) -> None:
    """The file changes after the first call broke off: its parts are not mixed."""
    with pytest.raises(_Interrupted):
        await send(both, file, progress=_interrupt)
    assert len(states(file.parent)) == 1
    file.write_bytes(CONTENT[::-1])
    result = await send(both, file)
    assert result.resumed_from == 0
    assert result.sha256 == hashlib.sha256(CONTENT[::-1]).hexdigest()


async def test_other_bytes_at_the_service_begin_anew(
    both: Both, file: Path, data_dir: Path
) -> None:
    """A state that looks right for a version with other bytes: the service tells, all is new."""
    with pytest.raises(_Interrupted):
        await send(both, file, progress=_interrupt)
    (state,) = states(file.parent)
    fields = json.loads(state.read_text())
    fields["version_id"] = "gone"
    state.write_text(json.dumps(fields))
    result = await send(both, file)
    assert result.resumed_from == 0
    assert result.version_id != "gone"
    assert SHA256 in stored(data_dir)


async def test_parts_that_the_service_has_lost_are_sent_again(
    both: Both, file: Path, data_dir: Path
) -> None:
    """A state says that the service has all parts, as after its disk was restored from a copy."""
    with pytest.raises(_Interrupted):
        await send(both, file, "unary", progress=_interrupt)
    (state,) = states(file.parent)
    fields = json.loads(state.read_text())
    state.write_text(json.dumps({**fields, "acknowledged": len(CONTENT)}))
    upload = await send(both, file, "unary")
    assert upload.id != fields["version_id"]
    assert SHA256 in stored(data_dir)  # beside what there is of the first one
    assert states(file.parent) == []


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
async def test_a_file_whose_name_is_no_text(both: Both, tmp_path: Path, data_dir: Path) -> None:
    path = tmp_path / "\udcff.bin"
    path.write_bytes(CONTENT)
    upload = await send(both, path, "unary")
    assert upload.content_name == r"\udcff.bin"
    assert stored(data_dir) == {SHA256}


@pytest.mark.parametrize("kind", ["model", "unary"])
async def test_two_at_once_have_an_upload_each(
    both: Both, proxy: FaultProxy, file: Path, data_dir: Path, kind: str
) -> None:
    """The second does not go on with what the first is sending."""
    proxy.throttle(8 << 20)  # long enough for a report of progress in its midst
    other: list[Any] = []
    loop = asyncio.get_running_loop()

    def begin_the_other(progress: UploadProgress) -> None:
        if not other and 0 < progress.bytes_done < len(CONTENT):
            second = send(both, file, kind)
            other.append(asyncio.run_coroutine_threadsafe(second, loop))

    first = await send(both, file, kind, stream_bytes=4 * PART, progress=begin_the_other)
    second = await asyncio.wrap_future(other[0])
    ids = {getattr(one, "version_id", "") or one.id for one in (first, second)}
    assert len(ids) == 2
    assert stored(data_dir) == {SHA256}
    assert states(file.parent) == []


class _ReadAhead(io.BytesIO):
    """Notes how many bytes were read, in one pass, before they were on their way."""

    most = 0

    def __init__(self, content: bytes, proxy: FaultProxy) -> None:
        super().__init__(content)
        self._proxy = proxy
        self._sent = 0

    def read(self, size: int | None = -1, /) -> bytes:
        sent = self._proxy.counters.bytes_to_server
        if not self.tell():
            self.most, self._sent = 0, sent
        piece = super().read(size)
        self.most = max(self.most, self.tell() - (sent - self._sent))
        return piece


async def test_starting_again_with_larger_parts_reads_no_further_ahead(
    both: Both, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The state is of an upload in small parts, whose version is gone."""
    content = _ReadAhead(CONTENT * 6, proxy)
    with pytest.raises(_Interrupted):
        await send(both, content, state_dir=tmp_path, progress=_interrupt)
    (state,) = states(tmp_path)
    fields = json.loads(state.read_text())
    fields["version_id"] = "gone"
    state.write_text(json.dumps(fields))
    content.seek(0)
    await send(both, content, state_dir=tmp_path, part_size=2 << 20, verify=False)
    assert 0 < content.most < 16 << 20


@pytest.fixture
def process(data_dir: Path) -> Iterator[ServerProcess]:
    with ServerProcess(data_dir) as running:
        yield running


async def _connected(process: ServerProcess, base: str, connect: Connect) -> Both:
    assert process.pat is not None
    both = connect(base, pat=process.pat, user_id="local-user", app_id="local-app", retry=PATIENT)
    await both.call("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")]))
    return both


async def test_the_server_is_killed_and_restarted(
    process: ServerProcess, connect: Connect, file: Path, data_dir: Path
) -> None:
    with FaultProxy("127.0.0.1", process.port) as proxy:
        both = await _connected(process, proxy.base, connect)
        proxy.throttle(4 << 20, Direction.TO_SERVER)
        marks = [0.2, 0.6]
        due = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_progress(progress: UploadProgress) -> None:
            if marks and progress.bytes_done > marks[0] * len(CONTENT):
                marks.pop(0)
                loop.call_soon_threadsafe(due.set)

        task = asyncio.create_task(send(both, file, progress=on_progress, timeout=200))
        for _ in range(2):
            await asyncio.wait_for(due.wait(), 100)
            due.clear()
            await asyncio.to_thread(process.restart)
        await task
        await both.close()
    assert stored(data_dir) == {SHA256}


@pytest.mark.parametrize("kind", ["path", "stream"])
async def test_the_client_is_killed_and_the_next_goes_on(
    process: ServerProcess,
    connect: Connect,
    client_kind: str,
    file: Path,
    data_dir: Path,
    kind: str,
) -> None:
    options: dict[str, Any] = {"part_size": PART, "verify": True}
    source = str(file)
    if kind == "stream":
        source = f"stream:{file}"
        options |= {"size": len(CONTENT), "state_dir": str(file.parent)}
    with FaultProxy("127.0.0.1", process.port) as proxy:
        both = await _connected(process, proxy.base, connect)
        await both.close()
        script = str(HERE / "upload_client.py")
        assert process.pat is not None
        command = [sys.executable, script, proxy.base, process.pat, client_kind, source]
        command.append(json.dumps(options))
        proxy.throttle(2 << 20, Direction.TO_SERVER)
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        with client.stdout:
            while json.loads(client.stdout.readline())["done"] < len(CONTENT) // 2:
                pass
            client.kill()
            client.wait(60)
        assert len(states(file.parent)) == 1
        proxy.throttle(None)
        again = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=200, check=True
        )
    result = json.loads(again.stdout.splitlines()[-1])
    assert result["sha256"] == SHA256
    assert result["resumed_from"] >= len(CONTENT) // 4
    assert stored(data_dir) == {SHA256}
    assert states(file.parent) == []


@pytest.mark.measures
@pytest.mark.parametrize("kind", ["path", "stream"])
async def test_memory_stays_flat(
    process: ServerProcess, connect: Connect, client_kind: str, tmp_path: Path, kind: str
) -> None:
    """Peak of anonymous memory over what a smaller upload of the kind before has left.

    The parts are small, so that it is not gRPC's copies of a few of them that are measured.
    """
    path, before = tmp_path / "large", tmp_path / "before"
    for file, content_size in ((path, 192 << 20), (before, 16 << 20)):
        with file.open("wb") as sparse:
            sparse.truncate(content_size)
    prefix = "stream:" if kind == "stream" else ""
    both = await _connected(process, process.base, connect)
    await both.close()
    size = {"size": path.stat().st_size, "state_dir": str(tmp_path)} if kind == "stream" else {}
    assert process.pat is not None
    run = await asyncio.to_thread(
        subprocess.run,
        [
            *(
                sys.executable,
                str(HERE / "upload_client.py"),
                process.base,
                process.pat,
                client_kind,
            ),
            f"{prefix}{path}",
            json.dumps({"warm_up": f"{prefix}{before}", "part_size": 256 << 10, **size}),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    memory = [
        line["memory"] for line in map(json.loads, run.stdout.splitlines()[:-1]) if "memory" in line
    ]
    assert len(memory) > 5
    assert max(memory) - memory[0] <= 8 << 20
