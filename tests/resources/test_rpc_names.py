"""The RPCs that a verb sends stand in the source of its resource, to be found by a search."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import errors, v2
from clarigrpc._contract import methods
from clarigrpc.types import AsyncLongRunningWork, LongRunningWork
from tests.both import Both, ClientKind
from tests.conftest import Connect
from tests.resources.verbs import Verb, model_verbs, verbs
from tests.scripted import ScriptedServer, reply

SHARED = {f"clarigrpc._resources.{name}" for name in ("base", "long_running", "sync_async")}
"""Modules that name no RPC on behalf of a resource."""

OPTIONAL: Mapping[str, Mapping[str, Any]] = {
    "annotations.delete_many": {"pairs": [("x", "y")]},
    "collaborators.delete": {"ids": "x"},
}
"""Arguments that are optional, and yet needed."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that answers every call with SUCCESS and as many items as it was sent."""
    with ScriptedServer() as made:
        for method in methods.names():
            made.always(method, _answer(method))
        yield made


def _answer(method: str) -> Any:
    row = methods.lookup(method)

    def answer(requests: Iterator[Any], context: Any) -> Iterable[Any]:
        request = next(iter(requests))
        response = reply(method)
        sent = [value for field, value in request.ListFields() if field.is_repeated]
        count = max(map(len, sent), default=0)
        for field in row.response_class().DESCRIPTOR.fields:
            if field.message_type is not None and not field.is_repeated and field.name != "status":
                getattr(response, field.name).SetInParent()
            elif field.message_type is not None and field.is_repeated and row.item_field:
                for _ in range(count):
                    status = methods.item_status(getattr(response, field.name).add())
                    status.code = v2.StatusCode.SUCCESS
        yield response

    return answer


def _argument(parameter: inspect.Parameter, folder: Path) -> Any:
    """Something that a verb takes for an argument, by its type."""
    kind = str(parameter.annotation)
    if kind == "str | os.PathLike[str]":
        return folder / "written"
    if kind.endswith(".ValueType") or kind == "int":
        return 1
    if message := re.search(r"v2\.(\w+)", kind):
        made = getattr(v2, message[1])()
        if "id" in made.DESCRIPTOR.fields_by_name:
            made.id = "x"
        return [made] if kind.startswith("Iterable") else made
    if "PredictInput" in kind or kind == "AsyncInputSource":
        return v2.Input(id="x") if kind.startswith("PredictInput") else [v2.Input(id="x")]
    simple = {
        "str": "x",
        "str | Iterable[str]": ["x", "y"],
        "Sequence[str]": ["x"],
        "UploadSource": b"content",
        "ConceptLabels": "x",
        "Mapping[str, ConceptLabels]": {"x": "x"},
    }
    return simple[kind]


def _calls(verb: Verb, folder: Path) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The arguments of one call of a verb, or of two, where it takes one id or many."""
    _, *parameters = inspect.signature(verb.function).parameters.values()
    options = dict(OPTIONAL.get(verb.path, {}))
    if any(parameter.name == "timeout" for parameter in parameters):
        options["timeout"] = 1
    needed = [
        _argument(one, folder)
        for one in parameters
        if one.default is one.empty
        and one.kind is not one.VAR_KEYWORD
        # Conditions and parts are optional, formats are not.
        and not (one.kind is one.VAR_POSITIONAL and "ValueType" not in str(one.annotation))
    ]
    yield needed, options
    if ["x", "y"] in needed:
        yield ["x" if one == ["x", "y"] else one for one in needed], options


async def _send(both: Both, verb: Verb, given: list[Any], options: dict[str, Any]) -> None:
    """Call a verb; what it makes of the answer does not matter here."""
    method = eval(f"client.{verb.expression}", {"client": both.client})
    made = (
        method(*given, **options) if not both.is_sync else await both.run(method, *given, **options)
    )
    if hasattr(made, "__await__"):
        made = await made
    if isinstance(made, (Iterator, AsyncIterator)):
        await both.collect(made)
    if isinstance(made, (LongRunningWork, AsyncLongRunningWork)):
        await both.run(made.status, timeout=1)


def _sources(owner: type[Any]) -> str:
    """The modules of a resource: of its class and of its bases, less what all of them share."""
    names = {base.__module__ for base in owner.__mro__ if base.__module__ not in SHARED}
    modules = {name for name in names if name.startswith("clarigrpc._resources.")}
    return "".join(inspect.getsource(sys.modules[name]) for name in modules)


@pytest.mark.filterwarnings("ignore:.* is deprecated")  # the retired RPCs
async def test_the_rpcs_of_a_verb_stand_in_its_module(
    server: ScriptedServer, connect: Connect, client_kind: ClientKind, tmp_path: Path
) -> None:
    both = connect(server.base, pat="p", user_id="u", app_id="a")
    silent, wrong = [], {}
    for verb in [*verbs(client_kind), *model_verbs(client_kind)]:
        if not verb.sends:
            continue
        sources = _sources(verb.owner)
        for given, options in _calls(verb, tmp_path):
            server.seen.clear()
            with contextlib.suppress(errors.ApiError, IndexError, ValueError, KeyError):
                await _send(both, verb, given, options)
            if not server.seen and "timeout" in options:  # a busy machine missed the deadline
                with contextlib.suppress(errors.ApiError, IndexError, ValueError, KeyError):
                    await _send(both, verb, given, {**options, "timeout": 30})
            sent = {seen.method for seen in server.seen}
            if not sent:
                silent.append(verb.path)
            if strange := sorted(rpc for rpc in sent if f'"{rpc}"' not in sources):
                wrong[verb.path] = strange
    assert silent == []
    assert wrong == {}
