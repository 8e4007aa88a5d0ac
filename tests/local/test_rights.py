"""Every method with every kind of credential and scopes, as the contract declares them."""

from __future__ import annotations

import contextlib
import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest

from clarigrpc import v2
from clarigrpc._transports import transcoding
from clarigrpc.local import LocalServer
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.v2._index import METHODS
from tests.local.conftest import Raw, ok

Code = v2.StatusCode

DATA = Path(__file__).parents[1] / "data"
APP = v2.UserAppIDSet(user_id="anna", app_id="app")
REFUSED = Code.CONN_INSUFFICIENT_SCOPES
NO_CREDENTIAL = {Code.CONN_KEY_INVALID, Code.CONN_KEY_NOT_FOUND, Code.CONN_TOKEN_INVALID, REFUSED}
# Whose address has an app, and whose answer does not depend on it.
OF_NO_APP = {"GetModelType", "ListModelTypes", "MyScopes"}
# What changes an app as such and what concerns a user is not for collaborators, whatever they have.
OF_OWNER = {"PatchApp", "PatchAppsDetails", "DeleteApp", "ListLogEntries", "StreamLogEntries"}


class Declared(NamedTuple):
    """What the contract declares about a method."""

    kind: str
    scopes: frozenset[str]
    of_app: bool


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def option(text: str, name: str) -> str:
    found = [part for part in text.split(" ; ") if part.startswith(f"{name}=")]
    return found[0].partition("=")[2] if found else ""


def declared() -> dict[str, Declared]:
    found = {}
    for row in rows("rpcs.tsv"):
        scopes = option(row["options"], "clarifai.auth.util.cl_depending_scopes")
        kind = option(row["options"], "clarifai.auth.util.cl_auth_type")
        of_app = "/apps/{user_app_id.app_id}" in row["http"] and row["rpc"] not in OF_NO_APP
        if V2Service.implements(row["rpc"]):
            found[row["rpc"]] = Declared(kind, frozenset(filter(None, scopes.split(","))), of_app)
    return found


def needed() -> dict[str, frozenset[str]]:
    """Every scope that a key can have, and the scopes that it needs besides."""
    found = {}
    for row in rows("enums.tsv"):
        exposed = option(row["options"], "clarifai.auth.scope.clarfai_exposed")
        if row["enum"] == "clarifai.auth.scope.S" and exposed == "True":
            others = option(row["options"], "clarifai.auth.scope.clarifai_depending_scopes")
            found[row["value"]] = frozenset(filter(None, others.split(",")))
    return found


METHOD = declared()
NEEDED = needed()


@cache
def closed(scope: str) -> frozenset[str]:
    """A scope with those that it needs."""
    return frozenset({scope}).union(*map(closed, NEEDED.get(scope, ())))


def enough_for(method: str) -> frozenset[str]:
    return frozenset().union(*map(closed, METHOD[method].scopes)) or frozenset({"Search"})


def all_but(scope: str) -> frozenset[str]:
    return frozenset(name for name in NEEDED if name != "All" and scope not in closed(name))


def expectations(of_app: bool = False) -> dict[frozenset[str], dict[str, bool]]:
    """Set of scopes -> method -> whether they are enough for it."""
    found: dict[frozenset[str], dict[str, bool]] = defaultdict(dict)
    for method, known in METHOD.items():
        if of_app and not known.of_app:
            continue
        if known.scopes <= NEEDED.keys():
            found[enough_for(method)][method] = True
            found[frozenset({"All"})][method] = True
        for scope in known.scopes:
            found[all_but(scope)][method] = False
    return found


