"""What ``dir()`` shows of clients, resources and models: what users call, and nothing internal."""

from __future__ import annotations

from typing import Any

import pytest

from clarigrpc import AsyncClient, Client
from tests.both import ClientKind
from tests.resources.verbs import model_verbs, parts, resources, verbs

IDS = {"user_id", "app_id"}
OF_CLIENTS = {"bind", "channel", "close", "model", "ping", "settings", "stats", "v2"} | {
    "with_options"
}
OF_MODELS = IDS | {"model_id", "output_config", "version_id"}
# For the parts of a client among themselves.
INTERNAL = {"child", "close_with", "encoder", "raises_on_partial", "unary", "user_app_id"}


@pytest.fixture
def client(client_kind: ClientKind) -> Any:
    return (Client if client_kind == "sync" else AsyncClient)(pat="pat-of-the-tests-0123456789")


def shown(thing: Any) -> set[str]:
    """The names that ``dir`` shows, without those of every object."""
    names = [name for name in dir(thing) if not (name.startswith("__") and name.endswith("__"))]
    assert len(names) == len(set(names))
    return set(names)


def test_of_a_client(client: Any, client_kind: ClientKind) -> None:
    assert shown(client) == {*resources(client_kind), *OF_CLIENTS}
    assert shown(client.with_options(timeout=3)) == shown(client)


def test_of_every_resource(client: Any, client_kind: ClientKind) -> None:
    for name, owner in resources(client_kind).items():
        resource = getattr(client, name)
        assert type(resource) is owner
        found = shown(resource)
        of_it = {
            verb.path.split(".")[1]
            for verb in verbs(client_kind)
            if verb.path.split(".")[0] == name
        }
        parts_of_it = {
            part.expression.split(".")[1]
            for part in parts(client_kind)
            if part.expression.startswith(f"{name}.")
        }
        assert of_it <= found, name
        assert found - of_it - parts_of_it <= IDS | {"within"}, name
        assert not found & INTERNAL, name


def test_of_a_model(client: Any, client_kind: ClientKind) -> None:
    found = shown(client.model("m"))
    of_it = {verb.path.split(".")[1] for verb in model_verbs(client_kind) if "." in verb.path}
    assert of_it <= found
    assert found - of_it <= OF_MODELS
    assert not found & INTERNAL


def test_of_the_stub(client: Any) -> None:
    found = shown(client.v2)
    assert len(found) == 304
    assert all(name[0].isupper() for name in found)
