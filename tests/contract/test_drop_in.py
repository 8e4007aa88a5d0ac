"""Programs written against the published package do over our client what they do over its own."""

from __future__ import annotations

from pathlib import Path

import grpc

from clarigrpc.local import LocalServer
from tests.contract.peer import run_script

FAULTY = {"ListConcepts": grpc.StatusCode.INTERNAL}
MET = (
    "predict succeeded",
    "missing model failed: 21200 Model does not exist",
    "add succeeded",
    "with_call StatusCode.OK succeeded",
    "future StatusCode.OK succeeded",
    "stream 10000 one",
    "broken method raised _InactiveRpcError StatusCode.INTERNAL injected fault",
    "future StatusCode.INTERNAL injected fault True",
    "async predict succeeded",
    "async code StatusCode.OK",
    "async stream 10000 one",
    "async broken method raised AioRpcError StatusCode.INTERNAL injected fault",
)


def test_a_program_prints_the_same_over_a_bound_stub(peer_python: Path) -> None:
    with LocalServer() as server:
        server.faults.fail_methods = FAULTY
        of = (server.address, server.pat, server.user_id, server.app_id)
        theirs, ours = (
            run_script(peer_python, "published_program.py", channel, *of, ours=True).decode()
            for channel in ("theirs", "ours")
        )
    assert ours == theirs
    # What the program met, so that two programs that fail alike do not pass.
    lines = ours.splitlines()
    for line in MET:
        assert line in lines