def request_of(method: str) -> Any:
    """A request that names things which are not there, in anna's app."""
    request = getattr(v2, METHODS[method][0])()
    for binding in transcoding.bindings(method) or ():
        for path in binding.variables:
            *parents, last = path
            holder = request
            for name in parents:
                holder = getattr(holder, name)
            if holder.DESCRIPTOR.fields_by_name[last].cpp_type == 9:  # a string
                setattr(holder, last, "x")
    for known in request.DESCRIPTOR.fields:
        if known.message_type is v2.UserAppIDSet.DESCRIPTOR:
            getattr(request, known.name).CopyFrom(APP)
    if method == "PostModelVersionsUpload":
        request.upload_config.user_app_id.CopyFrom(APP)
    if method == "GetStatusCode":
        request.status_code_id = "10000"
    return request


@dataclass
class World:
    """A server, and what calls it."""

    server: LocalServer
    stub: v2.V2Stub
    web: httpx.Client
    requests: dict[str, Any] = field(default_factory=dict)

    @property
    def anna(self) -> Raw:
        return Raw(self.server, self.stub, "anna-secret")

    def code(self, method: str, metadata: tuple[tuple[str, str], ...], front: str) -> Any:
        """The status code of a call."""
        if method not in self.requests:
            self.requests[method] = request_of(method)
        request = self.requests[method]
        if front == "grpc":
            call = getattr(self.stub, method)
            _, _, many, streams, *_ = METHODS[method]
            with contextlib.ExitStack() as stack:
                answer = call(iter([request]) if many else request, metadata=metadata, timeout=20)
                if streams:
                    stack.callback(answer.cancel)
                    answer = next(answer)
            return answer.status.code
        verb, path, body = transcoding.encode_request(method, request)
        headers = {**dict(metadata), "content-type": "application/json"}
        with self.web.stream(verb, path, content=body or None, headers=headers) as answer:
            tree = transcoding.loads(next(answer.iter_lines()))  # others may go on for ever
        return int(tree.get("result", tree)["status"]["code"])  # of a stream: the first result

    def keys(self, wanted: Iterable[v2.Key]) -> list[str]:
        """The ids of new keys of anna's."""
        todo, made = list(wanted), []
        while todo:
            request = v2.PostKeysRequest(user_app_id=v2.UserAppIDSet(user_id="anna"))
            request.keys.extend(todo[:100])
            made += [key.id for key in ok(self.anna("PostKeys", request)).keys]
            del todo[:100]
        return made


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    config = {
        "users": [
            {"id": "anna", "pat": "anna-secret", "apps": [{"id": "app"}]},
            {"id": "carl", "pat": "carl-secret", "apps": [{"id": "own"}]},
        ]
    }
    with (
        LocalServer(config=config, rest_port=0) as server,
        grpc.insecure_channel(server.address) as channel,
        httpx.Client(base_url=server.rest_base or "", timeout=20) as web,
    ):
        yield World(server, v2.V2Stub(channel), web)


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Key {secret}"),)


@cache
def fronts(method: str) -> list[str]:
    """The fronts that have a method; one method shares its address with another."""
    try:
        transcoding.encode_request(method, request_of(method))
    except transcoding.TranscodingError:
        return ["grpc"]
    return ["grpc", "rest"]


def test_the_tables_are_whole() -> None:
    assert len(METHOD) > 270
    assert sum(bool(known.scopes) for known in METHOD.values()) > 255
    assert len(NEEDED) > 100
    assert sum(len(fronts(method)) for method in METHOD) > 530


@pytest.mark.parametrize("kind", ["personal_access_token", "api_key"])
def test_scopes_of_keys(world: World, kind: str) -> None:
    """A key may call what all of its scopes allow, and nothing else."""
    expected = expectations()
    apps = [v2.App(id="app")] if kind == "api_key" else []
    secrets = world.keys(v2.Key(type=kind, scopes=sorted(scopes), apps=apps) for scopes in expected)
    wrong = []
    for (scopes, methods), secret in zip(expected.items(), secrets, strict=True):
        for method, allowed in methods.items():
            takes = METHOD[method].kind in ("KeyAuth", "NoAuth") or kind != "api_key"
            for front in fronts(method):
                code = world.code(method, bearer(secret), front)
                right = code not in NO_CREDENTIAL if allowed and takes else code == REFUSED
                if not right:
                    lacking = METHOD[method].scopes - scopes
                    wrong.append((method, front, Code.Name(code), sorted(lacking)))
    assert not wrong, "\n".join(map(str, wrong))


