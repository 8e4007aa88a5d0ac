"""build_protos.py as a command and as build hook, on a copy of the project."""

from __future__ import annotations

import email
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import clarigrpc
from tests.contract.project import copy_of_the_project, run, succeed

# One of each kind that build_protos.py writes.
GENERATED = (
    "__init__.py",
    "__init__.pyi",
    "_index.py",
    "_docs.py",
    "_field_docs.py",
    "inputs_pb2.py",
    "inputs_pb2.pyi",
    "resources_pb2.py",
    "resources_pb2.pyi",
    "service_pb2.py",
    "service_pb2.pyi",
    "service_pb2_grpc.py",
    "service_pb2_grpc.pyi",
)


def _check(project: Path) -> subprocess.CompletedProcess[str]:
    return run(project, "build_protos.py", "--check")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copy_of_the_project(tmp_path_factory.mktemp("built") / "project")
    succeed(project, "build_protos.py")
    return project


def test_a_fresh_build_is_up_to_date(built: Path) -> None:
    done = _check(built)
    assert (done.returncode, done.stdout) == (0, "up to date\n"), done.stderr


def test_a_second_build_writes_nothing(built: Path) -> None:
    def times() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in (built / "src/clarigrpc/v2").iterdir()}

    before = times()
    assert succeed(built, "build_protos.py") == "up to date\n"
    assert times() == before


def test_check_names_changed_missing_and_foreign_files(built: Path, tmp_path: Path) -> None:
    project = shutil.copytree(built, tmp_path / "project")
    generated = project / "src" / "clarigrpc" / "v2"
    changed = generated / "inputs_pb2.py"
    changed.write_text(changed.read_text() + "\n")
    (generated / "_docs.py").unlink()
    (generated / "old_pb2.py").write_text("")
    done = _check(project)
    assert done.returncode == 1
    assert done.stderr.endswith(": _docs.py, inputs_pb2.py, old_pb2.py\n")
    # Nothing was written, so it says the same again; a build mends all three.
    assert _check(project).stderr == done.stderr
    succeed(project, "build_protos.py")
    assert _check(project).returncode == 0
    assert not (generated / "old_pb2.py").exists()


def test_check_sees_a_changed_proto(built: Path, tmp_path: Path) -> None:
    project = shutil.copytree(built, tmp_path / "project")
    proto = project / "protos" / "clarigrpc" / "v2" / "matrix.proto"
    proto.write_text(proto.read_text() + "\n// Added.\nmessage Added {}\n")
    done = _check(project)
    assert done.returncode == 1
    for name in ("matrix_pb2.py", "matrix_pb2.pyi", "_index.py", "__init__.pyi"):
        assert name in done.stderr


def test_check_without_a_build_fails(tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path / "project")
    done = _check(project)
    assert done.returncode == 1
    assert "service_pb2.py" in done.stderr


def test_wheel_has_the_stubs(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"clarigrpc/v2/{name}" for name in GENERATED} <= names
    assert "clarigrpc/py.typed" in names
    assert not [name for name in names if name.endswith(".proto") or "__pycache__" in name]


def test_metadata_of_the_wheel(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        assert name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    assert metadata["Version"] == clarigrpc.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The clarigrpc project"


def test_wheel_has_every_generated_file(distributions: Path, built: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for path in (built / "src" / "clarigrpc" / "v2").iterdir():
            assert archive.read(f"clarigrpc/v2/{path.name}") == path.read_bytes()


def test_sdist_has_the_stubs_and_what_makes_them(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/clarigrpc/v2/{name}" for name in GENERATED} <= names
    assert {
        "src/clarigrpc/py.typed",
        "build_protos.py",
        "pyproject.toml",
        "protos/clarigrpc/v2/service.proto",
    } <= names


def test_installed_wheel_imports_without_warnings(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import clarigrpc\n"
        f"assert clarigrpc.__file__.startswith({str(tmp_path)!r}), clarigrpc.__file__\n"
        "from clarigrpc import v2\n"
        "print(len([getattr(v2, name) for name in v2.__all__]))\n"
    )
    assert int(succeed(tmp_path, "-W", "error", "-c", script)) > 700


def test_editable_install_makes_the_stubs(tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path / "project")
    dist = tmp_path / "dist"
    dist.mkdir()
    succeed(project, "-c", f"import hatchling.build as b; b.build_editable({str(dist)!r})")
    generated = {path.name for path in (project / "src" / "clarigrpc" / "v2").iterdir()}
    assert set(GENERATED) <= generated
    assert _check(project).returncode == 0
