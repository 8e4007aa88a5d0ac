"""Clients and forks. Each case runs in a process of its own, with a time limit: never a hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import v2
from tests.scripted import ScriptedServer, reply

PREAMBLE = """
import asyncio, faulthandler, multiprocessing, os, sys, threading
from clarigrpc import AsyncClient, Client, errors, v2

faulthandler.dump_traceback_later(60, exit=True)
base = sys.argv[1]
GET = v2.GetModelRequest(model_id="m")

def client(kind=Client):
    return kind(pat="p-0123456789abcdef", base=base, timeout=20)

def in_child(work):
    # What `work` returns, or the error it raises, or the signal that ends the child, as text.
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else text
"""


def run(server: ScriptedServer, script: str, **environment: str) -> list[str]:
    """The lines that a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), server.base],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def server(scripted: ScriptedServer) -> ScriptedServer:
    scripted.always("GetModel", reply("GetModel"))
    scripted.always("GenerateModelOutputs", [reply("GenerateModelOutputs")] * 2)
    return scripted


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_child_uses_its_parent_s_client(server: ScriptedServer, fast_path: bool) -> None:
    lines = run(
        server,
        f"""
        from clarigrpc._rpc import grpcio_internals
        if not {fast_path}:
            grpcio_internals.usable = lambda: False
        c = client()
        c.v2.GetModel(GET)
        def work():
            stream = c.v2.GenerateModelOutputs(v2.PostModelOutputsRequest())
            return c.v2.GetModel(GET).status.code + len(list(stream))
        print(in_child(work))
        print(in_child(work))
        print(c.v2.GetModel(GET).status.code)
        print(in_child(lambda: in_child(work)))
        c.close()
        """,
    )
    assert lines == ["10002", "10002", "10000", "10002"]
    ids = [seen.metadata["x-clarifai-request-id-prefix"] for seen in server.seen]
    assert len(set(ids)) == len(ids)  # children do not repeat their parent's ids


def test_a_child_uses_a_client_that_its_parent_did_not(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client()
        print(in_child(lambda: c.v2.GetModel(GET).status.code))
        print(c.v2.GetModel(GET).status.code)
        """,
    )
    assert lines == ["10000", "10000"]


def test_a_child_closes_its_parent_s_client(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client()
        c.v2.GetModel(GET)
        print(in_child(c.close))
        def work():
            with c:
                return c.v2.GetModel(GET).status.code
        print(in_child(work))
        print(c.v2.GetModel(GET).status.code)
        """,
    )
    assert lines == ["None", "10000", "10000"]


@pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 85),
    reason="before 1.85 grpcio itself does not survive a fork while its calls run",
)
def test_a_fork_while_threads_are_calling(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client()
        c.v2.GetModel(GET)
        stop = threading.Event()
        def call():
            while not stop.is_set():
                c.v2.GetModel(GET)
        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads: thread.start()
        child = lambda: c.v2.GetModel(GET, timeout=2).status.code
        answers = [in_child(child) for _ in range(4)]
        stop.set()
        for thread in threads: thread.join()
        print(*answers, sep="\\n")
        print(c.v2.GetModel(GET).status.code)
        """,
    )
    # gRPC leaves out its fork handlers while other threads are inside of it, and the child's gRPC
    # may not work afterwards: it segfaults or aborts (under a plain stub as well, in every second
    # child on a busy machine), or a call ends at its deadline. It never hangs.
    assert len(lines) == 5
    ends = ("10000", "DeadlineExceeded", "signal 6", "signal 11")
    assert all(line.startswith(ends) for line in lines[:4])
    assert lines[4] == "10000"


@pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 85),
    reason="before 1.85 grpcio itself does not survive a fork while its calls run",
)
def test_pools_of_processes_while_threads_are_calling(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client()
        c.v2.GetModel(GET)
        stop = threading.Event()
        def call():
            while not stop.is_set():
                c.v2.GetModel(GET)
        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads: thread.start()
        def work(_):
            try:
                return str(c.v2.GetModel(GET, timeout=5).status.code)
            except errors.ClarigrpcError as error:
                return str(error)
        for _ in range(12):
            with multiprocessing.get_context("fork").Pool(3) as pool:
                print(*pool.map_async(work, range(3), 1).get(40), sep="\\n")
        stop.set()
        for thread in threads: thread.join()
        """,
    )
    assert lines == ["10000"] * 36


