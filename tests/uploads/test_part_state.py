"""The upload's state machine, encoder, sources and resume state, by properties."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._uploads.part_encoding import PartEncoder
from clarigrpc._uploads.part_state import (
    AwaitResponse,
    ChunkedUpload,
    EndStream,
    SendConfig,
    SendPart,
)
from clarigrpc._uploads.resume_state import SUFFIX, ResumeFile, ResumeState
from clarigrpc._uploads.upload_progress import RateMeter, UploadProgress
from clarigrpc._uploads.upload_sources import (
    BytesSource,
    ContentSource,
    SpooledSource,
    StoppedError,
    open_upload_source,
)
from clarigrpc.errors import InvalidArgumentError


class _Service:
    """What the service keeps of an upload, and the rules it checks."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.content = b""
        self.version = ""

    def begin(self, version_id: str) -> None:
        if version_id:
            assert version_id == self.version
        else:
            self.version, self.content = f"{self.version}v", b""

    def take(self, part: SendPart, data: bytes, part_size: int) -> None:
        assert part.start == (part.number - 1) * part_size, "parts lie on the grid"
        assert part.start <= len(self.content), "a gap"
        assert 0 < part.size == len(data) <= part_size
        known = self.content[part.start : part.start + part.size]
        assert data.startswith(known), "a part that was sent again differs"
        self.content += data[len(known) :]


