"""The world that is fuzzed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()