def test_a_child_shares_no_connection_with_its_parent(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        from clarigrpc._transports.grpc_transport import channel_options
        def own_connections():
            return dict(channel_options(client().settings)).get("grpc.use_local_subchannel_pool")
        print(own_connections(), in_child(own_connections))
        """,
    )
    assert lines == ["None 1"]


def test_a_fork_while_other_threads_hold_the_client_s_locks(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client()
        with c.channel.shared._lock.get(), c.channel.core.budget._lock.get():
            def work():
                return c.v2.GetModel(GET).status.code, c.channel.core.budget.spend()
            print(in_child(work))
        print(c.v2.GetModel(GET).status.code)
        """,
    )
    assert lines == ["(10000, True)", "10000"]


def test_a_child_shares_requests_of_its_own(server: ScriptedServer) -> None:
    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> list[Any]:
        outputs = [v2.Output(input=one) for request in requests for one in request.inputs]
        return [reply("PostModelOutputs", outputs=outputs)]

    server.always("PostModelOutputs", answer)
    lines = run(
        server,
        """
        from concurrent.futures import ThreadPoolExecutor
        from clarigrpc import text

        def predict(value):
            return model.predict(text(value)).input.data.text.raw
        def many(prefix):
            values = [f"{prefix}{i}" for i in range(40)]
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(predict, values)) == values
        def work():
            right = many("child")
            c.close()
            try:
                predict("late")
            except errors.ClosedError:
                return right, threading.active_count()

        with client() as c:
            model = c.model("m", coalesce=True)
            print(many("before"))
            coalescer = model._coalescer
            with coalescer._lock.get():  # as another thread that gives a batch out at this moment
                coalescer._queue._in_flight += coalescer._limits.max_in_flight
                print(in_child(work))
                coalescer._queue._in_flight -= coalescer._limits.max_in_flight
            print(many("after"))
            print(in_child(work))
        print(in_child(lambda: predict("late")).partition(":")[0])
        """,
    )
    assert lines == ["True", "(True, 1)", "True", "(True, 1)", "ClosedError"]


def test_workers_of_multiprocessing(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client()
        c.v2.GetModel(GET)
        def work(_):
            return c.v2.GetModel(GET).status.code
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(*pool.map(work, range(8)))
        print(c.v2.GetModel(GET).status.code)
        """,
    )
    assert lines == ["10000 " * 7 + "10000", "10000"]


@pytest.mark.parametrize("value", ["0", "false"])
def test_without_fork_support_there_is_a_clear_error(server: ScriptedServer, value: str) -> None:
    lines = run(
        server,
        """
        c = client()
        c.v2.GetModel(GET)
        print(in_child(lambda: c.v2.GetModel(GET)))
        print(in_child(lambda: list(c.v2.GenerateModelOutputs(v2.PostModelOutputsRequest()))))
        print(c.v2.GetModel(GET).status.code)
        """,
        GRPC_ENABLE_FORK_SUPPORT=value,
    )
    for line in lines[:2]:
        assert line.startswith("ConfigurationError: ")
        assert "GRPC_ENABLE_FORK_SUPPORT" in line
    assert lines[2:] == ["10000"]


def test_an_asyncio_client_does_not_cross_a_fork(server: ScriptedServer) -> None:
    lines = run(
        server,
        """
        c = client(AsyncClient)
        async def call(some):
            return (await some.v2.GetModel(GET)).status.code
        async def new():
            async with client(AsyncClient) as fresh:
                return await call(fresh)
        async def main():
            await call(c)
            print(in_child(lambda: asyncio.new_event_loop().run_until_complete(call(c))))
            print(await call(c))
            await c.close()
        asyncio.run(main())
        print(in_child(lambda: asyncio.run(new())))
        print(asyncio.run(new()))
        """,
    )
    assert lines[0].startswith("ConfigurationError: ")
    assert "make a new AsyncClient in the child" in lines[0]
    assert lines[1:] == ["10000"] * 3
