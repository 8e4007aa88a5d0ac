"""Whatever breaks: a call is answered once, in full or with a clear status, and work goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import Client, errors, v2
from clarigrpc.local import LocalServer
from tests.both import ClientKind
from tests.faults.processes import ServerProcess
from tests.faults.proxy import FaultProxy
from tests.waiting import until
from tests.worker.conftest import MODEL, Work, make_model, workers
from tests.worker.toolbox import Toolbox

Code = v2.StatusCode
LETTERS = "abcdefghijklmnopqrstuvwxyz" * 4
CLEAR = {
    Code.RUNNER_PROCESSING_FAILED,
    Code.MODEL_DEPLOYING,
    Code.MODEL_BUSY_PLEASE_RETRY,
}
"""Statuses for a call whose worker was lost."""


@pytest.fixture(scope="module")
def proxy(server: LocalServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as running:
        yield running


@pytest.fixture
def start(client_kind: ClientKind, server: LocalServer) -> Iterator[Work]:
    with workers(client_kind, server) as starting:
        yield starting


class Calls:
    """Calls of a model in threads, and what came of them."""

    def __init__(self, client: Client, pool: ThreadPoolExecutor) -> None:
        self._model = client.model(MODEL)
        self._pool = pool

    def unary(self, text: str) -> Any:
        return self._pool.submit(self._model.call, "predict", text=text)

    def slow(self, text: str, seconds: float) -> Any:
        return self._pool.submit(self._model.call, "slow", text=text, seconds=seconds)

    def unary_of(self, method: str) -> Any:
        return self._pool.submit(self._model.call, method, text=method)

    def spelled(self, method: str = "spell_slowly") -> Future[tuple[str, int]]:
        return self._pool.submit(self._spelled, method)

    def _spelled(self, method: str) -> tuple[str, int]:
        got = ""
        try:
            for letter in self._model.call(method, text=LETTERS):
                got += letter
        except errors.ApiError as error:
            return got, error.code or -1
        return got, 0

    def echoed(self) -> Future[tuple[list[str], int]]:
        return self._pool.submit(self._echoed)

    def _echoed(self) -> tuple[list[str], int]:
        def words() -> Iterator[str]:
            for letter in LETTERS[:40]:
                time.sleep(0.005)
                yield letter

        got: list[str] = []
        try:
            got.extend(self._model.call("stream", words=words()))
        except errors.ApiError as error:
            return got, error.code or -1
        return got, 0


@pytest.fixture
def calls(caller: Client) -> Iterator[Calls]:
    with ThreadPoolExecutor(8) as pool:
        yield Calls(caller, pool)


def _refuse(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.reset(),
    "goaway": lambda proxy: proxy.goaway(close_when_drained=True),
    "cut inside a message": lambda proxy: proxy.cut_after(bytes=200),
    "cut before an answer": lambda proxy: proxy.cut_before_response(half_closed=False),
    "silence": lambda proxy: proxy.blackhole(),
    "refuse": _refuse,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_worker_loses_its_connection(
    fault: str, start: Work, proxy: FaultProxy, calls: Calls
) -> None:
    toolbox = Toolbox()
    start(toolbox, base=proxy.base, concurrency=6)
    assert calls.unary("first").result(40) == "FIRST"
    spelled = [calls.spelled(), calls.spelled()]
    echoed = calls.echoed()
    slow = [calls.unary(f"word {number}") for number in range(3)]
    until(lambda: toolbox.produced > 4)
    FAULTS[fault](proxy)
    slow += [calls.unary(f"word {number}") for number in range(3, 6)]
    time.sleep(0.2)
    proxy.restore()
    # One request, one answer: it is given to the next worker as often as it takes.
    assert [one.result(40) for one in slow] == [f"WORD {number}" for number in range(6)]
    for one in spelled:
        got, code = one.result(40)
        assert got == LETTERS if not code else LETTERS.startswith(got), code
        assert code in CLEAR | {0}
    words, code = echoed.result(40)
    assert words == list(LETTERS[: len(words)])
    assert code in CLEAR or (code == 0 and len(words) == 40)
    assert calls.unary("last").result(40) == "LAST"
    assert calls.spelled("generate").result(40) == (LETTERS, 0)


def test_the_caller_loses_its_connection(start: Work, server: LocalServer) -> None:
    toolbox = Toolbox()
    worker: Any = start(toolbox)
    with FaultProxy("127.0.0.1", server.port) as between:
        client = Client(
            base=between.base,
            pat=server.pat,
            user_id=server.user_id,
            app_id=server.app_id,
            timeout=40,
        )
        with client:
            results = client.model(MODEL).call("count_for_ever", text="left")
            assert next(results) == 0
            between.cut()
            with pytest.raises(errors.UnavailableError):
                for _ in results:
                    pass
            until(lambda: "closed left" in toolbox.log)
            assert client.model(MODEL).call("predict", text="a") == "A"
    stats = getattr(worker, "worker", worker).stats
    until(lambda: stats().running == 0)


def test_readiness_follows_the_connection(start: Work, proxy: FaultProxy, calls: Calls) -> None:
    worker: Any = start(Toolbox(), base=proxy.base)
    worker = getattr(worker, "worker", worker)
    assert calls.unary("a").result(40) == "A"
    assert worker.is_ready
    _refuse(proxy)
    until(lambda: not worker.is_ready)
    assert worker.is_alive
    until(lambda: worker.stats().reconnects > 0)
    proxy.restore()
    assert calls.unary("b").result(40) == "B"
    until(lambda: worker.is_ready)


def test_a_runner_that_was_deleted_is_made_again(start: Work, caller: Client) -> None:
    start(Toolbox(), runner_id="deleted")
    until(lambda: caller.model(MODEL).call("predict", text="a") == "A")
    caller.runners.delete("deleted")

    def is_made_again() -> bool:
        try:
            return caller.runners.get("deleted").worker.model.id == MODEL
        except errors.NotFoundError:
            return False

    until(is_made_again)
    assert caller.model(MODEL).call("predict", text="b") == "B"
    caller.runners.delete("deleted")


def test_two_workers_share_the_items(start: Work, caller: Client) -> None:
    boxes = [Toolbox(), Toolbox()]
    running = [start(box, concurrency=2) for box in boxes]
    running = [getattr(one, "worker", one) for one in running]
    until(lambda: all(one.is_ready for one in running))
    model = caller.model(MODEL)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: model.call("slow", text=str(n), seconds=0.002), range(120)))
    assert found == [str(number) for number in range(120)]
    # No fault, so no item runs twice.
    assert sorted(boxes[0].log + boxes[1].log) == sorted(f"slow {n}" for n in range(120))
    assert all(box.log for box in boxes)
    until(lambda: sum(one.stats().succeeded for one in running) >= 120)


def test_the_end_leaves_nothing_behind(
    client_kind: ClientKind, server: LocalServer, caller: Client
) -> None:
    def left() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if name.startswith(("clarigrpc-runner", "clarigrpc-health"))]

    until(lambda: left() == [])  # of the workers before
    with workers(client_kind, server) as start:
        worker: Any = start(Toolbox(), health_port=0)
        worker = getattr(worker, "worker", worker)
        assert caller.model(MODEL).call("predict", text="a") == "A"
        assert left()
        port = worker.health_port
    until(lambda: left() == [])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.measures
def test_an_end_that_cannot_wait_gives_items_back(start: Work, calls: Calls) -> None:
    """The item goes to the next worker; generated outputs cannot be made twice."""
    toolbox = Toolbox()
    first = start(toolbox, concurrency=3)
    slow = calls.unary_of("endless")
    assert toolbox.started.wait(30)
    spelled = calls.spelled()
    until(lambda: toolbox.produced > 2)
    second = Toolbox()
    start(second, concurrency=3)
    before = time.monotonic()
    first.stop(grace=0.2)
    assert time.monotonic() - before < 20
    got, code = spelled.result(40)
    assert LETTERS.startswith(got)
    assert code in CLEAR, got
    assert second.started.wait(30), "the item did not reach the other worker"
    second.release.set()
    assert slow.result(40) == "endless"
    assert calls.unary("after").result(40) == "AFTER"


# Processes.


def worker_process(server: LocalServer | ServerProcess, folder: Path, *more: str) -> ServerProcess:
    """``clarigrpc runner`` in a process of its own, with health on a free port."""
    return ServerProcess(
        folder,
        command=lambda _port, _folder: [
            *(sys.executable, "-m", "clarigrpc.cli", "runner"),
            *("--runner", "r", "--model", MODEL, "--health-port", "0", *more),
            "tests.worker.toolbox:Toolbox",
        ],
        env={
            "CLARIFAI_API_BASE": server.base,
            "CLARIFAI_PAT": server.pat or "",
            "CLARIFAI_USER_ID": "local-user",
            "CLARIFAI_APP_ID": "local-app",
        },
    )


def test_a_killed_worker_is_replaced(server: LocalServer, tmp_path: Path, calls: Calls) -> None:
    with worker_process(server, tmp_path) as first, worker_process(server, tmp_path) as second:
        names = [str(tmp_path / f"begun-{number}") for number in range(6)]
        slow = [calls.slow(name, 0.5) for name in names]
        spelled = [calls.spelled() for _ in range(2)]
        until(lambda: all(map(os.path.exists, names)))
        first.kill()
        assert [one.result(40) for one in slow] == names
        for one in spelled:
            got, code = one.result(40)
            assert got == LETTERS if not code else LETTERS.startswith(got)
            assert code in CLEAR | {0}
        first.restart()
        second.kill()
        assert calls.unary("after").result(40) == "AFTER"


def test_sigterm_finishes_what_runs(server: LocalServer, tmp_path: Path, calls: Calls) -> None:
    with worker_process(server, tmp_path) as worker:
        begun = tmp_path / "begun"
        slow = calls.slow(str(begun), 1.0)
        until(begun.exists)
        assert worker.terminate() == 0, worker.log()
        assert slow.result(40) == str(begun)
        log = worker.log()
        assert '"failed": 0, "cancelled": 0, "lost": 0' in log, log
        assert "Traceback" not in log


@contextlib.contextmanager
def script(kind: str, server: LocalServer, grace: float) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.worker.serve_script",
            kind,
            server.base,
            server.pat,
            str(grace),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with server.client() as client:
            until(lambda: _has_methods(client))
        yield process
    finally:
        process.kill()
        process.communicate()


def _has_methods(client: Client) -> bool:
    """Whether a runner has said what the model's methods are."""
    try:
        return "slow" in client.model(MODEL).methods()
    except errors.UnimplementedError:
        return False