@given(
    data=st.data(),
    total=st.integers(1, 200),
    part_size=st.integers(1, 40),
    stream_bytes=st.none() | st.integers(1, 100),
    telling=st.booleans(),
    answers_config=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_fault_and_any_order_of_answers_leaves_the_content_whole(
    data: st.DataObject,
    total: int,
    part_size: int,
    stream_bytes: int | None,
    telling: bool,
    answers_config: bool,
) -> None:
    content = bytes(i * 7 % 256 for i in range(total))
    service = _Service(total)
    machine = ChunkedUpload(total, part_size, stream_bytes=stream_bytes)
    faults = data.draw(st.integers(0, 6), label="faults")
    for _ in range(faults + 2 + total):
        machine.open()
        responses: list[tuple[str, int | None]] = []
        carried = 0
        while True:
            event = data.draw(
                st.sampled_from(["send", "send", "answer", *["break"] * bool(faults)])
            )
            if event == "break":
                faults -= 1
                machine.broken()
                # What was not written through is gone; a new process knows less than that.
                if telling and answers_config:
                    service.content = service.content[: data.draw(st.integers(0, total))]
                if data.draw(st.booleans(), label="new process"):
                    known = data.draw(st.integers(0, machine.acknowledged))
                    known = min(known, len(service.content))
                    machine = ChunkedUpload(
                        total,
                        part_size,
                        stream_bytes=stream_bytes,
                        version_id=machine.version_id,
                        acknowledged=known,
                        verified=data.draw(st.none() | st.just(known)),
                    )
                break
            if event == "answer" and responses:
                index = data.draw(st.integers(0, len(responses) - 1))
                if not machine.responses and answers_config:
                    index = 0  # the answer to the config is the first of its stream
                version, remaining = responses.pop(index)
                machine.responded(version, remaining, final=False)
                assert machine.acknowledged <= len(service.content)
                continue
            step = machine.next()
            if isinstance(step, SendConfig):
                service.begin(step.version_id)
                if answers_config:
                    missing = total - len(service.content)
                    responses.append((service.version, missing if telling and missing else None))
            elif isinstance(step, AwaitResponse):
                if not responses:
                    machine.response_missing()
            elif isinstance(step, SendPart):
                carried += step.size
                piece = content[step.start : step.start + step.size]
                service.take(step, piece, part_size)
                missing = total - len(service.content)
                responses.append((service.version, missing if telling and missing else None))
            else:
                assert isinstance(step, EndStream)
                assert stream_bytes is None or carried <= max(stream_bytes, part_size)
                if len(service.content) == total:
                    machine.responded(service.version, None, final=True)
                else:
                    for version, remaining in responses:
                        machine.responded(version, remaining, final=False)
                machine.ended()
                break
        if machine.finished:
            break
    assert machine.finished
    assert service.content == content


def test_a_stream_that_ends_early_is_no_success() -> None:
    machine = ChunkedUpload(10, 4)
    machine.open()
    assert machine.next() == SendConfig("")
    assert machine.next() == AwaitResponse()
    machine.response_missing()
    assert machine.next() == SendPart(1, 0, 4)
    machine.responded("v", 6, final=False)
    machine.ended()
    assert not machine.finished
    assert machine.next() == EndStream()
    machine.open()
    assert machine.next() == SendConfig("v")
    assert machine.next() == AwaitResponse()
    machine.responded("v", 5, final=False)
    assert machine.next() == SendPart(2, 4, 4), "a torn part is sent again as a whole"


def test_a_service_that_lost_data_gets_it_again() -> None:
    machine = ChunkedUpload(10, 4, version_id="v", acknowledged=8)
    machine.open()
    assert machine.next() == SendConfig("v")
    machine.responded("v", 10, final=False)
    assert machine.next() == SendPart(1, 0, 4)
    assert not machine.progressed


@pytest.mark.parametrize(("total", "part_size", "done"), [(0, 1, 0), (1, 0, 0), (3, 1, 4)])
def test_a_machine_without_sense_is_refused(total: int, part_size: int, done: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        ChunkedUpload(total, part_size, acknowledged=done)


@given(number=st.integers(1, 2**40), start=st.integers(0, 2**50), data=st.binary(max_size=300))
def test_the_encoder_writes_what_protobuf_writes(number: int, start: int, data: bytes) -> None:
    request = v2.PostModelVersionsUploadRequest(
        content_part=v2.UploadContentPart(part_number=number, range_start=start, data=data)
    )
    encoder = PartEncoder(v2.PostModelVersionsUploadRequest)

    def read_into(offset: int, view: memoryview) -> None:
        assert offset == start
        view[:] = data

    encoded = encoder.encode(number, start, len(data), read_into)
    assert v2.PostModelVersionsUploadRequest.FromString(encoded) == request
    if data:
        assert sorted(encoded) == sorted(request.SerializeToString())


@given(
    parts=st.lists(st.tuples(st.binary(max_size=3), st.booleans()), max_size=20),
    buffers=st.integers(1, 4),
    head=st.binary(max_size=2),
)
def test_a_message_that_is_kept_stays_as_it_is(
    parts: list[tuple[bytes, bool]], buffers: int, head: bytes
) -> None:
    encoder = PartEncoder(v2.PostModelVersionsUploadRequest, head=head, buffers=buffers)
    kept = []
    for number, (data, keep) in enumerate(parts, 1):
        encoded = encoder.encode(number, 0, len(data), BytesSource(data, "").read_into)
        part = v2.UploadContentPart(part_number=number, data=data)
        if keep:
            kept.append((encoded, part))
        del encoded
    for encoded, part in kept:
        assert encoded.startswith(head)
        found = v2.PostModelVersionsUploadRequest.FromString(encoded[len(head) :])
        assert found.content_part == part


def read_at(source: ContentSource, offset: int, size: int) -> bytes:
    """Bytes of a source."""
    data = bytearray(b"?" * size)
    source.read_into(offset, memoryview(data))
    return bytes(data)


class _Trickle:
    """A stream that cannot seek and gives what it likes."""

    def __init__(self, content: bytes, sizes: Iterator[int]) -> None:
        self._file = io.BytesIO(content)
        self._sizes = sizes

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, next(self._sizes)))


def _sources(content: bytes, folder: Path, sizes: list[int]) -> Iterator[ContentSource]:
    path = folder / "content"
    path.write_bytes(content)
    yield open_upload_source(path)
    yield open_upload_source(content)
    yield open_upload_source(bytearray(content))
    with path.open("rb") as file:
        yield open_upload_source(file)
    yield open_upload_source(io.BytesIO(content))
    yield open_upload_source(_Trickle(content, itertools.cycle(sizes)), size=len(content))
    yield open_upload_source(_Trickle(content, itertools.cycle(sizes)))


