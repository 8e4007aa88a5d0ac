"""Ctrl-C at random moments: it ends what runs, says nothing else, and leaves a client that works.

``INTERRUPTS=300 pytest tests/rpc/test_interrupts.py`` tries more moments of each operation.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from clarigrpc import Client, errors, v2
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._rpc import sync_channel
from clarigrpc._uploads import sync_driver
from clarigrpc.local import Faults, LocalServer
from tests.scripted import ScriptedServer, reply, when_ended
from tests.waiting import until

COUNT = int(os.environ.get("INTERRUPTS", "8"))
ROOT = Path(__file__).parents[2]
OPERATIONS = [
    *("unary", "stub", "with_call", "future", "list", "call", "generate", "stream"),
    *("predict_many", "upload", "upload_version"),
]


class Speaker:
    def letters(self, words: str) -> Iterator[str]:
        for letter in words:
            time.sleep(0.002)
            yield letter


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0, models={"speaker": Speaker()}) as server:
        with server.client() as client:
            client.v2.PostModels(v2.PostModelsRequest(models=[v2.Model(id="uploaded")]))
        yield server


def start(server: LocalServer, transport: str, operation: str, *further: str) -> Any:
    """The program that is interrupted; ``further`` are its other arguments."""
    base = server.base if transport == "grpc" else server.rest_base
    assert base is not None
    count, seed, folder = further
    arguments = [transport, operation, count, seed, base, server.pat, folder]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.rpc.interrupted", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_end(program: Any, seconds: float, seed: str = "", *, within: float = 5.0) -> float:
    """Check that it said nothing but ``done``, and ended soon after it; returns when it said so.

    Five seconds are for a machine whose cores are busy: what is wrong here waits for a deadline.
    """
    try:
        out, err = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        program.kill()
        out, err = program.communicate()
        pytest.fail(f"seed {seed} hangs: {out} {err}")
    ended = time.time()
    assert (err, program.returncode) == ("", 0), (seed, out)
    assert re.fullmatch(r"done \S+\n", out), (seed, out)
    done = float(out.split()[1])
    assert ended - done < within
    return done


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_an_interrupt_at_any_moment(
    server: LocalServer, transport: str, operation: str, tmp_path: Path
) -> None:
    if transport == "rest" and operation in ("stream", "upload_version"):
        pytest.skip("REST has no streams of requests")
    seed = str(random.random())
    program = start(server, transport, operation, str(COUNT), seed, str(tmp_path))
    check_end(program, 30 + COUNT, seed)


@pytest.fixture(scope="module")
def slow() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0, models={"speaker": Speaker()}) as server:
        server.faults.latency_seconds = 15
        yield server


@pytest.mark.measures
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_process_ends_while_calls_are_under_way(
    slow: LocalServer, transport: str, operation: str, tmp_path: Path
) -> None:
    if transport == "rest" and operation in ("stream", "upload_version"):
        pytest.skip("REST has no streams of requests")
    program = start(slow, transport, operation, "0", "", str(tmp_path))
    assert program.stdout.readline() == "started\n"
    time.sleep(0.5)
    interrupted = time.time()
    program.send_signal(signal.SIGINT)
    assert check_end(program, 10, within=1.0) - interrupted < 1.0


_CLOSES_IN_HANDLER = """
import importlib, signal, sys
from clarigrpc import Client, errors

_, transport, module, name = sys.argv
module = importlib.import_module(module)
real = getattr(module, name)

def interrupted(*arguments):
    signal.raise_signal(signal.SIGTERM)
    return real(*arguments)

setattr(module, name, interrupted)
client = Client(
    base="http://127.0.0.1:9", transport=transport, pat="p", user_id="u", app_id="a", timeout=5
)
signal.signal(signal.SIGTERM, lambda *_: client.close())
try:
    client.inputs.status()
except (errors.ClarigrpcError, ValueError) as error:
    print("closed" in str(error))