def test_serve_ends_with_a_signal(
    client_kind: ClientKind, server: LocalServer, calls: Calls, tmp_path: Path
) -> None:
    with script(client_kind, server, 20.0) as process:
        begun = tmp_path / "begun"
        slow = calls.slow(str(begun), 0.6)
        until(begun.exists)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("WorkerStats(running=0, succeeded=")
        assert slow.result(40) == str(begun)


def test_a_second_signal_ends_the_grace(
    client_kind: ClientKind, server: LocalServer, calls: Calls, start: Work, tmp_path: Path
) -> None:
    with script(client_kind, server, 300.0) as process:
        begun = tmp_path / "begun"
        given_back = calls.slow(str(begun), 60.0)
        until(begun.exists)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert "lost=1" in out
    toolbox = Toolbox()
    toolbox.most_seconds = 0.0
    start(toolbox)
    assert given_back.result(40) == str(begun)


def test_a_function_that_cannot_be_interrupted_does_not_hold_up_the_end(
    client_kind: ClientKind, server: LocalServer, calls: Calls, start: Work, tmp_path: Path
) -> None:
    with script(client_kind, server, 0.1) as process:
        begun = tmp_path / "begun"
        slow = calls.slow(str(begun), 25.0)
        until(begun.exists)
        toolbox = Toolbox()
        toolbox.most_seconds = 0.0
        start(toolbox)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert "lost=1" in out
        assert slow.result(40) == str(begun)
        assert toolbox.log == [f"slow {begun}"]


def test_the_service_restarts(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process, contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {
            "base": process.base,
            "pat": process.pat,
            "user_id": "local-user",
        }
        client = stack.enter_context(Client(**settings, app_id="local-app", timeout=60))
        make_model(client)
        worker = stack.enter_context(worker_process(process, tmp_path))
        model = client.model(MODEL)
        assert model.call("predict", text="a") == "A"
        process.restart()
        assert model.call("predict", text="b") == "B"
        assert worker.running
        assert worker.terminate() == 0, worker.log()
