"""What is imported when: a service that only predicts does not wait for the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

PREDICTING = """
import sys
from clarigrpc import Client, text
with Client(pat="x" * 20, user_id="u", app_id="a", base="https://api.example.com") as client:
    client.model("m").encoder.encode((text("a"),))
print(*sys.modules)
"""
PREDICTING_MANY = """
import sys
from clarigrpc import Client
with Client(pat="x" * 20, user_id="u", app_id="a", base="https://api.example.com") as client:
    client.model("m").predict_many([])
print(*sys.modules)
"""


def imported(script: str) -> set[str]:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def predicting() -> set[str]:
    return imported(PREDICTING)


@pytest.mark.parametrize(
    "module",
    [
        "clarigrpc.local",
        "clarigrpc._bulk.coalescing",
        "clarigrpc._bulk.predict_many",
        "clarigrpc._named_methods.signatures",
        "clarigrpc._resources.inputs",
        "clarigrpc._transports.http",
        "clarigrpc._uploads.upload_sources",
        "clarigrpc.v2.service_pb2_grpc",
        "hashlib",
        "httpx",
        "json",
        "numpy",
        "pathlib",
        "random",
        "yaml",
    ],
)
def test_a_client_that_predicts_does_not_import(module: str, predicting: set[str]) -> None:
    assert "clarigrpc.client" in predicting
    assert module not in predicting


def test_what_is_used_is_imported() -> None:
    assert "clarigrpc._bulk.predict_many" in imported(PREDICTING_MANY)