"""


@pytest.mark.parametrize(
    "step",
    [
        ("grpc", "clarigrpc._rpc.shared_transport", "open_sync"),
        ("rest", "clarigrpc._transports.sync_http_transport", "CallThreads"),
    ],
)
def test_a_handler_may_close_a_client_that_just_begins_a_call(step: tuple[str, str, str]) -> None:
    program = [sys.executable, "-c", _CLOSES_IN_HANDLER, *step]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr) == ("True\n", "")


def handlers() -> list[Any]:
    return [signal.getsignal(signal.SIGINT)]


def test_the_interrupt_is_raised_at_the_end_of_the_block() -> None:
    before = handlers()
    events: list[str] = []
    hold = HeldInterrupt(lambda: events.append("cancelled"))
    with pytest.raises(KeyboardInterrupt), hold as held:
        signal.raise_signal(signal.SIGINT)
        events.append("after")
        held.cancel_with(lambda: events.append("known late"))
    assert events == ["cancelled", "after", "known late"]
    assert handlers() == before


def test_a_handler_that_does_not_raise_runs_at_once_and_cancels_nothing() -> None:
    events: list[str] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: events.append("handled"))
    try:
        with HeldInterrupt(lambda: events.append("cancelled")):
            signal.raise_signal(signal.SIGINT)
            events.append("after")
        assert events == ["handled", "after"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_sets_another_one_is_obeyed() -> None:
    other: Any = lambda number, frame: None  # noqa: E731 - compared below
    before = signal.signal(
        signal.SIGINT, lambda number, frame: signal.signal(signal.SIGINT, other) and None
    )
    try:
        with HeldInterrupt():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("action", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_process_without_a_handler_is_left_alone(action: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, action)
    try:
        with HeldInterrupt():
            assert signal.getsignal(signal.SIGINT) is action
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_do_not_touch_handlers() -> None:
    before, seen = handlers(), []

    def hold() -> None:
        with HeldInterrupt():
            seen.extend(handlers())

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert seen == before


def test_what_another_signal_raises_leaves_the_handler_as_it_was() -> None:
    def leave(number: int, frame: Any) -> None:
        raise SystemExit(3)

    before, terminate = handlers(), signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit), HeldInterrupt():
            signal.raise_signal(signal.SIGTERM)
        assert handlers() == before
    finally:
        signal.signal(signal.SIGTERM, terminate)


def test_in_a_finalizer_the_interrupt_comes_a_moment_later() -> None:
    events: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        hold = HeldInterrupt(deliver_later=True)
        hold.__enter__()
        signal.raise_signal(signal.SIGINT)
        events.append("held")
        hold.__exit__()
        time.sleep(60)
        events.append("too late")
    assert events == ["held"]


@pytest.mark.parametrize("operation", ["predict_many", "upload"])
def test_an_interrupt_before_a_call_is_noted_cancels_it(
    monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    started: list[sync_channel.BegunCall] = []
    image = b"not looked at"
    start = sync_channel.BegunCall.start

    def interrupted(call: sync_channel.BegunCall, *arguments: Any) -> bool:
        assert start(call, *arguments)
        started.append(call)
        raise KeyboardInterrupt

    with LocalServer(faults=Faults(latency_seconds=60)) as server, server.client() as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        monkeypatch.setattr(sync_channel.BegunCall, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            if operation == "upload":
                client.inputs.upload([image])
            else:
                list(model.predict_many([image]))
        (call,) = started
        until(lambda: not call.running)
        with pytest.raises(errors.CancelledError):
            call.result()


def test_an_interrupt_before_the_stream_of_an_upload_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing goes on reading the file."""
    stopped = Mock()

    class Interrupted:
        def __init__(self, *arguments: object, **options: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sync_channel.StreamStream, "stream_type", Interrupted)
    stop = sync_driver._UploadMessages.stop
    monkeypatch.setattr(
        sync_driver._UploadMessages, "stop", lambda messages: (stopped(), stop(messages))
    )
    with LocalServer() as server, server.client() as client:
        client.models.create("m")
        with pytest.raises(KeyboardInterrupt):
            client.model("m").upload_version(b"x" * 1000)
    assert stopped.called


def test_a_handler_of_another_signal_can_pass_it_on_as_an_interrupt(
    scripted: ScriptedServer,
) -> None:
    method = "GetInputCount"

    def signals(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        over = threading.Event()
        os.kill(os.getpid(), signal.SIGTERM)
        when_ended(context, over.set)
        over.wait(30)
        yield reply(method)

    scripted.on(method, reply(method), signals, reply(method))

    def pass_on(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        with Client(base=scripted.base, pat="x" * 20, user_id="u", app_id="a") as client:
            assert client.inputs.status().processed == 0
            with pytest.raises(KeyboardInterrupt):
                client.inputs.status()
            assert client.inputs.status().processed == 0
    finally:
        signal.signal(signal.SIGTERM, before)
