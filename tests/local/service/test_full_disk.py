"""A disk that is full for a while: calls fail, and what was acknowledged is there, for its user."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from tests.local.conftest import Raw, ok, png, settled
from tests.local.web import serving
from tests.waiting import until

Code = v2.StatusCode
USERS = ("anna", "bert")
CONFIG = {"users": [{"id": u, "pat": f"pat-of-{u}", "apps": [{"id": f"{u}-app"}]} for u in USERS]}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        mount, unmount = libc.mount, libc.umount2
    except (OSError, AttributeError):
        pytest.skip("mounting a small disk needs Linux")
    if mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=2m"):
        pytest.skip(f"a small disk cannot be mounted: {errno.errorcode[ctypes.get_errno()]}")
    yield folder
    unmount(os.fsencode(folder), 2)


def fill(file: Path) -> None:
    """Leaves no space beside a file."""
    with file.open("wb", buffering=0) as content, pytest.raises(OSError, match="space"):
        while True:
            content.write(bytes(4096))


def insert(raw: Raw, user: str, concept: str) -> int:
    request = v2.PostConceptsRequest(concepts=[v2.Concept(id=concept, definition="x" * 2000)])
    return int(raw.with_key(f"pat-of-{user}")("PostConcepts", request).status.code)


def concepts(raw: Raw, user: str) -> set[str]:
    request = v2.ListConceptsRequest(per_page=1000)
    listed = ok(raw.with_key(f"pat-of-{user}")("ListConcepts", request)).concepts
    assert {concept.app_id for concept in listed} <= {f"{user}-app"}
    return {concept.id for concept in listed}


def test_calls_on_a_full_disk(small_disk: Path, tmp_path: Path, serve: Callable[..., Raw]) -> None:
    raw = serve(data_dir=small_disk / "data", config=CONFIG)
    acknowledged: dict[str, set[str]] = defaultdict(set)
    failed = 0
    for episode in range(3):
        for number in range(2000):
            user = USERS[number % 2]
            name = f"{user}-{episode}-{number}"
            code = insert(raw, user, name)
            if code == Code.SUCCESS:
                acknowledged[user].add(name)
            else:
                assert code == Code.INTERNAL_DATABASE_ISSUE
                failed += 1
            if failed == 5 * (episode + 1):
                break
        # What can be read still can.
        for user in USERS:
            assert concepts(raw, user) == acknowledged[user]
        more = f"size={4 + 2 * episode}m"
        remount = 32
        libc = ctypes.CDLL(None, use_errno=True)
        assert not libc.mount(b"", os.fsencode(small_disk), b"tmpfs", remount, more.encode())
        for user in USERS:
            assert insert(raw, user, f"{user}-after-{episode}") == Code.SUCCESS
            acknowledged[user].add(f"{user}-after-{episode}")
    assert failed == 15
    # As after a kill: from the files as they are now.
    shutil.copytree(small_disk / "data", tmp_path / "copy")
    again = serve(data_dir=tmp_path / "copy", config=CONFIG)
    for user in USERS:
        assert concepts(raw, user) == acknowledged[user]
        assert concepts(again, user) == acknowledged[user]


def test_work_in_the_background_goes_on_when_there_is_space(
    small_disk: Path, serve: Callable[..., Raw], caplog: pytest.LogCaptureFixture
) -> None:
    raw = serve(data_dir=small_disk / "data", config=CONFIG)
    filler = small_disk / "filler"
    anna = raw.with_key("pat-of-anna")
    fetched = threading.Event()

    def picture() -> bytes:
        # What is found out about the picture is to be kept on a full disk.
        if not fetched.is_set():
            fill(filler)
        fetched.set()
        return png("red")

    with serving(picture) as base:
        request = v2.PostInputsRequest()
        request.inputs.add(id="a").data.image.url = f"{base}/a.png"
        ok(anna("PostInputs", request))
        assert fetched.wait(10)
        until(lambda: "is tried again" in caplog.text)
        item = ok(anna("GetInput", v2.GetInputRequest(input_id="a"))).input
        assert item.status.code == Code.INPUT_PENDING
        filler.unlink()
        assert settled(anna, "a").status.code == Code.INPUT_SUCCESS


def test_a_server_does_not_start_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk / "filler")
    with pytest.raises(OSError, match=r"full|space"):
        LocalServer(small_disk / "data").start()
    (small_disk / "filler").unlink()
    LocalServer(small_disk / "data").start().close()
