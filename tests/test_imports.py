"""What is imported when: a service that only predicts does not wait for the rest."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

import clarigrpc

PUBLIC = [one.name for one in pkgutil.iter_modules(clarigrpc.__path__) if one.name[0] != "_"]
IMPORTING = """
import sys
before = {{*sys.modules}}
import clarigrpc{}
print(*{{*sys.modules}} - before)
"""
# What the one dependency that is always there imports by itself.
OF_GRPC = {"cython_runtime", "google", "grpc", "typing_extensions"}
OF_GRPC |= {"grpc_health", "grpc_reflection", "grpc_tools"}
PREDICTING = """
import sys
from clarigrpc import Client, text
with Client(pat="x" * 20, user_id="u", app_id="a", base="https://api.example.com") as client:
    client.model("m")._encoder.encode((text("a"),))
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
    # Without coverage, which imports a lot by itself.
    environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def predicting() -> set[str]:
    return imported(PREDICTING)


@pytest.mark.parametrize(
    "module",
    [
        "clarigrpc.local",
        "clarigrpc._bulk.coalescing",
        "clarigrpc._bulk.predict_engine",
        "clarigrpc._named_methods.signatures",
        "clarigrpc._resources.inputs",
        "clarigrpc._rpc.call_stats",
        "clarigrpc._transports.http_exchange",
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
    assert "clarigrpc._bulk.predict_engine" in imported(PREDICTING_MANY)


def foreign(modules: set[str]) -> set[str]:
    """The other distributions among the modules."""
    tops = {name.partition(".")[0] for name in modules}
    # Cython and mypyc leave modules in the interpreter whose names begin with an underscore.
    return {top for top in tops - sys.stdlib_module_names - {"clarigrpc"} if top[0] != "_"}


def test_the_package_alone_imports_no_other() -> None:
    found = imported(IMPORTING.format(""))
    assert {name for name in found if name.startswith("clarigrpc.")} == {
        "clarigrpc._lazy_names",
        "clarigrpc._version",
    }
    assert not foreign(found)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "testing"])
def test_a_public_module_imports_no_optional_package(name: str) -> None:
    found = imported(IMPORTING.format("." + name))
    assert f"clarigrpc.{name}" in found
    assert foreign(found) <= OF_GRPC
    assert not found & {"clarigrpc.cli", "clarigrpc.local"} - {f"clarigrpc.{name}"}


def test_the_plugin_costs_a_run_of_pytest_nothing_else() -> None:
    # It is loaded in every run of pytest where clarigrpc is installed, used or not.
    found = imported("import pytest" + IMPORTING.format(".testing"))
    assert {one for one in found if one not in sys.stdlib_module_names} == {
        "clarigrpc",
        "clarigrpc._lazy_names",
        "clarigrpc._version",
        "clarigrpc.testing",
    }
