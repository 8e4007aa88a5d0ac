"""How a server ends: what runs may finish, what is new is refused, health says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clarigrpc import Client, v2
from tests.waiting import until

_SERVER = """
import sys, time
from collections.abc import Iterator
from pathlib import Path
from clarigrpc.local import LocalServer

gate = Path(sys.argv[1])

class Patient:
    def predict(self, words: str) -> str:
        wait("predicting")
        return words.upper()

    def pieces(self, words: str) -> Iterator[str]:
        for word in words.split():
            yield word
            wait("streaming")

def wait(what):
    (gate / what).touch()
    while not (gate / "open").exists():
        time.sleep(0.005)

server = LocalServer(models={"patient": Patient()}, rest_port=0).start()
def ready():
    print(server.base, server.rest_base, server.pat, server.user_id, server.app_id, flush=True)
server.serve_until_signalled(20, ready=ready)
"""


class Process:
    """A server in a process of its own, whose model waits until the gate is open.

    Attributes:
        base, rest_base, pat: Of the server.
    """

    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(gate)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.base, self.rest_base, self.pat, self.user_id, self.app_id = (
            self.process.stdout.readline().split()
        )

    def client(self, transport: str, **options: Any) -> Client:
        return Client(
            base=self.rest_base if transport == "rest" else self.base,
            transport=transport,  # type: ignore[arg-type]
            pat=self.pat,
            user_id=self.user_id,
            app_id=self.app_id,
            timeout=20,
            **options,
        )

    def until_predicting(self) -> None:
        """Waits until the model is at work."""
        until((self.gate / "predicting").exists)

    def until_closed(self, *bases: str) -> None:
        """Waits until new connections are refused, while the process is still there."""
        until(lambda: not any(map(self.is_open, bases)))
        assert self.process.poll() is None

    def is_open(self, base: str) -> bool:
        """Whether new connections are accepted."""
        try:
            httpx.get(base, trust_env=False, timeout=5)
        except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError) as error:
            return not isinstance(error, httpx.ConnectError)
        return True


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path)
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_sigterm_lets_calls_finish(process: Process, transport: str) -> None:
    def predict() -> Any:
        return client.model("patient").call("predict", words="late")

    with process.client(transport) as client, ThreadPoolExecutor() as pool:
        stream = iter(client.model("patient").call("pieces", words="one two three"))
        assert next(stream) == "one"
        running = pool.submit(predict)
        process.until_predicting()
        process.process.send_signal(signal.SIGTERM)
        # New connections are refused while the calls are still running.
        process.until_closed(process.base, process.rest_base)
        assert not running.done()
        (process.gate / "open").touch()
        assert running.result(20) == "LATE"
        assert list(stream) == ["two", "three"]
    assert process.process.wait(20) == 0


def test_health_follows(process: Process) -> None:
    with (
        grpc.insecure_channel(process.base.removeprefix("http://")) as channel,
        process.client("grpc") as client,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="clarifai.api.V2")
        watched = stub.Watch(request, timeout=20)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        stream = iter(client.model("patient").call("pieces", words="one two"))
        assert next(stream) == "one"
        process.process.send_signal(signal.SIGTERM)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        # Watchers hear of it first; new calls are refused right after that.
        end = time.monotonic() + 20
        with pytest.raises(grpc.RpcError) as caught:
            while time.monotonic() < end:
                v2.V2Stub(channel).ListModels(v2.ListModelsRequest(), timeout=20)
        # CANCELLED is what gRPC's core makes of a call that arrives in the very moment.
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        watched.cancel()
        (process.gate / "open").touch()
        assert list(stream) == ["two"]
    assert process.process.wait(20) == 0


def test_a_second_signal_ends_a_server_whose_model_does_not_return(process: Process) -> None:
    with process.client("grpc", retry=False) as client, ThreadPoolExecutor() as pool:
        running = pool.submit(client.model("patient").call, "predict", words="late")
        process.until_predicting()
        process.process.send_signal(signal.SIGTERM)
        process.until_closed(process.base)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(20) == -signal.SIGTERM
        assert running.exception(20) is not None


def test_a_signal_ends_the_server_wherever_the_main_thread_is() -> None:
    # At each line of the standard library's waiting, where a lock is held; else after a second.
    script = """
import os, signal, sys, threading
from clarigrpc.local import LocalServer

def trace(frame, event, argument):
    if frame.f_code.co_filename != threading.__file__:
        return None
    if event == "line" and callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)
    return trace

def ready():
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    sys.settrace(trace)

server = LocalServer()
server.start()
server.serve_until_signalled(ready=ready)
sys.settrace(None)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
