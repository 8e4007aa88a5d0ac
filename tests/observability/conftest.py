from __future__ import annotations

from collections.abc import Iterator

import pytest

from clarigrpc import opentelemetry
from tests.observability.telemetry import Telemetry


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Clients that are made in the test are instrumented."""
    made = Telemetry()
    made.instrument()
    yield made
    opentelemetry.uninstrument()
    made.shutdown()
