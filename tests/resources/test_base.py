"""The machinery of all resources: lists split into requests, failures put back in order."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Hashable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import Client, errors, text, v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._resources.annotations import Annotations
from clarigrpc._resources.base import chunks, field_of
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import ScriptedServer

Code = v2.StatusCode


class Bulk:
    """Answers PostAnnotations: what has a concept fails."""

    settings: Any = None
    user_app_id = v2.UserAppIDSet()

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.kept_limits: dict[Hashable, Any] = {}

    def unary(self, method: str, *, encoded: bool = False) -> Any:
        def post(request: v2.PostAnnotationsRequest, **options: Any) -> Any:
            self.sizes.append(len(request.annotations))
            response = v2.MultiAnnotationResponse()
            for one in request.annotations:
                made = response.annotations.add(id=one.id)
                bad = bool(one.data.concepts)
                made.status.code = Code.ANNOTATION_INVALID_ARGUMENT if bad else Code.SUCCESS
            codes = {one.status.code for one in response.annotations}
            response.status.code = Code.MIXED_STATUS
            if len(codes) == 1:
                response.status.code = Code.SUCCESS if Code.SUCCESS in codes else Code.FAILURE
            return response

        return post

    def pause(self, seconds: float) -> Any:
        raise AssertionError("nothing here has to be waited for")

    def close_with(self, part: Any) -> None:
        raise AssertionError("nothing here has to be closed")

    def raises_on_partial(self, wanted: bool | None) -> bool:
        return wanted is not False


@given(st.lists(st.booleans(), min_size=1, max_size=400))
def test_results_of_many_requests(fails: list[bool]) -> None:
    owner = Bulk()
    wanted = [v2.Annotation(id=str(index)) for index in range(len(fails))]
    for one, bad in zip(wanted, fails, strict=True):
        if bad:
            one.data.concepts.add(id="c")
    annotations = Annotations(owner)
    found = annotations.create_many(wanted, raise_on_partial=False)
    assert [one.id for one in found] == [one.id for one in wanted]
    assert [one.status.code != Code.SUCCESS for one in found] == fails
    assert sum(owner.sizes) == len(fails)
    assert max(owner.sizes) <= MAX_ITEMS
    places = [index for index, failed in enumerate(fails) if failed]
    if not places:
        assert annotations.create_many(wanted) == found
    elif len(fails) == 1:
        with pytest.raises(errors.InvalidArgumentError):
            annotations.create_many(wanted)
    else:
        with pytest.raises(errors.PartialFailureError) as caught:
            annotations.create_many(wanted)
        assert [one.index for one in caught.value.failed] == places


def test_a_failure_says_how_far_it_came() -> None:
    class Ends(Bulk):
        def unary(self, method: str, *, encoded: bool = False) -> Any:
            post = super().unary(method)

            def limited(request: v2.PostAnnotationsRequest, **options: Any) -> Any:
                if self.sizes:
                    raise errors.UnavailableError("the service is gone")
                return post(request)

            return limited

    with pytest.raises(errors.UnavailableError) as caught:
        Annotations(Ends()).create_many([v2.Annotation()] * 200)
    assert caught.value.__notes__ == ["128 of 200 items were processed before this error"]


def test_ids_that_are_left_out_are_those_of_the_client() -> None:
    with Client(base="http://127.0.0.1:1", pat="p", user_id="u", app_id="a") as client:
        there = client.datasets.within(app_id="b")
        assert there._user_app_id == v2.UserAppIDSet(user_id="u", app_id="b")
        assert client.model("m", user_id="v")._user_app_id == v2.UserAppIDSet(
            user_id="v", app_id="a"
        )
        versions = client.datasets.within(user_id="v").versions("d")
        assert versions._user_app_id == v2.UserAppIDSet(user_id="v", app_id="a")
        assert client.keys.within(user_id="v")._user_app_id == v2.UserAppIDSet(user_id="v")
        assert client.datasets._user_app_id is None


@given(st.lists(st.integers()), st.integers(1, 50))
def test_chunks(values: list[int], size: int) -> None:
    found = list(chunks(values, size))
    assert [value for chunk in found for value in chunk] == values
    assert all(len(chunk) == size for chunk in found[:-1])
    assert not found or 0 < len(found[-1]) <= size


def test_fields_by_the_type_of_their_message() -> None:
    assert field_of("PostDatasetsRequest", "Dataset") == "datasets"
    assert field_of("MultiStatusCodeResponse", "Status") == "statuses"
    with pytest.raises(LookupError, match="0 fields"):
        field_of("PostDatasetsRequest", "Model")


async def test_values_that_cannot_be(both: Both) -> None:
    c = both.client
    with pytest.raises(TypeError, match=r"v2\.Dataset, an id or a mapping"):
        await both.run(c.datasets.create, v2.Model(id="m"))
    with pytest.raises(errors.InvalidArgumentError, match="client_kind"):
        await both.run(c.datasets.create, {"id": "d", "client_kind": "red"})
    with pytest.raises(errors.InvalidArgumentError, match="at least one"):
        await both.run(c.datasets.create_many, [])
    with pytest.raises(errors.InvalidArgumentError, match="at least one"):
        await both.run(c.datasets.delete, [])
    with pytest.raises(errors.InvalidArgumentError, match="model_id"):
        c.models.versions(None)


async def test_the_same_over_rest(both: Both, connect: Connect, service: LocalServer) -> None:
    app = both.client.settings.app_id
    rest = connect(
        service.rest_base or "",
        transport="rest",
        pat=service.pat,
        user_id=service.user_id,
        app_id=app,
    )
    c = rest.client
    await rest.run(c.datasets.create_many, ["d", "e"])
    assert {one.id for one in await rest.collect(c.datasets.list(per_page=1))} == {"d", "e"}
    assert app in {one.app_id for one in await rest.collect(c.datasets.list(all_apps=True))}
    await rest.run(c.datasets.versions("d").create, "v")
    assert (await rest.run(c.datasets.versions("d").get, "v")).dataset_id == "d"
    await rest.run(c.datasets.delete, ["d", "e"])
    assert await both.collect(both.client.datasets.list()) == []
    assert (await rest.run(c.apps.get)).id == app
    assert service.pat in {one.id for one in await rest.collect(c.keys.list())}
    assert await rest.collect(c.search.inputs()) == []
    with pytest.raises(errors.NotFoundError):
        await rest.run(c.workflows.get, "no-such-workflow")


def _page(*ids: str) -> v2.MultiInputResponse:
    response = v2.MultiInputResponse(inputs=[v2.Input(id=one) for one in ids])
    response.status.code = Code.SUCCESS
    return response


@pytest.mark.parametrize("cycle", [1, 2, 3])
async def test_a_list_whose_pages_repeat_ends_with_an_error(
    connect: Connect, scripted: ScriptedServer, cycle: int
) -> None:
    both = connect(scripted.base)

    def answer(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        (request,) = requests
        yield _page(f"a{request.page % cycle}", f"b{request.page % cycle}")

    scripted.always("ListInputs", answer)
    with pytest.raises(errors.InternalError, match="items of an earlier page") as caught:
        await both.collect(both.client.inputs.list(per_page=2))
    assert caught.value.method == "ListInputs"
    assert len(scripted.seen) == 2 * cycle + 1
    # One page that was asked for is one page.
    assert len(await both.collect(both.client.inputs.list(per_page=2, page=5))) == 2


@pytest.mark.parametrize("wrong", [{"page": 0}, {"page": -1}, {"per_page": 0}, {"per_page": -5}])
async def test_pages_begin_at_one(
    connect: Connect, scripted: ScriptedServer, wrong: dict[str, int]
) -> None:
    both = connect(scripted.base)
    listing = both.client.inputs.list(**wrong)
    with pytest.raises(errors.InvalidArgumentError, match="must be 1 or more, not"):
        await both.collect(listing)
    assert not scripted.seen


async def test_a_value_of_the_wrong_type_names_its_field(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base)
    with pytest.raises(TypeError, match=r"^GetInput: input_id takes no int"):
        await both.run(both.client.inputs.get, 5)
    with pytest.raises(TypeError, match=r"^GetInput: input_id takes no NoneType"):
        await both.run(both.client.inputs.get, None)
    with pytest.raises(errors.InvalidArgumentError, match=r"^GetInput: input_id is empty"):
        await both.run(both.client.inputs.get, "")
    for wrong in (None, 5, b"x", [None]):
        with pytest.raises(TypeError, match=r"^(expected an id or|an id is a string)"):
            await both.run(both.client.inputs.delete, wrong)
    for empty in ("", ["a", ""]):
        with pytest.raises(errors.InvalidArgumentError, match=r"^an id is empty"):
            await both.run(both.client.inputs.delete, empty)
    assert not scripted.seen
    with pytest.raises(errors.InvalidArgumentError, match=r"GetInput: input_id: .*surrogates"):
        await both.run(both.client.inputs.get, "\ud800")
    with pytest.raises(TypeError, match="id has to be a string, not int"):
        text("words", id=5)  # type: ignore[arg-type]


def test_what_has_a_connection_is_not_pickled(both: Both) -> None:
    for one in (both.client.model("m"), both.client.inputs, both.client.workflows):
        for duplicate in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=f"^{type(one).__name__} objects have a client's"):
                duplicate(one)


async def test_items_that_move_to_later_pages_are_no_error(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base)
    shifted = [_page("a", "b"), _page("c", "d"), _page("a", "b"), _page("c", "d"), _page("e")]
    scripted.on("ListInputs", *shifted)
    found = await both.collect(both.client.inputs.list(per_page=2))
    assert [one.id for one in found] == ["a", "b", "c", "d", "a", "b", "c", "d", "e"]


def test_resources_of_threads_are_one(service: LocalServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Client(base=service.base, pat=service.pat) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.concepts, range(64)))
    assert len({id(one) for one in found}) == 1
