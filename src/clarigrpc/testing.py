"""The pytest fixture ``clarifai_local``: a local V2 server for the tests of a project.

pytest finds it wherever clarigrpc is installed. The server starts when a test first uses it::

    def test_colors(clarifai_local):
        with clarifai_local.client() as client:
            ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clarigrpc.local import LocalServer

__all__ = [
    "clarifai_local",
]


@pytest.fixture(scope="session")
def clarifai_local() -> Iterator[LocalServer]:
    """A running LocalServer for the whole test session; its data is lost at the end."""
    from clarigrpc.local import LocalServer

    with LocalServer() as server:
        yield server
