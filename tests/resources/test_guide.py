"""docs/guide-inputs.md: its REST calls and its Python lines run, and do the same."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

from clarigrpc import Client, v2
from clarigrpc.local import LocalServer
from tests.local.conftest import png

PAGE = Path(__file__).parents[2] / "docs" / "guide-inputs.md"
ELSEWHERE = "https://example.org"
_PENDING = (v2.StatusCode.INPUT_PENDING, v2.StatusCode.INPUT_IN_PROGRESS)

# What a heading's Python lines leave behind, where they change nothing in the app.
RESULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Several, with ids of your own": lambda found: [one.id for one in found["done"]],
    "Add inputs with metadata of your own": lambda found: [h.input.id for h in found["hits"]],
    "Get inputs": lambda found: (len(found["page"]), len(found["ids"])),
    "By id": lambda found: found["train"].id,
    "How far the service is": lambda found: found["counts"].processed,
    "All inputs": lambda found: found["count"],
    "With asyncio": lambda found: sorted(found["dogs"]),
}
EXPECTED = {
    "Several, with ids of your own": ["train1", "puppy1"],
    "Add inputs with metadata of your own": ["plant"],
    "Get inputs": (8, 8),
    "By id": "train1",
    "How far the service is": 8,
    "All inputs": 5,
    "With asyncio": ["dog0", "dog1", "dog2"],
}


def blocks() -> Iterator[tuple[str, str, str]]:
    """Heading, language and text of every block of the page."""
    heading = ""
    for found in re.finditer(r"^#+ ([^\n]*)$|^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        heading = found[1] or heading
        if found[2]:
            yield heading, found[2], found[3]


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = png("green")
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


SIZES = [0, 1, 2, 4, 4, 5, 7, *[8] * 10, 7, 5, 0]
"""How many inputs the app has after each block; the service deletes some time after it is told."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Address of a web server that has a picture at every path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Rest:
    """Sends the page's REST calls, with the key of an app."""

    def __init__(self, service: LocalServer, key: str, dog: bytes) -> None:
        headers = {"authorization": f"Key {key}", "content-type": "application/json"}
        self._http = httpx.Client(base_url=service.rest_base or "", headers=headers, timeout=20)
        self._dog = base64.b64encode(dog).decode()

    def __enter__(self) -> Rest:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def send(self, text: str) -> None:
        line, _, body = text.partition("\n")
        method, path = line.split()
        body = body.replace("<dog.png in base64>", self._dog)
        if "<every id of" in body:
            listed = self._http.get("/v2/inputs/stream").json()["inputs"]
            body = json.dumps({"ids": [one["id"] for one in listed]})
        answer = self._http.request(method, path, content=body.strip() or None)
        assert answer.status_code == 200, (text, answer.text)
        assert answer.json()["status"]["code"] == v2.StatusCode.SUCCESS


def content(client: Client, elsewhere: str) -> Any:
    """What is in an app, or None as long as the service is still at work on it."""
    inputs = list(client.inputs.list())
    if any(one.status.code in _PENDING for one in inputs):
        return None
    # Ids that the service made up, and bytes that it keeps, differ between apps.
    return sorted(
        (
            one.id if len(one.id) < 32 else "",
            one.status.code,
            one.data.image.url if one.data.image.url.startswith(elsewhere) else "",
            sorted((concept.id, concept.value) for concept in one.data.concepts),
            json.dumps(json_format.MessageToDict(one.data.metadata), sort_keys=True),
        )
        for one in inputs
    )


def agree(one: Client, other: Client, elsewhere: str, block: str, size: int) -> None:
    """Waits until two apps hold the same: so many inputs."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = content(one, elsewhere), content(other, elsewhere)
        if found[0] is not None and found[0] == found[1] and len(found[0]) == size:
            return
        time.sleep(0.02)
    raise AssertionError(f"{block}\nREST: {found[0]}\nclarigrpc: {found[1]}")


def test_the_page(
    service: LocalServer, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog = png("brown")
    (tmp_path / "dog.png").write_bytes(dog)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PAT": service.pat,
        "USER_ID": service.user_id,
        "APP_ID": "guide-python",
        "GRPC_BASE": service.base,
    }.items():
        monkeypatch.setenv(f"CLARIFAI_{name}", value)
    namespace: dict[str, Any] = {}
    results: dict[str, Any] = {}
    sizes = iter(SIZES)
    with Client() as python, Client(app_id="guide-rest") as rest_view:
        python.apps.create_many(["guide-python", "guide-rest"])
        app = v2.App(id="guide-rest")
        key = python.keys.create(v2.Key(scopes=["All"], apps=[app])).id
        with Rest(service, key, dog) as rest:
            for heading, language, text in blocks():
                text = text.replace(ELSEWHERE, elsewhere)
                if language == "http":
                    rest.send(text)
                    continue
                exec(compile(text, str(PAGE), "exec", dont_inherit=True), namespace)
                if heading != "With asyncio":
                    agree(rest_view, python, elsewhere, text, next(sizes))
                if heading in RESULTS:
                    # A later block of the heading may have it.
                    with contextlib.suppress(KeyError):
                        results[heading] = RESULTS[heading](namespace)
    assert results == EXPECTED
    assert list(sizes) == []


def test_the_page_has_the_guide_in_its_order() -> None:
    """The sections of the service's guide, by what each does."""
    headings = [name for name, language, _ in blocks() if language == "http"]
    assert list(dict.fromkeys(headings)) == [
        "By a URL",
        "From a file or bytes",
        "Several, with ids of your own",
        "Add inputs with concepts",
        "Add inputs with metadata of your own",
        "Get inputs",
        "By id",
        "How far the service is",
        "Concepts of one input",
        "Concepts of many inputs",
        "One input",
        "A list of inputs",
        "All inputs",
    ]
    languages = [language for heading, language, _ in blocks() if heading != "With asyncio"]
    assert languages[1:] == ["http", "python"] * (len(languages) // 2)
