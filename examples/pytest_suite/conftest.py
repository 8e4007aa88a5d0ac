"""What the server of the tests is like."""

from __future__ import annotations

from typing import Any

import pytest


def shout(words: str) -> str:
    """A model of our own, in the default app of the server."""
    return words.upper()


@pytest.fixture(scope="session")
def clarifai_options() -> dict[str, Any]:
    """Options of the LocalServer, in place of those of the plugin."""
    return {"models": {"shout": shout}}
