"""Data folders that are damaged, in use or another program's: one line, nothing overwritten."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import errors, v2
from clarigrpc.local import LocalServer
from tests.local.conftest import message

DATABASE = "clarigrpc.sqlite"


def of_another_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.execute("INSERT INTO bookmarks VALUES ('https://example.com')")
        db.commit()


def of_another_program_with_our_names(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE collections (name TEXT)")
        db.execute("CREATE TABLE resources (name TEXT)")
        db.commit()


def of_a_later_version(path: Path) -> None:
    LocalServer(path.parent).start().close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1000")


def cut_off(path: Path) -> None:
    LocalServer(path.parent).start().close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DATABASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (lambda path: path.write_bytes(b"garbage" * 1000), "damaged, or not a database"),
    "text": (lambda path: path.write_text("notes"), "damaged, or not a database"),
    "folder": (lambda path: path.mkdir(), "directory"),
    "another": (of_another_program, "belongs to another program"),
    "names": (of_another_program_with_our_names, "cannot be used"),
    "later": (of_a_later_version, "later version"),
    "cut": (cut_off, "damaged"),
}


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    make, text = DATABASES[name]
    path = tmp_path / DATABASE
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    for _ in range(2):
        with pytest.raises(OSError, match=text) as raised:
            LocalServer(tmp_path).start()
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)
    if before:
        assert path.read_bytes() == before


CREDENTIALS: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"pat": "ab',
    "list": b"[1]",
    "number": b'{"pat": 5}',
    "null": b'{"api_key": null}',
    "binary": b"\xff\xfe\x00",
    "no header": b'{"pat": "a\\nb"}',
    "no ascii": '{"pat": "ü"}'.encode(),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_that_are_none(name: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(CREDENTIALS[name])
    with pytest.raises(ValueError, match="holds no credentials") as raised:
        LocalServer(tmp_path)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == CREDENTIALS[name]


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(("pat", "api_key", "other")), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_credentials_hold(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("data")
    (folder / "credentials.json").write_bytes(content)
    try:
        server = LocalServer(folder)
    except ValueError as error:
        assert "credentials.json" in str(error)  # noqa: PT017 (either may be)
    else:
        assert server.pat.isascii()
        assert server.pat
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["uploads", "downloads", "credentials.json"])
def test_a_name_that_is_taken(name: str, tmp_path: Path) -> None:
    if name == "credentials.json":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("of somebody else")
    with pytest.raises(OSError, match=name):
        LocalServer(tmp_path).start()
    with contextlib.suppress(OSError):
        shutil.rmtree(tmp_path / name)
    (tmp_path / name).unlink(missing_ok=True)
    # What failed holds nothing.
    LocalServer(tmp_path).start().close()


def test_a_folder_in_use_keeps_its_credentials(tmp_path: Path) -> None:
    with LocalServer(tmp_path, pat="first") as server:
        with pytest.raises(OSError, match="in use"):
            LocalServer(tmp_path, pat="second").start()
        assert server.pat == "first"
    assert LocalServer(tmp_path).pat == "first"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path_factory.mktemp("filled")
    with LocalServer(folder, pat="pat") as server, server.client() as client:
        for number in range(60):
            client.concepts.create(f"concept-{number}")
        client.inputs.create([message(v2.Input, data={"text": {"raw": "x" * 3000}})] * 8)
    return folder


@given(st.integers(0, 1 << 32), st.sampled_from(("flip", "zero", "cut")))
def test_a_database_with_any_damage(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, damage: str
) -> None:
    """It starts or says in one line why not; calls answer or fail with a status."""
    folder = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(filled, folder)
    chance = random.Random(seed)
    content = bytearray((folder / DATABASE).read_bytes())
    place = chance.randrange(len(content))
    if damage == "flip":
        for _ in range(20):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif damage == "zero":
        content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    else:
        del content[place:]
    (folder / DATABASE).write_bytes(content)
    try:
        server = LocalServer(folder).start()
    except (OSError, ValueError) as error:
        assert "\n" not in str(error)  # noqa: PT017 (either may be)
    else:
        with contextlib.closing(server), server.client(timeout=10) as client:
            for call in (
                lambda: list(client.concepts.list()),
                lambda: list(client.inputs.list()),
                lambda: client.concepts.create("new"),
            ):
                with contextlib.suppress(errors.ApiError):
                    call()
    shutil.rmtree(folder)
