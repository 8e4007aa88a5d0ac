"""Calls work where grpcio's internals are not as expected: the public way is taken, and told once.

Each name that grpcio does not promise is taken away in turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import aio

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._rpc import async_fast_path, grpcio_internals, sync_channel, sync_fast_path
from tests.both import Both
from tests.scripted import Answer, ScriptedServer, reply

GET = v2.GetModelRequest(model_id="m")
GENERATE = v2.PostModelOutputsRequest(model_id="m")
PATH = methods.lookup("GetModel").path
CYGRPC = "grpc._cython.cygrpc"

Missing = tuple[str, str]
"""Module and name."""


def listed(names: grpcio_internals.Names) -> list[Missing]:
    return [(module, attribute) for module, found in names.items() for attribute in found]


def take_away(patch: pytest.MonkeyPatch, missing: Missing) -> None:
    """Remove a name of a module, or an attribute of a class there (some cannot be changed)."""
    module = import_module(missing[0])
    owner, _, name = missing[1].rpartition(".")
    if not owner:
        patch.delattr(module, name)
        return
    real = getattr(module, owner)
    rest = {key: getattr(real, key) for key in dir(real) if not key.startswith("__")}
    del rest[name]
    patch.setattr(module, owner, type(owner, (), rest))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the log says about the public way."""
    grpcio_internals.log_public_way.cache_clear()
    caplog.set_level(logging.DEBUG, "clarigrpc")

    def messages() -> list[str]:
        records = [record for record in caplog.records if "not with grpcio" in record.message]
        assert all(record.levelno == logging.DEBUG for record in records)
        return [record.message for record in records]

    yield messages
    grpcio_internals.log_public_way.cache_clear()


@pytest.fixture(autouse=True)
def only_where_it_is_used() -> None:
    if not grpcio_internals.usable():
        pytest.skip(f"not with grpcio {grpc.__version__}")


@pytest.fixture
def answers(scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel", model=v2.Model(id="m")))


def goes_directly(both: Both) -> bool:
    bound = both.client.v2.GetModel
    return (bound._direct if both.is_sync else bound.direct) is not None


async def call_twice(both: Both, scripted: ScriptedServer) -> None:
    for _ in range(2):
        assert (await both.call("GetModel", GET)).model.id == "m"
    assert len(scripted.seen) == 2


@pytest.mark.usefixtures("answers")
async def test_the_fast_path_is_taken(
    both: Both, scripted: ScriptedServer, told: Callable[[], list[str]]
) -> None:
    await call_twice(both, scripted)
    assert goes_directly(both)
    assert told() == []


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("missing", listed(sync_fast_path.PRIVATE_NAMES), ids="-".join)
@pytest.mark.parametrize("client_kind", ["sync"])
async def test_a_name_of_the_sync_fast_path_is_missing(
    both: Both,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
    missing: Missing,
) -> None:
    with monkeypatch.context() as patch:
        take_away(patch, missing)
        internals = grpcio_internals.load(sync_fast_path.PRIVATE_NAMES)
    monkeypatch.setattr(sync_fast_path, "_core", lambda: sync_fast_path.tried_out(internals))
    await call_twice(both, scripted)
    assert not goes_directly(both)
    (line,) = told()
    assert missing[1].rpartition(".")[2] in line


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("missing", listed(async_fast_path.PRIVATE_NAMES), ids="-".join)
@pytest.mark.parametrize("client_kind", ["async"])
async def test_a_name_of_the_async_fast_path_is_missing(
    both: Both,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
    missing: Missing,
) -> None:
    with monkeypatch.context() as patch:
        take_away(patch, missing)
        internals = grpcio_internals.load(async_fast_path.PRIVATE_NAMES)
    monkeypatch.setattr(async_fast_path, "_INTERNALS", internals)
    await call_twice(both, scripted)
    assert not goes_directly(both)
    (line,) = told()
    assert missing[1].rpartition(".")[2] in line


def refuse(*arguments: Any, **named: Any) -> Any:
    raise TypeError("takes other arguments")


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("SendInitialMetadataOperation", refuse),
        ("SendMessageOperation", refuse),
        ("SendCloseFromClientOperation", refuse),
        ("ReceiveInitialMetadataOperation", refuse),
        ("ReceiveMessageOperation", refuse),
        ("ReceiveStatusOnClientOperation", refuse),
        ("get_deadline_from_context", refuse),
        ("get_deadline_from_context", lambda: "soon"),
        ("_RPCState", refuse),
        ("_RPCState", lambda *arguments: object()),
        ("_handle_event", refuse),
        ("_handle_event", lambda *arguments: None),  # leaves the state without a code
        ("_InactiveRpcError", refuse),
        ("_InactiveRpcError", lambda state: state),
    ],
)
@pytest.mark.parametrize("client_kind", ["sync"])
async def test_something_of_the_sync_fast_path_behaves_otherwise(
    both: Both,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
    name: str,
    other: Any,
) -> None:
    real = grpcio_internals.load(sync_fast_path.PRIVATE_NAMES).objects
    found = sync_fast_path.tried_out(grpcio_internals.Internals({**real, name: other}))
    monkeypatch.setattr(sync_fast_path, "_core", lambda: found)
    await call_twice(both, scripted)
    assert not goes_directly(both)
    assert len(told()) == 1


