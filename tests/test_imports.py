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
        "clarigrpc.predict.coalesce",
        "clarigrpc.predict.pipeline",
        "clarigrpc.predict.signatures",
        "clarigrpc.resources.inputs",
        "clarigrpc.rest",
        "clarigrpc.upload.sources",
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
    assert "clarigrpc.predict.pipeline" in imported(PREDICTING_MANY)
