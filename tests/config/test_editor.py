"""What an editor shows of a client: every option with its type, its default and its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

import pytest

from clarigrpc._config.client_options import ClientOptions, ViewOptions
from tests.language_server import LanguageServer, Signature

UNFINISHED = re.compile(r"\{[a-z_ ]*\}|%s|\bUnknown\b")
LINES = ["from clarigrpc import AsyncClient, Client", "sync, other = Client(), AsyncClient()"]
ASKED = [
    f"{expression}{end}"
    for name, expressions in {"sync": ("Client",), "other": ("AsyncClient",)}.items()
    for expression, end in (
        (expressions[0], "()"),
        (expressions[0], ""),
        (f"{name}.with_options", "()"),
        (f"{name}.v2", ""),
        (f"{name}.v2.GetInput", ""),
    )
]
KINDS = pytest.mark.parametrize(("kind", "name"), [("Client", "sync"), ("AsyncClient", "other")])


class Editor:
    """A document in which the cursor is put on each of the expressions."""

    def __init__(self, server: LanguageServer) -> None:
        self._server = server

    def hover(self, expression: str) -> str:
        """What is shown for the last name of an expression."""
        line = len(LINES) + ASKED.index(expression)
        shown = self._server.hover(line, len(expression.removesuffix("()")) - 1)
        assert shown.strip()
        assert not UNFINISHED.search(shown), shown
        return shown

    def signature(self, expression: str) -> Signature:
        """What is shown between the parentheses of a call."""
        line = len(LINES) + ASKED.index(expression)
        (shown,) = self._server.signatures(line, len(expression) - 1)
        return shown


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    source = "\n".join([*LINES, *ASKED])
    with LanguageServer(tmp_path_factory.mktemp("editor"), source) as server:
        yield Editor(server)


@KINDS
def test_hovering_over_the_constructor_shows_every_option(
    editor: Editor, kind: str, name: str
) -> None:
    shown = editor.hover(f"{kind}()")
    assert shown.startswith(f"class {kind}(")
    for option in fields(ClientOptions):
        assert f"    {option.name}: " in shown.partition(")\n")[0]
        assert f"    {option.name}: " in shown.partition("Args:")[2]
    assert "timeout: float = 60" in shown
    assert "retry: RetryPolicy | Literal[False] | None = None" in shown
    assert "transport: Transport" in shown


@KINDS
def test_signature_help_of_the_constructor(editor: Editor, kind: str, name: str) -> None:
    shown = editor.signature(f"{kind}()")
    assert shown.label.endswith(f"-> {kind}")
    names = [one.partition(":")[0] for one in shown.parameters if one != "*"]
    assert names == [option.name for option in fields(ClientOptions)]
    assert "Args:" in shown.text


@KINDS
def test_hovering_over_the_class_shows_its_text(editor: Editor, kind: str, name: str) -> None:
    shown = editor.hover(kind)
    assert "ClientOptions" in shown
    assert len(shown) > 100


@KINDS
def test_hovering_over_with_options(editor: Editor, kind: str, name: str) -> None:
    shown = editor.hover(f"{name}.with_options()")
    assert f"-> {kind}" in shown
    for option in fields(ViewOptions):
        assert f"    {option.name}: " in shown.partition("->")[0]
        assert f"    {option.name}: " in shown.partition("Args:")[2]


@KINDS
def test_the_stub_is_typed(editor: Editor, kind: str, name: str) -> None:
    shown = editor.hover(f"{name}.v2")
    assert ("V2AsyncStub" if kind == "AsyncClient" else "V2Stub") in shown
    assert "Every method of the service" in shown
    assert "GetInputRequest" in editor.hover(f"{name}.v2.GetInput")