@given(
    content=st.binary(min_size=1, max_size=3000),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_every_source_reads_the_same(content: bytes, sizes: list[int], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for source in _sources(content, Path(folder), sizes):
            with closing(source):
                source.prepare()
                assert source.size == len(content)
                for _ in range(4):
                    offset = data.draw(st.integers(0, len(content) - 1))
                    size = data.draw(st.integers(1, len(content) - offset))
                    assert read_at(source, offset, size) == content[offset : offset + size]
                assert source.sha256() == hashlib.sha256(content).hexdigest()
                assert source.identity() == source.identity()
                length = data.draw(st.integers(0, len(content)))
                assert source.prefix_digest(length) in (
                    "",
                    hashlib.sha256(content[:length]).hexdigest(),
                )


_names = st.text("abcdeé ", min_size=1, max_size=12).filter(lambda n: n.strip() == n)


@given(
    files=st.dictionaries(
        st.tuples(_names, _names) | st.tuples(_names), st.binary(max_size=2000), min_size=1
    ),
    step=st.integers(1, 3000),
)
@settings(max_examples=50, deadline=None)
def test_a_folder_is_the_same_archive_however_it_is_read(
    files: dict[tuple[str, ...], bytes], step: int
) -> None:
    # A name cannot be both a folder and a file.
    folders = {parts[0] for parts in files if len(parts) == 2}
    files = {parts: data for parts, data in files.items() if parts[0] not in folders or parts[1:]}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root"
        for parts, content in files.items():
            path = root.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        source = open_upload_source(root)
        archive = b"".join(
            read_at(source, offset, min(step, source.size - offset))
            for offset in range(0, source.size, step)
        )
        assert len(archive) == source.size
        assert archive == read_at(source, 0, source.size)
        assert source.identity() == open_upload_source(root).identity()
        source.close()
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            read = {}
            for member in tar:
                if member.isfile():
                    file = tar.extractfile(member)
                    assert file is not None
                    read[tuple(member.name.split("/"))] = file.read()
        assert read == files


def test_an_archive_does_not_depend_on_times_or_owners(tmp_path: Path) -> None:
    hashes = []
    for name, when in (("a", 1_000_000), ("b", 2_000_000)):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / ("long" * 50)).write_bytes(b"content")
        (folder / "run.sh").write_text("#!/bin/sh\n")
        (folder / "run.sh").chmod(0o700)
        os.utime(folder / "run.sh", (when, when))
        source = open_upload_source(folder)
        hashes.append(source.sha256())
        source.close()
    assert hashes[0] == hashes[1]


def test_links_to_files_are_followed_and_others_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "blob").write_bytes(b"blob")
    (folder / "file").symlink_to(tmp_path / "blob")
    source = open_upload_source(folder)
    assert b"blob" in read_at(source, 0, source.size)
    source.close()
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(InvalidArgumentError, match="link to a folder"):
        open_upload_source(folder)
    (folder / "elsewhere").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidArgumentError, match="neither a file nor a folder"):
        open_upload_source(folder)


_OPEN = """
import pathlib, sys
from clarigrpc._uploads.upload_sources import open_upload_source
try:
    open_upload_source(pathlib.Path(sys.argv[1]))
except PermissionError as error:
    print(error.filename)
"""


@pytest.mark.parametrize("name", ["inner", "inner/deep", "inner/file", "zz"])
def test_what_cannot_be_read_stops_the_upload_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    for file in ("inner/file", "inner/deep/weights", "zz"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / name).chmod(0)
    command = [sys.executable, "-c", _OPEN, str(tmp_path)]
    if os.geteuid() == 0:  # root reads everything, unless it gives that up
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root without setpriv")
        without = "-dac_override,-dac_read_search"
        command = [setpriv, "--bounding-set", without, "--inh-caps", without, *command]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    finally:
        (tmp_path / name).chmod(0o700)
    assert run.stdout.strip() == str(tmp_path / name)


def test_a_changed_file_is_not_completed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    source = open_upload_source(path)
    read_at(source, 0, 500)
    path.write_bytes(bytes(999) + b"x")
    os.utime(path, (1, 1))
    with pytest.raises(InvalidArgumentError, match="changed during"):
        read_at(source, 500, 500)
    source.close()


def test_a_stream_shorter_than_told(tmp_path: Path) -> None:
    source = open_upload_source(_Trickle(b"abc", itertools.repeat(10)), size=5)
    with pytest.raises(InvalidArgumentError, match="ends at byte 3"):
        read_at(source, 0, 5)
    source.close()


def test_a_read_that_waits_for_a_pipe_can_be_stopped() -> None:
    read, write = os.pipe()
    with open(read, "rb") as file, open(write, "wb"):
        source = open_upload_source(file, size=5)
        assert isinstance(source, SpooledSource)
        source.stop()
        with pytest.raises(StoppedError):
            read_at(source, 0, 5)
        source.close()


@pytest.mark.parametrize("bad", [3, None, io.StringIO("text"), object()])
def test_what_cannot_be_uploaded(bad: Any) -> None:
    with pytest.raises(TypeError, match="expected a path"):
        open_upload_source(bad)


