"""mypy --strict and pyright understand what users write, and refuse wrong use.

``snippets/*good.py`` have no errors; in ``snippets/*bad.py.txt`` every line that ends in
``# error``, and no other, has one. (They are not called ``.py`` so that the project's own checks
pass over them.) Of gRPC and protobuf, which bring no types, pyright knows those of typeshed; mypy
has them from the extra ``typing``. What ends in ``# error if typed`` is only found then.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import AsyncClient, Client
from tests.contract.peer import PEERS, ROOT, environment, locked, run

SNIPPETS = Path(__file__).resolve().parent / "snippets"
GENERATED = ("good.py", "bad.py")
VALUES = ("values_good.py", "values_bad.py")

Errors = dict[str, dict[int, str]]
"""Errors by file and line."""


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("snippets")
    for path in SNIPPETS.iterdir():
        shutil.copy(path, directory / path.name.removesuffix(".txt"))
    return directory


def expected(name: str, *marks: str) -> set[int]:
    lines = (SNIPPETS / f"{name}.txt").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith(marks)}


def check(errors: Errors, good: str, bad: str, *marks: str) -> None:
    assert errors[good] == {}
    assert errors[bad].keys() == expected(bad, *marks), errors[bad]


def output(directory: Path, *command: str, env: Mapping[str, str] = os.environ) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # pyright's node package is fetched once and kept with the other tools of the tests.
        env={**env, "PYRIGHT_PYTHON_CACHE_DIR": str(PEERS / "pyright")},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(directory: Path, python: Path, cache: str, files: Sequence[str]) -> Errors:
    text = output(
        directory,
        *(str(python), "-m", "mypy", "--strict", "--no-error-summary", "--config-file="),
        *("--cache-dir", str(ROOT / ".mypy_cache" / cache), *files),
    )
    errors: Errors = {name: {} for name in files}
    for line in text.splitlines():
        match = re.match(r"([^:]+):(\d+): error: (.*)", line)
        if match:
            errors[Path(match[1]).name][int(match[2])] = match[3]
    return errors


@pytest.fixture(scope="module")
def pyright_errors(snippets: Path) -> Errors:
    command = (sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, ".")
    text = output(snippets, *command)
    report = json.loads(text[text.index("{") :])
    files = (*GENERATED, *VALUES)
    assert report["summary"]["filesAnalyzed"] == len(files)
    errors: Errors = {name: {} for name in files}
    for diagnostic in report["generalDiagnostics"]:
        if diagnostic["severity"] == "error":
            line = diagnostic["range"]["start"]["line"] + 1
            errors[Path(diagnostic["file"]).name][line] = diagnostic["message"]
    return errors


def test_mypy(snippets: Path) -> None:
    check(mypy(snippets, Path(sys.executable), "snippets", GENERATED), *GENERATED, "# error")


def test_pyright(pyright_errors: Errors) -> None:
    check(pyright_errors, *GENERATED, "# error")


def test_pyright_of_values(pyright_errors: Errors) -> None:
    check(pyright_errors, *VALUES, "# error", "# error if typed")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


@pytest.fixture(scope="module", params=["bare", "typed"])
def installed(
    request: pytest.FixtureRequest, project: dict[str, Any], distributions: Path
) -> tuple[Path, bool]:
    """The interpreter of an environment with the wheel, mypy, and nothing that these do not need.

    And whether it has the extra ``typing``.
    """
    extras: dict[str, list[str]] = project["optional-dependencies"]
    typed = request.param == "typed"
    (checker,) = (one for one in extras["dev"] if one.startswith("mypy>"))
    name = f"mypy-{request.param}"
    needed = [checker, *project["dependencies"], *(extras["typing"] if typed else ())]
    python = environment(name, needed)
    (wheel,) = distributions.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    stamp = PEERS / name / "wheel.txt"
    with locked(name):
        if not stamp.exists() or stamp.read_text() != digest:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
            run([*pip, "--force-reinstall", str(wheel)])
            stamp.write_text(digest)
    return python, typed


def test_mypy_alone(installed: tuple[Path, bool], snippets: Path) -> None:
    python, typed = installed
    stubs = {path.name for path in python.parents[1].glob("lib/*/site-packages/*-stubs")}
    assert {"google-stubs", "grpc-stubs"} <= stubs if typed else not stubs
    errors = mypy(snippets, python, python.parents[1].name, VALUES)
    check(errors, *VALUES, "# error", *(["# error if typed"] if typed else []))


def test_all_types_are_known(tmp_path: Path) -> None:
    prefix = Path(sys.prefix)
    path = f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"
    text = output(
        tmp_path,
        *(sys.executable, "-m", "pyright", "--outputjson"),
        *("--verifytypes", "clarigrpc", "--ignoreexternal"),
        env={**os.environ, "VIRTUAL_ENV": str(prefix), "PATH": path},
    )
    report = json.loads(text[text.index("{") :])["typeCompleteness"]
    unknown = [
        (one["name"], [diagnostic["message"] for diagnostic in one["diagnostics"]])
        for one in report["symbols"]
        if one["isExported"] and (one["isTypeAmbiguous"] or not one["isTypeKnown"])
    ]
    assert report["exportedSymbolCounts"]["withKnownType"] > 10_000
    assert report["completenessScore"] >= 0.99, unknown


@pytest.mark.parametrize(
    ("client_class", "prefix"), [(Client, ""), (AsyncClient, "Async")], ids=["sync", "async"]
)
@pytest.mark.parametrize(
    ("kind", "rpc"), [("UnaryUnary", "ListInputs"), ("UnaryStream", "GenerateModelOutputs")]
)
async def test_calls_take_what_their_types_say(
    client_class: type[Any], prefix: str, kind: str, rpc: str
) -> None:
    multicallable = type(getattr(client_class(pat="x" * 20).v2, rpc))
    tree = ast.parse((ROOT / "src" / "clarigrpc" / "_rpc" / "multicallable_types.pyi").read_text())
    (declared,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == prefix + kind
    )
    methods = [node for node in declared.body if isinstance(node, ast.FunctionDef)]
    assert methods
    for method in methods:
        parameters = inspect.signature(getattr(multicallable, method.name)).parameters
        real = {name: one.kind is one.KEYWORD_ONLY for name, one in parameters.items()}
        real.pop("cancellation", None)  # among ourselves
        arguments = method.args
        assert real == {one.arg: False for one in arguments.args} | {
            one.arg: True for one in arguments.kwonlyargs
        }, method.name
