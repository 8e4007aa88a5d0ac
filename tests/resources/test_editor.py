"""What an editor shows of every verb: a finished signature, a finished text, every argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.both import ClientKind
from tests.language_server import LanguageServer, Signature
from tests.resources.verbs import KINDS, Part, Verb, model_verbs, parts, verbs

PLACEHOLDER = re.compile(r"\{[a-z ]+\}|\bAs (in )?``|\bUnknown\b|\b(?:[A-Z][a-z]+)*T\b")
"""Something to be filled in, a reference to another text, a type variable."""


class Shown(NamedTuple):
    """What an editor shows of a verb."""

    verb: Verb
    hover: str
    signatures: list[Signature]


class Editor(NamedTuple):
    """What an editor shows of all verbs and all resources, by the client."""

    verbs: dict[ClientKind, list[Shown]]
    parts: dict[ClientKind, list[tuple[Part, str]]]


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Editor:
    """One language server is asked about all of them."""
    found = {kind: [*model_verbs(kind), *verbs(kind)] for kind in KINDS}
    lines = ["from clarigrpc import AsyncClient, Client"]
    lines += ["sync_client, async_client = Client(), AsyncClient()"]
    places: list[tuple[ClientKind, Verb, int]] = []
    for kind, of_kind in found.items():
        for verb in of_kind:
            places.append((kind, verb, len(lines)))
            lines.append(f"{kind}_client.{verb.expression}()")
    parts_at: list[tuple[ClientKind, Part, int]] = []
    for kind in KINDS:
        for part in parts(kind):
            parts_at.append((kind, part, len(lines)))
            lines.append(f"{kind}_client.{part.expression}")
    result = Editor({kind: [] for kind in KINDS}, {kind: [] for kind in KINDS})
    with LanguageServer(tmp_path_factory.mktemp("editor"), "\n".join(lines)) as server:
        for kind, verb, row in places:
            end = len(lines[row]) - 1
            hover, signatures = server.hover(row, end - 2), server.signatures(row, end)
            result.verbs[kind].append(Shown(verb, hover, signatures))
        for kind, part, row in parts_at:
            result.parts[kind].append((part, server.hover(row, len(lines[row]) - 1)))
    return result


@pytest.fixture
def all_shown(editor: Editor, client_kind: ClientKind) -> list[Shown]:
    """What it shows of the verbs of one client."""
    found = editor.verbs[client_kind]
    assert len(found) > 200
    return found


def _names(signature: Signature) -> Iterator[str]:
    """The names of the parameters, and ``?`` for one without a name."""
    for parameter in signature.parameters:
        if parameter not in ("*", "/"):
            match = re.match(r"\*{0,2}(\w+): .", parameter)
            yield match[1] if match else "?"


def _explained(text: str) -> set[str]:
    """The names of the arguments that a text explains."""
    arguments = re.search(r"^Args:\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
    lines = arguments[1] if arguments else ""
    return set(re.findall(r"^    \*{0,2}(\w+): \S", lines, re.MULTILINE))


def _report(wrong: dict[str, str]) -> str:
    return "\n".join(f"{path}: {what}" for path, what in wrong.items())


def test_hover_shows_what_a_resource_is(editor: Editor, client_kind: ClientKind) -> None:
    assert len(editor.parts[client_kind]) > 34
    for part, hover in editor.parts[client_kind]:
        name = part.expression.rpartition(".")[2]
        assert f"{name}: {part.owner.__name__}" in hover
        assert part.text
        assert part.text in hover


def test_hover_shows_the_signature_and_the_text(all_shown: list[Shown]) -> None:
    wrong = {}
    for verb, hover, _ in all_shown:
        name = verb.path.rpartition(".")[2]
        text = inspect.getdoc(verb.function)
        if not text or text not in hover:
            wrong[verb.path] = f"not the text that help() shows: {hover}"
        elif name not in hover or "->" not in hover:
            wrong[verb.path] = f"no signature: {hover}"
        elif PLACEHOLDER.search(hover):
            wrong[verb.path] = f"not finished: {hover}"
    assert not wrong, _report(wrong)


def test_signature_help_names_and_explains_every_argument(all_shown: list[Shown]) -> None:
    wrong = {}
    for verb, _, signatures in all_shown:
        if not signatures or not all(signature.text for signature in signatures):
            wrong[verb.path] = "no signature or no text"
        for signature in signatures:
            names = list(_names(signature))
            missing = set(names) - _explained(signature.text)
            if missing:
                wrong[verb.path] = f"not explained: {sorted(missing)} of {signature.label}"
            if PLACEHOLDER.search(signature.label + signature.text):
                wrong[verb.path] = f"not finished: {signature}"
    assert not wrong, _report(wrong)


def test_help_shows_the_same_arguments(all_shown: list[Shown]) -> None:
    wrong = {}
    for verb, _, signatures in all_shown:
        _, *parameters = inspect.signature(verb.function).parameters
        offered = {name for signature in signatures for name in _names(signature)}
        if offered != set(parameters):
            wrong[verb.path] = f"{sorted(offered)} in the editor, {parameters} at run time"
    assert not wrong, _report(wrong)


def test_texts_explain_no_argument_that_is_not_there(all_shown: list[Shown]) -> None:
    wrong = {}
    for verb, _, signatures in all_shown:
        offered = {name for signature in signatures for name in _names(signature)}
        if more := _explained(inspect.getdoc(verb.function) or "") - offered:
            wrong[verb.path] = ", ".join(sorted(more))
    assert not wrong, _report(wrong)
