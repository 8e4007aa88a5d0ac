"""A fixture: an app with three images, two of them with concepts and a place."""

from __future__ import annotations

import pytest

from tests.local.conftest import Raw, add_image


@pytest.fixture
def library(raw: Raw) -> Raw:
    add_image(
        raw,
        "berlin",
        "red",
        concepts=[{"id": "cat", "value": 1}],
        metadata={"a": {"b": [1, 2]}, "k": "v"},
        geo={"geo_point": {"longitude": 13.4, "latitude": 52.5}},
    )
    add_image(
        raw,
        "paris",
        "red",
        "blue",
        concepts=[{"id": "cat", "value": 0}, {"id": "dog", "value": 1}],
        geo={"geo_point": {"longitude": 2.35, "latitude": 48.86}},
    )
    add_image(raw, "nowhere", "blue")
    return raw
