"""What is no value for an operation is refused before anything is sent; the error names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clarigrpc import errors, text, v2
from tests.conftest import Connect

NOWHERE = "http://127.0.0.1:1"
Use = Callable[[Any], Any]


async def refused(connect: Connect, use: Use) -> Exception:
    both = connect(NOWHERE, retry=False)

    async def end() -> None:
        if both.is_sync:
            found = use(both.client)
            if hasattr(found, "__next__"):
                next(found)
            return
        found = use(both.client)
        if hasattr(found, "__await__"):
            await found
        elif hasattr(found, "__anext__"):
            await found.__anext__()

    with pytest.raises((TypeError, errors.InvalidArgumentError)) as caught:
        await end()
    assert not isinstance(caught.value, errors.UnavailableError)
    return caught.value


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda c: c.concepts.create_many(None), "a list of items, not NoneType"),
        (lambda c: c.concepts.create_many(3), "a list of items, not int"),
        (lambda c: c.concepts.create_many(b"ab"), "a list of items, not bytes"),
        (lambda c: c.inputs.create(None), "a list, not NoneType"),
        (lambda c: c.inputs.create([None]), "a binary file, not NoneType"),
        (lambda c: c.inputs.patch(3), "a list, not int"),
        (lambda c: c.inputs.wait(None), "a list, not NoneType"),
        (lambda c: c.inputs.wait([None]), "an id or a message with one, not NoneType"),
        (lambda c: c.inputs.upload(None), "an iterable of inputs, not NoneType"),
        (lambda c: c.inputs.upload(b"ab"), "an iterable of inputs, not bytes"),
        (lambda c: c.inputs.stream(last_id=3), "last_id takes no int"),
        (lambda c: c.inputs.merge_concepts(["a"], "cat"), "an id is a string, not list"),
        (lambda c: c.inputs.merge_concepts_many(["a"]), "a mapping of ids of inputs"),
        (lambda c: c.inputs.remove_concepts_many({"": ["cat"]}), "an id is empty"),
        (lambda c: c.jobs.follow(None), "an id or a message with one, not NoneType"),
        (lambda c: c.evaluations.follow({"id": "e"}), "an id or a message with one, not dict"),
        (lambda c: c.apps.wait_duplicated(["a", "b"]), "one duplication or its id, not list"),
        (lambda c: c.apps.duplicate("a", 3), "PostAppDuplications: id takes no int"),
        (lambda c: c.apps.get(3), "app_id takes no int"),
        (lambda c: c.apps.rename("a", 3), "PatchAppsIds: new_id takes no int"),
        (lambda c: c.apps.search(3), "PostAppsSearches: name takes no int"),
        (lambda c: c.keys.list_of_app(3), "ListAppKeys: app_id takes no int"),
        (lambda c: c.users.get(3), "GetUser: user_id takes no int"),
        (lambda c: c.models.search(3), "PostModelsSearches: name takes no int"),
        (lambda c: c.concepts.search(3), "PostConceptsSearches: name takes no int"),
        (lambda c: c.annotations.delete_many([None]), "(input_id, annotation_id), not None"),
        (lambda c: c.annotations.delete_many([("i", "")]), "an id is empty"),
        (lambda c: c.annotations.stream(3), "StreamAnnotations: input_id takes no int"),
        (lambda c: c.workflows.predict(3, text("a")), "workflow_id takes no int"),
        (lambda c: c.workflows.similarity("w", None, []), "an iterable of inputs, not NoneType"),
        (lambda c: c.model("m").predict(None), "a binary file, not NoneType"),
        (lambda c: c.model("m").predict(one for one in "ab"), "predict_many() any iterable"),
        (lambda c: c.model("m").generate([text("a")]), "a binary file, not list"),
        (lambda c: c.model("m").stream(None), "an iterable of inputs, not NoneType"),
        (lambda c: c.model("m").predict_many(None), "an iterable of inputs, not NoneType"),
        (lambda c: c.model("m", user_id=3), "user_id has to be a string, not int"),
        (lambda c: c.model("m", version_id=3), "version_id has to be a string, not int"),
        (lambda c: c.inputs.within(app_id=3), "app_id has to be a string, not int"),
        (lambda c: c.inputs.list(page="1"), "page has to be an integer, not str"),
        (lambda c: c.inputs.upload([], progress="bar"), "progress has to be True, False or a"),
        (lambda c: c.model("m").predict_many([], progress=print), "progress has to be True or"),
        (lambda c: c.workflows.predict_many("w", [], progress=3), "progress has to be True or"),
        (lambda c: c.model("m").upload_version(b"a", part_size="1"), "part_size has to be an int"),
        (lambda c: c.model("m").upload_version(b"a", foo=1), "an upload has no option foo"),
        (lambda c: c.uploads.upload(b"a", progress=3), "progress has to be True, False or a"),
        (lambda c: c.v2.ListInputs(v2.ListInputsRequest(), metadata=3), "metadata takes pairs"),
        (
            lambda c: c.model("m").predict_many([], batch_size="3"),
            "batch_size has to be an integer, not str",
        ),
        (
            lambda c: c.model("m").predict_many([], in_flight=1.5),
            "in_flight has to be an integer, not float",
        ),
    ],
)
@pytest.mark.asyncio
async def test_the_error_names_what_is_wrong(connect: Connect, use: Use, named: str) -> None:
    assert named in str(await refused(connect, use))


@pytest.mark.asyncio
async def test_a_word_is_no_pair_of_ids(connect: Connect) -> None:
    """Two letters could be taken for an input and its annotation."""
    error = await refused(connect, lambda client: client.annotations.delete_many(["ab"]))
    assert isinstance(error, TypeError)


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.datasets.create(""),
        lambda c: c.concepts.create_many(["cat", ""]),
        lambda c: c.apps.duplicate("", "copy"),
    ],
)
@pytest.mark.asyncio
async def test_an_empty_id_names_nothing(connect: Connect, use: Use) -> None:
    """It is that of a variable that is not set: no resource of any id, nor the client's app."""
    error = await refused(connect, use)
    assert isinstance(error, errors.InvalidArgumentError)
    assert "empty" in str(error)


@pytest.mark.asyncio
async def test_a_sequence_without_iter_is_a_list(connect: Connect) -> None:
    class Rows:
        def __getitem__(self, index: int) -> v2.Concept:
            if index > 1:
                raise IndexError
            return v2.Concept(id=f"c{index}")

    both = connect(NOWHERE, retry=False, timeout=5)
    with pytest.raises(errors.UnavailableError):
        await both.run(both.client.concepts.create_many, Rows())
