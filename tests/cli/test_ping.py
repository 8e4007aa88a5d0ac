"""``clarigrpc ping``."""

from __future__ import annotations

import json

from clarigrpc.local import LocalServer
from tests.cli.conftest import Run, one_line


def test_ping(cli: Run, server: LocalServer) -> None:
    found = json.loads(cli("ping").out)
    assert (found["base"], found["user_id"]) == (server.base, server.user_id)
    assert 0 < found["latency_seconds"] < 60
    assert {"clarigrpc", "grpcio", "protobuf", "python"} == found["versions"].keys()
    shown = cli("ping", "--table").out
    for text in (f"{server.base} (grpc)", server.user_id, " ms"):
        assert text in shown


def test_rest(cli: Run, server: LocalServer) -> None:
    result = cli("ping", "--transport", "rest", "--base", str(server.rest_base))
    assert json.loads(result.out)["transport"] == "rest"


def test_what_keeps_it_from_an_answer(cli: Run) -> None:
    for option in (("--pat", "0" * 32), ("--base", "http://127.0.0.1:1", "--timeout", "1")):
        result = cli("ping", *option)
        assert (result.code, result.out) == (1, "")
        one_line(result.err)
