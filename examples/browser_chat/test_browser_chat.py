"""The chat as a browser sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clarigrpc.local import LocalServer


@pytest.fixture(scope="module")
def web(serve: Any) -> Iterator[httpx.Client]:
    with (
        serve("browser_chat", "uvicorn", "browser_chat:app", "--port", "0") as service,
        httpx.Client(base_url=service.address, timeout=60) as client,
    ):
        yield client


def events(web: httpx.Client, prompt: str) -> list[tuple[str, str]]:
    """Name and value of each event of an answer."""
    with web.stream("GET", "/chat", params={"prompt": prompt}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.partition(": ")[2] for line in answer.iter_lines() if line]
    return [(name, json.loads(data)) for name, data in zip(lines[::2], lines[1::2], strict=True)]


def test_words_come_one_by_one(web: httpx.Client) -> None:
    found = events(web, "one two\nthree")
    assert found == [("word", "one"), ("word", " two"), ("word", "\nthree"), ("end", "")]


def test_a_failure_in_the_middle_is_an_event(
    web: httpx.Client, clarifai_local: LocalServer
) -> None:
    clarifai_local.faults.stream_fail_after = 1
    try:
        found = events(web, "one two")
    finally:
        clarifai_local.faults.stream_fail_after = None
    assert [name for name, _ in found] == ["word", "failure"]


def test_the_page_and_its_limits(web: httpx.Client) -> None:
    assert "EventSource" in web.get("/").text
    assert web.get("/chat").status_code == 422