class Bare:
    """A multicallable without one of its attributes."""

    def __init__(self, real: Any, paths: tuple[str, ...], missing: str) -> None:
        for path in paths:
            if path == missing:
                continue
            name, _, inner = path.partition(".")
            found = getattr(real, name)
            if inner:
                found = SimpleNamespace(**{inner: getattr(found, inner)})
            setattr(self, name, found)


@pytest.mark.parametrize("missing", sync_fast_path.PRIVATE_ATTRIBUTES)
def test_a_multicallable_is_another(
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
    missing: str,
) -> None:
    names = sync_fast_path._core()
    assert names is not None
    monkeypatch.setitem(names, "_UnaryUnaryMultiCallable", Bare)
    with grpc.insecure_channel(scripted.base.removeprefix("http://")) as channel:
        real: Any = channel.unary_unary(PATH)
        bare = Bare(real, sync_fast_path.PRIVATE_ATTRIBUTES, "")
        assert sync_fast_path.direct(bare) is not None
        bare = Bare(real, sync_fast_path.PRIVATE_ATTRIBUTES, missing)
        assert sync_fast_path.direct(bare) is None
    assert len(told()) == 1


@pytest.mark.parametrize("missing", async_fast_path.PRIVATE_ATTRIBUTES)
async def test_an_async_multicallable_is_another(
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
    missing: str,
) -> None:
    monkeypatch.setitem(async_fast_path._INTERNALS.objects, "UnaryUnaryMultiCallable", Bare)
    async with aio.insecure_channel(scripted.base.removeprefix("http://")) as channel:
        real: Any = channel.unary_unary(PATH)
        bare = Bare(real, async_fast_path.PRIVATE_ATTRIBUTES, "")
        assert async_fast_path.direct(bare, {}) is not None
        bare = Bare(real, async_fast_path.PRIVATE_ATTRIBUTES, missing)
        assert async_fast_path.direct(bare, {}) is None
    assert len(told()) == 1


@pytest.mark.usefixtures("answers")
async def test_a_call_that_the_core_does_not_start_is_made_the_public_way(
    both: Both,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
) -> None:
    start = 0 if both.is_sync else 1

    def with_other_start(*paths: str) -> Callable[[Any], Any]:
        def get(multicallable: Any) -> Any:
            found = list(real(*paths)(multicallable))
            found[start] = refuse
            return tuple(found)

        # One path is a name to load; of a multicallable there are several.
        return real(*paths) if len(paths) == 1 else get

    real: Callable[..., Callable[[Any], Any]] = attrgetter
    monkeypatch.setattr(grpcio_internals, "attrgetter", with_other_start)
    await call_twice(both, scripted)
    assert goes_directly(both)
    (line,) = told()
    assert "takes other arguments" in line


def other_consumers() -> list[Any]:
    real = import_module("grpc._channel")._SingleThreadedRendezvous

    class WithArgument:
        def _consume_next_event(self, deadline: float) -> None:
            raise AssertionError("is called")

    return [type("Without", (), {}), WithArgument, real]


@pytest.mark.parametrize("rendezvous", other_consumers(), ids=lambda found: found.__name__)
@pytest.mark.parametrize("client_kind", ["sync"])
async def test_a_stream_ends_without_the_internals_of_its_call(
    both: Both,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], list[str]],
    rendezvous: Any,
) -> None:
    real = import_module("grpc._channel")._SingleThreadedRendezvous
    sync_channel.single_threaded_calls.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(import_module("grpc._channel"), "_SingleThreadedRendezvous", rendezvous)
        assert (sync_channel.single_threaded_calls() == {}) is (rendezvous is not real)
    try:
        response = reply("GenerateModelOutputs")
        scripted.always("GenerateModelOutputs", Answer([response] * 3))
        stream = both.open("GenerateModelOutputs", GENERATE)
        next(stream)
        assert stream.cancel()
        assert len(await both.collect(both.open("GenerateModelOutputs", GENERATE))) == 3
    finally:
        sync_channel.single_threaded_calls.cache_clear()
    assert len(told()) == (rendezvous is not real)


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.parametrize("read", [None, refuse])
async def test_a_failed_write_is_reported_without_the_internals_of_its_call(
    both: Both, scripted: ScriptedServer, told: Callable[[], list[str]], read: Any
) -> None:
    scripted.always("PostModelVersionsUpload", Answer([]))  # where it is cancelled after it left
    error = aio.AioRpcError(grpc.StatusCode.INTERNAL, aio.Metadata(), aio.Metadata(), "told")
    call = both.client.v2.PostModelVersionsUpload()
    call.cancel()
    call._call = SimpleNamespace(done=lambda: True)
    if read is not None:
        call._call._read = read
    with pytest.raises(aio.AioRpcError, match="told"):
        await call._read_despite(error)
    assert len(told()) == 1
