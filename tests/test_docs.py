"""The Python of the documentation: every block runs, and prints what its comments say.

A page is one program, its blocks in order. ``print(x)  # text`` says that this is printed. A block
after ``<!-- not run: reason -->`` is only shown.
"""

from __future__ import annotations

import builtins
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from clarigrpc._resources.sync_async import Lazy
from clarigrpc.client import Client
from clarigrpc.local import LocalServer

DOCS = Path(__file__).resolve().parents[1] / "docs"
# guide-inputs.md has a test of its own.
PAGES = sorted(
    path.name
    for path in DOCS.glob("*.md")
    if "```python" in path.read_text() and path.name != "guide-inputs.md"
)

_BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?```(python|yaml)\n(.*?)```", re.DOTALL)
_PRINTED = re.compile(r"print\(.*\)  # (.*)$", re.MULTILINE)


def shout(words: str, times: int = 1) -> str:
    """The model of the pages."""
    return words.upper() * times


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0, models={"shout": shout}) as running:
        yield running


@pytest.fixture
def surroundings(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Path:
    """A folder with two pictures, and an app of the page's own in the environment."""
    page = request.node.callspec.params["page"].removesuffix(".md")
    app_id = f"{page}-{uuid.uuid4().hex[:8]}"  # a further try finds nothing of the first
    with server.client() as client:
        client.apps.create(app_id)
    for name, colour in (("cat", (254, 0, 0)), ("dog", (0, 0, 254))):
        PIL.Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "CLARIFAI_API_BASE": server.base,
        "CLARIFAI_PAT": server.pat,
        "CLARIFAI_USER_ID": server.user_id,
        "CLARIFAI_APP_ID": app_id,
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, surroundings: Path) -> None:
    text = (DOCS / page).read_text()
    printed: list[str] = []

    def keep(*values: object, **options: Any) -> None:
        printed.append(" ".join(map(str, values)))

    names: dict[str, Any] = {"__name__": "page", "print": keep}
    for block in _BLOCK.finditer(text):
        comment, language, source = block.groups()
        if language == "yaml":
            (surroundings / "server.yaml").write_text(source)
        elif not comment:
            # Lines are numbered as in the page.
            padding = "\n" * text.count("\n", 0, block.start(3))
            exec(builtins.compile(padding + source, str(DOCS / page), "exec"), names)
            for expected in _PRINTED.findall(source):
                assert expected in printed, f"{page}: {expected!r} was not printed: {printed}"


def test_every_resource_has_its_place() -> None:
    page = (DOCS / "resources.md").read_text()
    for owner in Client.__mro__:
        for name, value in vars(owner).items():
            if isinstance(value, Lazy):
                assert f"## client.{name}\n" in page


def test_every_page_can_be_reached() -> None:
    index = (DOCS / "index.md").read_text()
    listed = re.findall(r"^[a-z-]+$", index, re.MULTILINE)
    assert sorted(["index", *listed]) == sorted(path.stem for path in DOCS.glob("*.md"))
