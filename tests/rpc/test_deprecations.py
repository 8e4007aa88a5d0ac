"""Warnings of calls that use what the service has deprecated."""

from __future__ import annotations

import csv
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import deprecations, methods
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import ScriptedServer, reply
from tests.strategies import messages

FACTS = Path(__file__).parents[1] / "data"


def rows(name: str) -> Iterator[dict[str, str]]:
    with (FACTS / name).open() as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def is_deprecated(row: dict[str, str]) -> bool:
    return row["era"] == "retired" or "deprecated" in row["options"].split(" ; ")


def field_at(method: str, path: str) -> Any:
    """The descriptor of the field that a path of the table ends at."""
    descriptor = methods.lookup(method).request_class().DESCRIPTOR
    for name in path.split("."):
        field = descriptor.fields_by_name[name]
        descriptor = field.message_type
    return field


PATHS = [
    (method, path, advice)
    for method, found in deprecations.FIELDS.items()
    for path, advice in found.items()
]
VALUES = [
    (method, path, value)
    for method, found in deprecations.VALUES.items()
    for path, known in found.items()
    for value in known
]


# The table against the contract


def test_every_deprecated_method_is_in_the_table() -> None:
    contract = {row["rpc"] for row in rows("rpcs.tsv") if is_deprecated(row)}
    assert set(deprecations.METHODS) == contract


def test_every_deprecated_field_of_a_request_is_in_the_table() -> None:
    known = {(method, path) for method, path, _ in PATHS}
    requests = {methods.lookup(name).request_name: name for name in methods.names()}
    lacking = set()
    for row in rows("fields.tsv"):
        name = row["message"].removeprefix("clarifai.api.")
        if row["era"] == "current" and is_deprecated(row) and name in requests:
            method = requests[name]
            if method not in deprecations.METHODS and (method, row["field"]) not in known:
                lacking.add((method, row["field"]))
    assert not lacking


@pytest.mark.parametrize(("method", "path", "advice"), PATHS)
def test_fields_of_the_table_are_deprecated(method: str, path: str, advice: str) -> None:
    field = field_at(method, path)
    assert field.GetOptions().deprecated
    # What is named instead exists, and is not deprecated itself.
    if advice.startswith("use ") and "." in advice:
        for other in advice.removeprefix("use ").split(" and "):
            assert not field_at(method, other).GetOptions().deprecated


def test_values_of_the_table() -> None:
    scopes = {
        row["value"]
        for row in rows("enums.tsv")
        if row["enum"] == "clarifai.auth.scope.S" and is_deprecated(row)
    }
    for method, path, value in VALUES:
        assert field_at(method, path).type == field_at("PostKeys", "keys.scopes").type
        if path.endswith("scopes"):
            assert value in scopes


WATCHED = sorted({*deprecations.FIELDS, *deprecations.VALUES})


def set_paths(message: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The path of everything that is set in a message, with its value; lists give each item."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        for one in value if field.is_repeated else [value]:
            yield path, one
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                yield from set_paths(one, f"{path}.")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_set_warns_and_nothing_else(data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(WATCHED))
    request = data.draw(messages(methods.lookup(method).request_class()))
    look = deprecations.watch(method)
    assert look is not None
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        look(request)
    present = list(set_paths(request))
    expected = {
        f"{method}: {path} is deprecated: {advice}"
        for path, advice in deprecations.FIELDS.get(method, {}).items()
        if path in {name for name, _ in present}
    }
    for path, known in deprecations.VALUES.get(method, {}).items():
        for name, value in present:
            if name == path and value in known:
                expected.add(f"{method}: {path} {value!r} is deprecated: {known[value]}")
    assert {str(one.message) for one in found} == expected


# Calls


def built(method: str, path: str, value: Any = None) -> Any:
    """A request in which the field at the path is set, and nothing else."""
    request = methods.lookup(method).request_class()()
    message = request
    *above, last = path.split(".")
    for name in above:
        field = message.DESCRIPTOR.fields_by_name[name]
        inner = getattr(message, name)
        message = inner.add() if field.is_repeated else inner
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.message_type is not None:
        inner = getattr(message, last)
        if field.is_repeated:
            inner.add()
        else:
            inner.SetInParent()
    elif field.is_repeated:
        getattr(message, last).append(value or "x")
    else:
        setattr(message, last, value or (type(getattr(message, last))(1)))
    return request


async def called(both: Both, method: str, request: Any) -> list[str]:
    """The warnings of a call, each of which is checked to name the line that made it."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call = getattr(both.client.v2, method)
        if both.is_sync:
            call(request)
            line = here() - 1
        else:
            await call(request)
            line = here() - 1
    assert {(one.filename, one.lineno) for one in found} <= {(__file__, line)}
    return [str(one.message) for one in found]


def here() -> int:
    """The line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


async def test_deprecated_methods_warn(both: Both, scripted: ScriptedServer) -> None:
    for method, advice in deprecations.METHODS.items():
        scripted.on(method, reply(method))
        request = methods.lookup(method).request_class()()
        assert await called(both, method, request) == [f"{method} is deprecated: {advice}"]


async def test_deprecated_fields_warn(both: Both, scripted: ScriptedServer) -> None:
    for method, path, advice in PATHS:
        if not methods.lookup(method).response_streaming:
            scripted.on(method, reply(method))
            (text,) = await called(both, method, built(method, path))
            assert text == f"{method}: {path} is deprecated: {advice}"


async def test_deprecated_values_warn(both: Both, scripted: ScriptedServer) -> None:
    for method, path, value in VALUES:
        scripted.on(method, reply(method))
        (text,) = await called(both, method, built(method, path, value))
        advice = deprecations.VALUES[method][path][value]
        assert text == f"{method}: {path} {value!r} is deprecated: {advice}"


async def test_server_streams_warn(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GenerateModelOutputs", [reply("GenerateModelOutputs")])
    request = built("GenerateModelOutputs", "model.output_info")
    with pytest.warns(DeprecationWarning, match=r"model\.output_info is deprecated"):
        stream = both.open("GenerateModelOutputs", request)
    assert len(await both.collect(stream)) == 1


async def test_a_place_warns_once(both: Both, scripted: ScriptedServer) -> None:
    scripted.always("PostSearches", reply("PostSearches"))
    request = v2.PostSearchesRequest()
    call = both.client.v2.PostSearches

    async def ask() -> None:
        result = call(request)
        if not both.is_sync:
            await result

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(3):
            await ask()
        result = call(request)  # another place
        if not both.is_sync:
            await result
    assert len(found) == 2
    assert found[0].lineno != found[1].lineno


async def test_a_resource_warns_at_the_line_of_its_caller(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, timeout=10)
    scripted.on("ListModels", reply("ListModels"))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        search = both.client.models.list(model_type_id="facedetect")
        if both.is_sync:
            list(search)
            line = here() - 1
        else:
            [one async for one in search]
            line = here() - 1
    assert [(one.filename, one.lineno) for one in found] == [(__file__, line)]


async def test_what_is_not_deprecated_does_not_warn(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("PostModels", reply("PostModels"))
    scripted.on("PostKeys", reply("PostKeys"))
    model = v2.Model(id="m", model_type_id="detect")
    keys = v2.PostKeysRequest()
    keys.keys.add(scopes=["Inputs_Get"])
    # A warning is an error here.
    await both.call("PostModels", v2.PostModelsRequest(models=[model]))
    await both.call("PostKeys", keys)