def test_endpoints_of_keys(world: World) -> None:
    """A key that names a method may call this one alone."""
    names = list(METHOD)
    secrets = world.keys(
        v2.Key(type="personal_access_token", endpoints=[f"/clarifai.api.V2/{name}"])
        for name in names
    )
    wrong = []
    for number, (name, secret) in enumerate(zip(names, secrets, strict=True)):
        other = names[number - 1]
        if world.code(name, bearer(secret), "grpc") in NO_CREDENTIAL:
            wrong.append((name, "refused"))
        if METHOD[other].scopes and world.code(other, bearer(secret), "grpc") != REFUSED:
            wrong.append((other, "allowed"))
    assert not wrong, "\n".join(map(str, wrong))


def test_kinds_of_credentials(world: World) -> None:
    """No credential, wrong ones, a stranger's, a session and an access token of an application."""
    (expired,) = world.keys([v2.Key(type="personal_access_token", scopes=["All"])])
    past = v2.Key(id=expired)
    past.expires_at.seconds = 1
    ok(world.anna("PatchKeys", v2.PatchKeysRequest(keys=[past], action="merge")))
    form = {
        "grant_type": "client_credentials",
        "client_id": world.server.client_id,
        "client_secret": world.server.client_secret,
    }
    token = world.web.post("/v1/token/", data=form).json()["access_token"]
    session = (("x-clarifai-session-token", world.server.session_token),)
    nobody = {
        "none": (),
        "unknown": bearer("0" * 32),
        "expired": bearer(expired),
        "no session": (("x-clarifai-session-token", "wrong"),),
    }
    wrong = []
    for method, known in METHOD.items():
        for front in fronts(method):
            for name, metadata in nobody.items():
                code = world.code(method, metadata, front)
                if (code in NO_CREDENTIAL - {REFUSED}) == (known.kind == "NoAuth"):
                    wrong.append((method, front, name, Code.Name(code)))
            by_session = world.code(method, session, front)
            by_token = world.code(method, (("authorization", f"Bearer {token}"),), front)
            by_stranger = world.code(method, bearer("carl-secret"), front)
            if by_session in NO_CREDENTIAL:
                wrong.append((method, front, "session", Code.Name(by_session)))
            if (by_token == REFUSED) == (known.kind in ("KeyAuth", "NoAuth")):
                wrong.append((method, front, "token", Code.Name(by_token)))
            if known.of_app and by_stranger not in (REFUSED, Code.CONN_DOES_NOT_EXIST):
                wrong.append((method, front, "stranger", Code.Name(by_stranger)))
    assert not wrong, "\n".join(map(str, wrong))


def test_scopes_of_collaborators(world: World) -> None:
    """A collaborator reads and writes what the scopes allow, and nothing else."""
    share = v2.PostCollaboratorsRequest(user_app_id=APP)
    share.collaborators.add(scopes=["Search"]).user.id = "carl"
    entry = ok(world.anna("PostCollaborators", share)).collaborators[0].id
    wrong = []
    for scopes, methods in expectations(of_app=True).items():
        change = v2.PatchCollaboratorsRequest(user_app_id=APP, action="overwrite")
        change.collaborators.add(id=entry, scopes=sorted(scopes))
        ok(world.anna("PatchCollaborators", change))
        for method, allowed in methods.items():
            for front in fronts(method):
                code = world.code(method, bearer("carl-secret"), front)
                if (code == REFUSED) == (allowed and method not in OF_OWNER):
                    lacking = METHOD[method].scopes - scopes
                    wrong.append((method, front, Code.Name(code), sorted(lacking)))
    assert not wrong, "\n".join(map(str, wrong))
