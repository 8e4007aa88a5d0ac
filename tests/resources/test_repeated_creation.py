"""Inputs with ids are created once, whatever becomes of the requests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import RetryPolicy, errors, image, text, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.local.conftest import png
from tests.scripted import Fail, ScriptedServer

Code = v2.StatusCode
LOST = Fail(grpc.StatusCode.UNAVAILABLE, "the connection broke")
_apps = itertools.count()


class Relay:
    """Hands the calls of a scripted server on to a real one, and loses some of them.

    Attributes:
        fates: What becomes of the next requests for inputs: ``lost`` are their responses,
            ``dropped`` the requests themselves, and ``late`` ones arrive after the next listing.
    """

    def __init__(self, front: ScriptedServer, server: LocalServer, channel: grpc.Channel) -> None:
        self.fates: list[str] = []
        self._stub = v2.V2Stub(channel)
        self._pairs = (("authorization", f"Key {server.pat}"),)
        self._late: list[Any] = []
        front.always("PostInputs", self._post)
        front.always("ListInputs", self._list)

    def __call__(self, method: str, request: Any) -> Any:
        return getattr(self._stub, method)(request, metadata=self._pairs, timeout=20)

    def _post(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterable[Any]:
        (request,) = requests
        fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "late":
            self._late.append(request)
        response = self("PostInputs", request) if fate in ("ok", "lost") else None
        yield LOST if fate != "ok" else response

    def _list(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterable[Any]:
        (request,) = requests
        response = self("ListInputs", request)
        for late in self._late:
            self("PostInputs", late)
        self._late.clear()
        yield response


@pytest.fixture
def relay(scripted: ScriptedServer, service: LocalServer) -> Iterator[Relay]:
    with grpc.insecure_channel(service.address) as channel:
        yield Relay(scripted, service, channel)


@pytest.fixture
def lossy(connect: Connect, scripted: ScriptedServer, service: LocalServer, relay: Relay) -> Both:
    """A client of the relay, in an app of its own."""
    app = f"creations{next(_apps)}"
    owner = v2.UserAppIDSet(user_id=service.user_id)
    relay("PostApps", v2.PostAppsRequest(user_app_id=owner, apps=[v2.App(id=app)]))
    return connect(
        scripted.base,
        user_id=service.user_id,
        app_id=app,
        timeout=20,
        retry=RetryPolicy(initial_backoff=0.01, max_backoff=0.02, max_attempts=9, budget=None),
    )


def made() -> list[v2.Input]:
    return [text("a", id="a", concepts=["x"]), image(png("red"), id="b"), text("c", id="c")]


_FATES = [
    fates
    for count in (1, 2, 3)
    for fates in itertools.product(("lost", "dropped", "late"), repeat=count)
]


async def test_whatever_becomes_of_the_requests(lossy: Both, relay: Relay) -> None:
    inputs = lossy.client.inputs
    for number, fates in enumerate(_FATES):
        relay.fates = [*fates]
        wanted = made()
        for one in wanted:
            one.id += str(number)
        created = await lossy.run(inputs.create, wanted)
        assert [one.id for one in created] == [one.id for one in wanted], fates
    assert len(await lossy.collect(inputs.list())) == 3 * len(_FATES)


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
async def test_an_id_that_another_input_has(lossy: Both, relay: Relay, fate: str) -> None:
    create = lossy.client.inputs.create
    await lossy.run(create, text("another", id="a"))
    relay.fates = [fate]
    with pytest.raises(errors.AlreadyExistsError) as alone:
        await lossy.run(create, text("a", id="a"))
    assert alone.value.code == Code.INPUT_DUPLICATE
    relay.fates = [fate]
    with pytest.raises(errors.PartialFailureError) as caught:
        await lossy.run(create, made())
    assert [one.index for one in caught.value.failed] == [0]
    assert caught.value.failed[0].status.code == Code.INPUT_DUPLICATE
    stored = {one.id: one async for one in lossy.items(lossy.client.inputs.list())}
    assert stored.keys() == {"a", "b", "c"}
    assert stored["a"].data.text.raw == "another"


@pytest.mark.parametrize(
    ("wanted", "policy"),
    [
        (lambda: text("a"), RetryPolicy(initial_backoff=0.01)),
        (lambda: [text("a", id="a"), text("b")], RetryPolicy(initial_backoff=0.01)),
        (lambda: text("a", id="a"), RetryPolicy(max_attempts=1)),
    ],
    ids=["no id", "one without", "no retries"],
)
async def test_what_is_not_repeated(
    lossy: Both, relay: Relay, wanted: Callable[[], Any], policy: RetryPolicy
) -> None:
    relay.fates = ["lost"]
    inputs = lossy.client.with_options(retry=policy).inputs
    with pytest.raises(errors.UnavailableError, match="PostInputs"):
        await lossy.run(inputs.create, wanted())


async def test_responses_to_a_repetition_that_say_little(
    connect: Connect, scripted: ScriptedServer
) -> None:
    nothing = v2.MultiInputResponse(status=v2.Status(code=Code.SUCCESS))
    bare = v2.MultiInputResponse(status=nothing.status, inputs=made())
    answers = [LOST, bare, LOST, nothing]
    scripted.always("PostInputs", lambda *_: iter([answers.pop(0)]))
    scripted.always("ListInputs", lambda *_: iter([nothing]))
    both = connect(scripted.base, timeout=20, retry=RetryPolicy(initial_backoff=0.01))
    create = both.client.inputs.create
    assert [one.id for one in await both.run(create, made())] == ["a", "b", "c"]  # no status each
    with pytest.raises(errors.InternalError, match="no word on 3 of the inputs"):
        await both.run(create, made())
    assert not answers
