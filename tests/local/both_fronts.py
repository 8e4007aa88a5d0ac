"""A fixture for modules whose tests run over both fronts: import it there."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)
