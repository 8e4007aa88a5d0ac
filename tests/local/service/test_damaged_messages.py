"""What is damaged in the store: lists give the rest, work goes on, and the log says it once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import Client, errors, query, text, v2
from clarigrpc.local import LocalServer
from tests.waiting import until

IDS = ("a", "b", "c")
DAMAGE = b"\xff\xff"


def damage(server: LocalServer, kind: str, resource_id: str, status: int | None = None) -> None:
    assert server._service is not None
    store = server._service.state.store
    store._db.execute(
        "UPDATE resources SET body = ?, status = coalesce(?, status) WHERE id = ? AND collection IN"
        " (SELECT number FROM collections WHERE kind = ?)",
        (DAMAGE, status, resource_id, kind),
    )


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server with three of each, of which the second is damaged."""
    with LocalServer(rest_port=0) as server, server.client() as client:
        client.inputs.create([text(f"text {i}", id=i, metadata={"n": 1}) for i in IDS])
        client.inputs.wait(IDS)
        client.concepts.create_many(IDS)
        for each in IDS:
            client.models.create({"id": each, "model_type_id": "mcp"})
            client.v2.PostUploads(
                v2.PostUploadsRequest(
                    uploads=[v2.Upload(id=each, content_name="a.txt", content_length=1)]
                )
            )
        for kind in ("input", "concept", "model", "upload"):
            damage(server, kind, "b")
        yield server


@pytest.fixture(params=["grpc", "rest"])
def client(request: pytest.FixtureRequest, server: LocalServer) -> Iterator[Client]:
    with server.client(transport=request.param) as client:
        yield client


LISTS: dict[str, Callable[[Client], Any]] = {
    "inputs": lambda client: client.inputs.list(),
    "stream": lambda client: client.inputs.stream(),
    "search": lambda client: (h.input for h in client.search.inputs(query.has_metadata({"n": 1}))),
    "concepts": lambda client: client.concepts.list(),
    "models": lambda client: client.models.list(),
    "uploads": lambda client: client.v2.ListUploads(v2.ListUploadsRequest()).uploads,
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_give_the_rest(client: Client, name: str) -> None:
    assert sorted(item.id for item in LISTS[name](client) if item.id in IDS) == ["a", "c"]


def test_one_by_one_it_is_an_error_that_says_so(client: Client) -> None:
    with pytest.raises(errors.InternalError, match="damaged"):
        client.inputs.get("b")
    assert client.inputs.get("a").id == "a"


def test_the_log_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    with LocalServer() as server, server.client() as client:
        client.concepts.create_many(IDS)
        damage(server, "concept", "b")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert len(list(client.concepts.list())) == 2
    (record,) = (r for r in caplog.records if "'b'" in r.getMessage())
    assert "no Concept" in record.getMessage()


def test_work_on_others_goes_on_also_after_a_restart(tmp_path: Path) -> None:
    with LocalServer(data_dir=tmp_path) as server, server.client() as client:
        client.inputs.create([text("x", id=i) for i in IDS])
        client.inputs.wait(IDS)
        damage(server, "input", "b", status=v2.StatusCode.INPUT_PENDING)
        client.inputs.create(text("x", id="d"))
        client.inputs.wait(["d"])
        assert until(lambda: client.inputs.status().errors == 1)
        assert server._service is not None
        server._service.state.store._db.execute("PRAGMA user_version = 0")  # to be indexed anew
    with LocalServer(data_dir=tmp_path) as server, server.client() as client:
        assert sorted(item.id for item in client.inputs.list()) == ["a", "c", "d"]
