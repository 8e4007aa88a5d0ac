"""Archives that cannot be read end their job with a status, and hold up no other job."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local.media import archive_files
from clarigrpc.local.service_errors import ServiceError
from tests.local.conftest import Raw, ok, png
from tests.local.handlers.test_input_jobs import finished, ids, source

Code = v2.StatusCode


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.png", data)
    return content.getvalue()


def tarred(packed: bool = False, /, **files: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz" if packed else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def header(name: str, **fields: object) -> bytes:
    """The header of a tar entry, without what should follow."""
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf()


def encrypted() -> bytes:
    content = bytearray(zipped(secret=png("red")))
    content[6] |= 1  # in the header of the entry
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    return bytes(content)


def of_method(number: int) -> bytes:
    content = bytearray(zipped(one=png("red")))
    content[8:10] = struct.pack("<H", number)
    where = content.index(b"PK\x01\x02") + 10
    content[where : where + 2] = struct.pack("<H", number)
    return bytes(content)


def broken_stream() -> bytes:
    content = bytearray(zipped(one=png("red")))
    start = 30 + len("one.png")
    content[start : start + 8] = b"\xff" * 8
    return bytes(content)


def broken_gzip() -> bytes:
    packed = bytearray(tarred(True, one=png("red")))
    packed[40:60] = b"\xff" * 20
    return bytes(packed)


def bomb(size: int = archive_files.MAX_FILE_BYTES + 1) -> bytes:
    return zipped(bomb=bytes(size))


HOSTILE: dict[str, bytes] = {
    "nothing.zip": b"",
    "noise.zip": b"no archive",
    "encrypted.zip": encrypted(),
    "method.zip": of_method(98),
    "stream.zip": broken_stream(),
    "cut.zip": zipped(one=png("red"))[:-30],
    "bomb.zip": bomb(),
    "noise.tar": b"no archive" * 100,
    "cut.tar": tarred(one=png("red"))[:600],
    "size.tar": header("a.png", size=1 << 60),
    "names.tar": header("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 40) + bytes(4096),
    "pax.tar": header("x", type=tarfile.XHDTYPE, size=1 << 40) + bytes(4096),
    "chain.tar": header("x", type=tarfile.XHDTYPE, size=0) * 2000,
    "stream.tar.gz": broken_gzip(),
    "cut.tgz": tarred(True, one=os.urandom(9000))[:4000],
    "lzma.tar": lzma.compress(tarred(one=png("red"))),
    "twice.tar.gz": gzip.compress(gzip.compress(tarred(one=png("red")))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_job_fails_with_a_status(serve: Callable[..., Raw], tmp_path: Path, name: str) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    root.mkdir()
    (root / name).write_bytes(HOSTILE[name])
    (root / "good.png").write_bytes(png("red"))
    raw = serve(input_roots=[root], data_dir=data)
    (job,) = ok(raw("PostInputsDataSources", source(f"{root.as_uri()}/{name}"))).inputs_add_jobs
    status = finished(raw, job.id).status
    assert status.code == Code.JOB_FAILED
    assert status.details.startswith(name), status.details
    assert "internal error" not in status.details
    # Others go on, and a restart does not begin it again.
    (job,) = ok(raw("PostInputsDataSources", source(f"{root.as_uri()}/good"))).inputs_add_jobs
    assert finished(raw, job.id).status.code == Code.JOB_COMPLETED
    assert ids(raw) == {"good"}
    raw.server.close()
    again = serve(input_roots=[root], data_dir=data)
    found = ok(again("ListInputsExtractionJobs", v2.ListInputsExtractionJobsRequest()))
    codes = sorted(entry.status.code for entry in found.inputs_extraction_jobs)
    assert codes == sorted((Code.JOB_FAILED, Code.JOB_COMPLETED))


def test_what_came_before_the_damage_is_kept(serve: Callable[..., Raw], tmp_path: Path) -> None:
    content = bytearray(zipped(one=png("red"), two=png("blue")))
    content[content.index(b"two.png") + 20] ^= 0xFF
    (tmp_path / "b.zip").write_bytes(content)
    raw = serve(input_roots=[tmp_path])
    (job,) = ok(raw("PostInputsDataSources", source(f"{tmp_path.as_uri()}/b.zip"))).inputs_add_jobs
    assert finished(raw, job.id).status.code == Code.JOB_FAILED
    assert ids(raw) == {"one"}


def test_devices_links_and_folders_are_left_out(serve: Callable[..., Raw], tmp_path: Path) -> None:
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    special = b"".join(header(f"{number}.png", type=kind) for number, kind in enumerate(kinds))
    special += header("s.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    special += header("h.png", type=tarfile.LNKTYPE, linkname="not-there.png")
    (tmp_path / "a.tar").write_bytes(special + tarred(good=png("red")))
    os.mkfifo(tmp_path / "fifo.png")
    raw = serve(input_roots=[tmp_path])
    (job,) = ok(raw("PostInputsDataSources", source(f"{tmp_path.as_uri()}/"))).inputs_add_jobs
    assert finished(raw, job.id).status.code == Code.JOB_COMPLETED
    assert ids(raw) == {"good"}


def test_names_that_are_no_text(serve: Callable[..., Raw], tmp_path: Path) -> None:
    name = "caf\udce9.png"
    member = tarfile.TarInfo(name)
    member.size = len(png("red"))
    with tarfile.open(tmp_path / "a.tar", "w", errors="surrogateescape") as archive:
        archive.addfile(member, io.BytesIO(png("red")))
    (tmp_path / os.fsencode("na\udcefve.png").decode(errors="surrogateescape")).write_bytes(
        png("red")
    )
    raw = serve(input_roots=[tmp_path])
    (job,) = ok(raw("PostInputsDataSources", source(f"{tmp_path.as_uri()}/"))).inputs_add_jobs
    assert finished(raw, job.id).status.code == Code.JOB_COMPLETED
    assert ids(raw) == {"caf?", "na?ve"}


def test_the_whole_archive_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_files, "MAX_ARCHIVE_BYTES", 5000)
    monkeypatch.setattr(archive_files, "MAX_ARCHIVE_FILES", 10)
    data = {f"n{number}": bytes(900) for number in range(9)}
    many = {f"n{number}": b"" for number in range(20)}
    for name, content in (
        ("a.zip", zipped(**data)),
        ("a.tar", tarred(False, **data)),
        ("a.tgz", tarred(True, **data)),
        ("many.zip", zipped(**many)),
        ("many.tar", tarred(False, **many)),
    ):
        with pytest.raises(ServiceError) as raised:
            list(archive_files.files_in(name, io.BytesIO(content), lambda inner: True))
        assert raised.value.code == Code.INPUT_OVER_LIMIT


@given(
    st.sampled_from(sorted(HOSTILE)),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    st.integers(0, 1 << 14),
)
def test_any_damage_is_a_service_error(name: str, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(HOSTILE[name] if name != "bomb.zip" else zipped(one=png("red")))
    for place, value in changes:
        if place < len(content):
            content[place] = value
    if cut < len(content):
        del content[cut:]
    try:
        for inner, data in archive_files.files_in(name, io.BytesIO(content), lambda inner: True):
            inner.encode()
            assert len(data) <= archive_files.MAX_FILE_BYTES
    except ServiceError as error:
        error.status()


def test_a_slow_archive_holds_up_no_other_job(serve: Callable[..., Raw], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    # Hundreds of megabytes to unpack, none of which is an input.
    member = gzip.compress(header("note.xyz", size=32 << 20) + bytes(32 << 20))
    (root / "slow.tar.gz").write_bytes(member * 40)
    (root / "good.png").write_bytes(png("red"))
    raw = serve(input_roots=[root])
    ok(raw("PostInputsDataSources", source(f"{root.as_uri()}/slow.tar.gz")))
    (good,) = ok(raw("PostInputsDataSources", source(f"{root.as_uri()}/good"))).inputs_add_jobs
    assert finished(raw, good.id).status.code == Code.JOB_COMPLETED
    jobs = ok(raw("ListInputsExtractionJobs", v2.ListInputsExtractionJobsRequest()))
    assert {entry.status.code for entry in jobs.inputs_extraction_jobs} == {
        Code.JOB_QUEUED,
        Code.JOB_COMPLETED,
    }
