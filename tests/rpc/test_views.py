"""Views: a client with other options on the same connection; and retries chosen per call."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import time
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import AsyncClient, Client, RetryPolicy, errors, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.local.fronts.rest_front import RestFront
from tests.backend import Backend, outputs, respond
from tests.both import Both, ClientKind
from tests.conftest import PAT, Connect
from tests.scripted import Fail, ScriptedServer, refuse, reply

Code = grpc.StatusCode
GET = v2.GetModelRequest(model_id="m")
DOWN = Fail(Code.UNAVAILABLE)
QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)
OUTPUTS = reply(
    "PostModelOutputs", outputs=[v2.Output(status=v2.Status(code=v2.StatusCode.SUCCESS))]
)


def view_of(both: Both, **options: Any) -> Both:
    """A view of the client, for the same tests."""
    view = Both.__new__(Both)
    view.is_sync = both.is_sync
    view.client = both.client.with_options(**options)
    return view


@pytest.fixture
def origin(connect: Connect, scripted: ScriptedServer) -> Both:
    """The client that the views are made of."""
    return connect(
        scripted.base,
        timeout=10,
        stream_timeout=20,
        user_id="u",
        app_id="a",
        retry=QUICK,
        metadata=[("x-of", "client")],
    )


async def test_a_view_changes_what_it_was_told_and_nothing_else(
    origin: Both, scripted: ScriptedServer
) -> None:
    scripted.always("GetModel", reply("GetModel"))
    view = view_of(
        origin,
        timeout=3,
        stream_timeout=4,
        user_id="another",
        metadata=[("x-of", "view"), ("x-more", "1")],
    )
    assert type(view.client) is type(origin.client)
    await view.call("GetModel", GET)
    await origin.call("GetModel", GET)
    theirs, ours = scripted.seen
    assert 1 < theirs.seconds_left < 4
    assert 8 < ours.seconds_left < 11
    assert theirs.request.user_app_id == v2.UserAppIDSet(user_id="another", app_id="a")
    assert ours.request.user_app_id == v2.UserAppIDSet(user_id="u", app_id="a")
    assert (theirs.metadata["x-of"], theirs.metadata["x-more"]) == ("view", "1")
    assert ours.metadata["x-of"] == "client"
    assert "x-more" not in ours.metadata
    assert origin.client.settings.timeout == 10
    assert view.client.settings.stream_timeout == 4
    ids = [call.metadata["x-clarifai-request-id-prefix"] for call in scripted.seen]
    assert len(set(ids)) == 2
    assert len({one.rpartition("-")[0] for one in ids}) == 1


async def test_metadata_of_the_client_go_with_those_of_a_call(
    origin: Both, scripted: ScriptedServer
) -> None:
    scripted.always("GetModel", reply("GetModel"))
    await origin.call("GetModel", GET, metadata=[("x-call", "1")])
    await view_of(origin, metadata=[]).call("GetModel", GET, metadata=[("x-call", "2")])
    first, second = scripted.seen
    assert (first.metadata["x-of"], first.metadata["x-call"]) == ("client", "1")
    assert "x-of" not in second.metadata
    assert second.metadata["x-call"] == "2"


async def test_views_share_the_connection(origin: Both, scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    view = view_of(origin, timeout=5)
    again = view_of(view, user_id="x")
    assert again.client.settings.timeout == 5
    await again.call("GetModel", GET)  # the first one opens it
    transport = origin.client.channel.shared.current
    assert transport is not None
    await origin.call("GetModel", GET)
    await view.call("GetModel", GET)
    for one in (view, again):
        assert one.client.channel.shared is origin.client.channel.shared
        assert one.client.channel.core.budget is origin.client.channel.core.budget
    assert origin.client.channel.shared.current is transport


async def test_closing_or_dropping_a_view_closes_nothing(
    origin: Both, scripted: ScriptedServer
) -> None:
    scripted.always("GetModel", reply("GetModel"))
    view = view_of(origin, timeout=5)
    await view.call("GetModel", GET)
    await view.close()
    await origin.call("GetModel", GET)
    await view.call("GetModel", GET)
    known = weakref.ref(view.client)
    del view
    gc.collect()
    assert known() is None  # nothing holds it
    await origin.call("GetModel", GET)


async def test_closing_the_client_closes_its_views(origin: Both, scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    view = view_of(origin, timeout=5)
    await view.call("GetModel", GET)
    await origin.close()
    with pytest.raises(errors.ClosedError):
        await view.call("GetModel", GET)


async def test_what_a_view_started_ends_with_it_and_with_the_client(
    origin: Both, scripted: ScriptedServer
) -> None:
    scripted.always("PostModelOutputs", OUTPUTS)
    for ends_with in ("view", "client"):
        view = view_of(origin, timeout=5)
        model = view.client.model("m", coalesce=True)
        other = origin.client.model("m", coalesce=True)
        await view.run(model.predict, text("a"))
        await (view if ends_with == "view" else origin).close()
        with pytest.raises(errors.ClosedError):
            await view.run(model.predict, text("a"))
        if ends_with == "view":
            await origin.run(other.predict, text("a"))


async def test_views_everywhere_a_client_is(origin: Both, scripted: ScriptedServer) -> None:
    output = v2.Output(status=v2.Status(code=v2.StatusCode.SUCCESS))
    scripted.always("PostModelOutputs", reply("PostModelOutputs", outputs=[output]))
    scripted.always("GenerateModelOutputs", list(outputs(1)))
    scripted.always("ListConcepts", reply("ListConcepts"))
    scripted.always("ListModels", reply("ListModels"))
    assert await origin.collect(origin.client.concepts.list()) == []
    view = view_of(origin, timeout=3, stream_timeout=5, app_id="of-the-view")
    model = view.client.model("m")
    await view.run(model.predict, text("a"))
    await view.collect(model.predict_many([text("a")]))
    await view.collect(model.generate(text("a")))
    await view.collect(view.client.concepts.list())  # not the resource that the client has made
    stub = v2.V2Stub(view.client.channel)
    await view.run(stub.ListModels, v2.ListModelsRequest())
    first, *seen = scripted.seen
    assert first.request.user_app_id.app_id == "a"
    for call in seen:
        assert call.request.user_app_id.app_id == "of-the-view", call.method
        assert call.seconds_left < 6, call.method


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base", "http://127.0.0.1:1"),
        ("pat", PAT),
        ("transport", "rest"),
        ("connections", 2),
        ("hedge", 0.9),
        ("interceptors", []),
        ("wait_for_ready", True),
    ],
)
def test_what_belongs_to_the_connection_cannot_be_changed(name: str, value: Any) -> None:
    for make in (Client, AsyncClient):
        client: Any = make(pat=PAT)
        with pytest.raises(TypeError, match=f"with_options.. cannot change {name}"):
            client.with_options(**{name: value})
        with pytest.raises(TypeError, match=r"with_options.. has no option 'tiemout'; did you"):
            client.with_options(tiemout=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", "3"),
        ("timeout", 0),
        ("timeout", float("inf")),
        ("stream_timeout", True),
        ("retry", 3),
        ("raise_on_partial", "yes"),
        ("user_id", 5),
        ("metadata", {"a": "b"}),
        ("metadata", [("Upper", "case")]),
        ("metadata", [("key", "line\nbreak")]),
    ],
)
def test_wrong_values_are_refused_at_once(name: str, value: Any) -> None:
    for make in (Client, AsyncClient):
        client: Any = make(pat=PAT)
        with pytest.raises(errors.ConfigurationError, match=name):
            client.with_options(**{name: value})


def test_none_keeps_and_empty_clears() -> None:
    client = Client(pat=PAT, user_id="u", app_id="a", timeout=7, raise_on_partial=False)
    same = client.with_options(timeout=None, user_id=None, raise_on_partial=None).settings
    assert (same.timeout, same.user_id, same.raise_on_partial) == (7, "u", False)
    assert client.with_options(user_id="", raise_on_partial=True).settings.user_id == ""


def test_a_view_of_a_subclass_keeps_what_that_has() -> None:
    class Named(Client):
        """A client with a name."""

        def __init__(self, name: str) -> None:
            super().__init__(pat=PAT)
            self.name = name

    view = Named("n").with_options(timeout=3)
    assert isinstance(view, Named)
    assert (view.name, view.settings.timeout) == ("n", 3)


def test_pickling_a_client_says_what_to_do_instead() -> None:
    for make in (Client, AsyncClient):
        client = make(pat=PAT)
        for function in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"create a {make.__name__} in each process"):
                function(client)


@pytest.mark.measures
def test_making_a_view_is_cheap() -> None:
    client = Client(pat=PAT, user_id="u", app_id="a")
    began = time.thread_time()
    for _ in range(1000):
        client.with_options(timeout=3)
    assert time.thread_time() - began < 0.5  # seconds, 0.05 usually


async def test_raise_on_partial_of_a_view(origin: Both, scripted: ScriptedServer) -> None:
    mixed = refuse("PostInputs", v2.StatusCode.MIXED_STATUS)
    scripted.always("PostInputs", mixed)
    request = v2.PostInputsRequest(inputs=[v2.Input(id="i")])
    view = view_of(origin, raise_on_partial=False)
    assert await view.call("PostInputs", request) == mixed
    with pytest.raises(errors.PartialFailureError):
        await origin.call("PostInputs", request)


async def test_retries_of_a_view(origin: Both, scripted: ScriptedServer) -> None:
    never = view_of(origin, retry=False)
    scripted.on("GetModel", DOWN)
    with pytest.raises(errors.UnavailableError):
        await never.call("GetModel", GET)
    scripted.on("GetModel", DOWN, DOWN, reply("GetModel"))
    await origin.call("GetModel", GET)
    once_more = view_of(never, retry=RetryPolicy(max_attempts=2, initial_backoff=0.01))
    scripted.on("GetModel", DOWN, DOWN)
    with pytest.raises(errors.UnavailableError):
        await once_more.call("GetModel", GET)


@pytest.mark.parametrize("how", ["policy", "once", "client"])
async def test_retries_of_a_call(origin: Both, scripted: ScriptedServer, how: str) -> None:
    retry: Any = {
        "policy": RetryPolicy(max_attempts=3, initial_backoff=0.01, max_backoff=0.01),
        "once": False,
        "client": None,
    }[how]
    attempts = {"policy": 3, "once": 1, "client": 5}[how]
    scripted.on("GetModel", *[DOWN] * attempts)
    with pytest.raises(errors.UnavailableError):
        await origin.call("GetModel", GET, retry=retry)
    scripted.on("GenerateModelOutputs", *[DOWN] * attempts)
    with pytest.raises(errors.UnavailableError):
        await origin.collect(
            origin.open("GenerateModelOutputs", v2.PostModelOutputsRequest(), retry=retry)
        )
    assert len(scripted.seen) == 2 * attempts


async def test_a_call_can_ask_for_retries_that_its_client_does_not_make(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, timeout=10, retry=False)
    scripted.on("GetModel", DOWN, reply("GetModel"))
    assert await both.call("GetModel", GET, retry=QUICK) == reply("GetModel")


@pytest.mark.parametrize("wrong", [3, True, 0, "no", RetryPolicy])
async def test_a_wrong_retry_is_refused_before_the_call(
    origin: Both, scripted: ScriptedServer, wrong: Any
) -> None:
    with pytest.raises(TypeError, match="retry has to be a RetryPolicy or False"):
        await origin.call("GetModel", GET, retry=wrong)
    with pytest.raises(TypeError, match="retry has to be a RetryPolicy or False"):
        await origin.collect(
            origin.open("GenerateModelOutputs", v2.PostModelOutputsRequest(), retry=wrong)
        )
    assert scripted.seen == []


async def test_with_call_takes_retry_too(connect: Connect, scripted: ScriptedServer) -> None:
    with Client(base=scripted.base, pat=PAT) as client:
        scripted.on("GetModel", DOWN)
        get: Any = client.v2.GetModel
        with pytest.raises(errors.UnavailableError):
            get.with_call(GET, retry=False)


@pytest.fixture
def rest() -> Iterator[tuple[Backend, str]]:
    backend = Backend()
    front = RestFront(backend)
    front.start()
    yield backend, front.base
    front.close()


async def test_over_rest(connect: Connect, rest: tuple[Backend, str]) -> None:
    backend, base = rest
    both = connect(base, transport="rest", user_id="u", app_id="a", metadata=[("x-of", "client")])
    view = view_of(both, user_id="of-the-view", metadata=[("x-of", "view")], retry=False)
    await view.call("GetModel", GET)
    await both.call("GetModel", GET)
    (theirs, their_call), (ours, our_call) = backend.calls
    assert theirs.user_app_id.user_id == "of-the-view"
    assert ours.user_app_id.user_id == "u"
    assert dict(their_call.metadata)["x-of"] == "view"
    assert dict(our_call.metadata)["x-of"] == "client"
    backend.handlers["GetModel"] = respond("GetModel", v2.StatusCode.CONN_THROTTLED)
    before = len(backend.calls)
    with pytest.raises(errors.RateLimitError):
        await view.call("GetModel", GET)
    assert len(backend.calls) == before + 1
    await view.close()
    backend.reset()
    await both.call("GetModel", GET)


def test_threads_share_a_view(client_kind: ClientKind, clarifai_local: LocalServer) -> None:
    if client_kind == "async":
        pytest.skip("an AsyncClient is for one thread")
    from concurrent.futures import ThreadPoolExecutor

    with clarifai_local.client() as client:
        view = client.with_options(timeout=20)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: len(list(view.apps.list())), range(32)))
    assert len(set(found)) == 1


async def test_many_views_at_once(origin: Both, scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))

    async def one(number: int) -> None:
        await view_of(origin, user_id=f"u{number}").call("GetModel", GET)

    await asyncio.gather(*(one(number) for number in range(20)))
    users = sorted(call.request.user_app_id.user_id for call in scripted.seen)
    assert users == sorted(f"u{number}" for number in range(20))
