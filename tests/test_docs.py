"""The Python of the documentation: every block runs, and prints what its comments say.

A page is one program, its blocks in order. ``print(x)  # text`` says that this is printed. A block
after ``<!-- not run: reason -->`` is only shown.
"""

from __future__ import annotations

import builtins
import importlib.util
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from clarigrpc._resources.sync_async import lazy
from clarigrpc.client import Client
from clarigrpc.local import LocalServer

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TEXTS = [*ROOT.glob("*.md"), *DOCS.glob("*.md")]
COLUMNS = 100  # of code on a page, see docs/static/pages.css
# What the names of files begin with.
TOP = {path.name for path in ROOT.iterdir()} - {"site"}
# guide-inputs.md has a test of its own.
PAGES = sorted(
    path.name
    for path in DOCS.glob("*.md")
    if "```python" in path.read_text() and path.name != "guide-inputs.md"
)

_BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(python|yaml)\n(.*?)```", re.DOTALL)
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
    shutil.copy(DOCS / "cat.jpg", tmp_path)
    PIL.Image.new("RGB", (40, 40), (0, 0, 254)).save(tmp_path / "dog.jpg")
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
            if isinstance(value, lazy):
                assert f"- [client.{name}](reference/resources/{name}.md): " in page


def test_the_home_page_links_and_lists_every_page() -> None:
    index = (DOCS / "index.md").read_text()
    pages = sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")
    assert sorted(re.findall(r"^[a-z-]+$", index, re.MULTILINE)) == pages
    assert sorted(re.findall(r"^- \{doc\}`([a-z-]+)`", index, re.MULTILINE)) == pages


def test_what_the_texts_name_exists() -> None:
    """Files, folders, targets of make and modules to run."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    missing = []
    for path in TEXTS:
        text = path.read_text()
        for name in re.findall(r"`\.?\.?/?((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml))`", text):
            if name.partition("/")[0] in TOP and not (ROOT / name).exists():
                missing.append((path.name, name))
        for name in re.findall(r"\bmake (?:[A-Z]+=\S+ )*([a-z][a-z-]+)[`\s]", text):
            if name not in targets and f"`make {name}" in text:
                missing.append((path.name, f"make {name}"))
        for name in re.findall(r"python -m ((?:clarigrpc|benchmarks|tests)\b[\w.]*)", text):
            if importlib.util.find_spec(name) is None:
                missing.append((path.name, name))
    assert missing == []


def test_code_fits_the_width_of_a_page() -> None:
    wide = [
        (path.name, line)
        for path in DOCS.glob("*.md")
        for block in re.findall(
            r"^```(?:python|http|sh|yaml)\n(.*?)^```", path.read_text(), re.M | re.S
        )
        for line in block.splitlines()
        if len(line) > COLUMNS
    ]
    assert wide == []


def test_pages_for_users_name_nothing_private() -> None:
    private = re.compile(r"clarigrpc[./]_[a-z]\w+|`_[a-z]\w+[./`]")
    found = [
        (path.name, name)
        for path in TEXTS
        if path.name not in ("architecture.md", "CONTRIBUTING.md")
        for name in private.findall(path.read_text())
    ]
    assert found == []


def test_the_reference_shows_what_fields_hold() -> None:
    """Each message and enum that a field names has a place, and there is one place for it."""
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    pages: dict[str, str] = made.pages()
    text = "\n".join(pages.values())
    places = re.findall(r"^\((message-[\w-]+)\)=$", text, re.MULTILINE)
    assert len(places) == len(set(places))
    linked = set(re.findall(r"\]\(#(message-[\w-]+)\)", text))
    assert linked == set(places)
    assert {"message-Input", "message-Visibility-Gettable", "message-StatusCode"} <= linked
    data = pages["messages/resources.md"].partition("## Data\n")[2]
    assert "- `concepts` (repeated [Concept](#message-Concept)): " in data
    inputs = pages["methods/inputs.md"]
    assert "- `inputs` (repeated [Input](#message-Input))" in inputs
