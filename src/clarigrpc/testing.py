"""pytest fixture ``clarifai_local``: a local V2 server for the tests of a project.

It is found by pytest as soon as clarigrpc is installed, and costs nothing until it is used::

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
    """A running LocalServer that forgets everything at the end of the test session."""
    from clarigrpc.local import LocalServer

    with LocalServer() as server:
        yield server