def test_a_missing_file_an_empty_folder_and_a_wrong_size(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_upload_source(tmp_path / "nothing")
    with pytest.raises(InvalidArgumentError, match="contains no files"):
        open_upload_source(tmp_path)
    with pytest.raises(InvalidArgumentError, match="the path is empty"):
        open_upload_source("")  # not the current folder
    with pytest.raises(InvalidArgumentError, match="3 bytes, not size=4"):
        open_upload_source(b"abc", size=4)


def _state(source: ContentSource, **changes: Any) -> ResumeState:
    fields = {
        "version_id": "v",
        "total": source.size,
        "part_size": 4,
        "identity": source.identity(),
        "acknowledged": 4,
        "digest": "",
    }
    return ResumeState(**{**fields, **changes})


def test_a_state_is_for_one_content_and_one_target(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    source = open_upload_source(path)
    here = ResumeFile.of(source, {"model": "m"}, None)
    here.save(_state(source))
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(SUFFIX)]
    identity = source.identity()
    assert ResumeFile.of(source, {"model": "m"}, None).load(source, identity) is None  # in use
    here.close()
    here = ResumeFile.of(source, {"model": "m"}, None)
    assert here.load(source, identity) == _state(source)
    assert ResumeFile.of(source, {"model": "n"}, None).load(source, identity) is None
    source.close()
    # The same size and the same time of modification, but other bytes.
    before = path.stat()
    path.write_bytes(b"9876543210")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = open_upload_source(path)
    assert here.load(changed, changed.identity()) is None
    changed.close()
    here.remove()
    assert list(tmp_path.iterdir()) == [path]


@given(
    text=st.binary(max_size=200) | st.just(b"[]") | st.just(b'{"format": 1}'), cut=st.floats(0, 1)
)
@settings(deadline=None)
def test_a_damaged_state_is_never_used(text: bytes, cut: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(b"0123456789")
        source = open_upload_source(path)
        state = ResumeFile.of(source, {}, None)
        state.save(_state(source))
        (file,) = (p for p in Path(folder).iterdir() if p.name.endswith(SUFFIX))
        whole = file.read_bytes()
        for damaged in (text, b"[" * 100_000, whole[: int(len(whole) * cut * 0.999)]):
            file.write_bytes(damaged)
            assert state.load(source, source.identity()) is None
        for wrong in (
            {"acknowledged": 11},
            {"acknowledged": -1},
            {"part_size": 0},
            {"total": "x"},
            {"version_id": "\ud800"},
        ):
            file.write_text(json.dumps({**json.loads(whole), **wrong}))
            assert state.load(source, source.identity()) is None
        state.close()
        source.close()


def test_a_pipe_in_place_of_a_state_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    source = open_upload_source(path)
    state = ResumeFile.of(source, {}, None)
    state.save(_state(source))
    (file,) = (p for p in tmp_path.iterdir() if p.name.endswith(SUFFIX))
    state.close()
    file.unlink()
    os.mkfifo(file)
    state = ResumeFile.of(source, {}, None)
    assert state.load(source, source.identity()) is None
    state.save(_state(source))
    state.close()
    source.close()


def test_a_stream_is_recognised_by_its_beginning(tmp_path: Path) -> None:
    content = b"0123456789"

    def stream(content: bytes) -> ContentSource:
        return open_upload_source(_Trickle(content, itertools.repeat(3)), size=10, folder=tmp_path)

    first = stream(content)
    read_at(first, 0, 4)
    digest = first.digest_at(4)
    assert digest == hashlib.sha256(b"0123").hexdigest()
    saved = ResumeFile.of(first, {}, tmp_path)
    saved.save(_state(first, digest=digest))
    for other, found in ((content, True), (b"0123xxxxxx", True), (b"012x456789", False)):
        again = stream(other)
        assert (saved.load(again, again.identity()) is not None) is found
        again.close()
    saved.close()
    first.close()


def test_the_meter_reports_rate_and_time_left() -> None:
    now = [0.0]
    reports: list[UploadProgress] = []
    meter = RateMeter(1000, reports.append, clock=lambda: now[0])
    for done in (0, 100, 200, 300):
        meter.update(done)
        meter.update(done)  # too soon to be reported
        now[0] += 1.0
    assert [r.bytes_done for r in reports] == [0, 100, 200, 300]
    assert reports[-1].rate == pytest.approx(100)
    assert reports[-1].seconds_left == pytest.approx(7)
    assert reports[-1].percent == 30
    assert reports[0].seconds_left is None
