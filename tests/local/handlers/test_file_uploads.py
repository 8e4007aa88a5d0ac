"""Uploads in parts: order, offsets, resuming, faults, and what the server says at the end."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.handlers.file_upload_methods import uploads_of
from clarigrpc.local.store import upload_files
from clarigrpc.local.store.upload_files import PartError, PartFile, ScatteredFile
from clarigrpc.local.user_app import UserApp
from tests.local.conftest import Raw, ok
from tests.waiting import until

Code = v2.StatusCode
CONTENT = random.Random(1).randbytes(1_000_003)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Model:
    """The names of a model version upload."""

    method = "PostModelVersionsUpload"
    request = v2.PostModelVersionsUploadRequest
    config = v2.PostModelVersionsUploadConfig
    id_field = "model_version_id"
    done = Code.MODEL_BUILDING
    invalid = Code.MODEL_INVALID_ARGUMENT
    missing = Code.MODEL_DOES_NOT_EXIST
    parent: ClassVar[dict[str, Any]] = {"model_id": "m"}
    version_field = "model_version"

    @staticmethod
    def make(raw: Raw) -> None:
        raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")]))

    @staticmethod
    def get(raw: Raw, version_id: str) -> Any:
        request = v2.GetModelVersionRequest(model_id="m", version_id=version_id)
        return raw("GetModelVersion", request).model_version

    @staticmethod
    def report(version: Any) -> tuple[bool, str]:
        metadata = version.metadata
        return "content_size" in metadata and metadata["content_size"] == len(CONTENT), metadata[
            "content_sha256"
        ]


class Artifact(Model):
    method = "PostArtifactVersionsUpload"
    request = v2.PostArtifactVersionsUploadRequest  # type: ignore[assignment]
    config = v2.PostArtifactVersionsUploadConfig  # type: ignore[assignment]
    id_field = "artifact_version_id"
    done = Code.UPLOAD_DONE
    invalid = Code.ARTIFACT_VERSION_INVALID_ARGUMENT
    missing = Code.ARTIFACT_VERSION_DOES_NOT_EXIST
    parent: ClassVar[dict[str, Any]] = {"artifact_id": "a"}
    version_field = "artifact_version"

    @staticmethod
    def make(raw: Raw) -> None:
        raw("PostArtifacts", v2.PostArtifactsRequest(artifacts=[v2.Artifact(id="a")]))

    @staticmethod
    def get(raw: Raw, version_id: str) -> Any:
        request = v2.GetArtifactVersionRequest(artifact_id="a", artifact_version_id=version_id)
        return raw("GetArtifactVersion", request).artifact_version

    @staticmethod
    def report(version: Any) -> tuple[bool, str]:
        upload = version.upload
        return upload.content_length == len(CONTENT), upload.status.details.split()[1]


class Step(Model):
    method = "PostPipelineStepVersionsUpload"
    request = v2.PostPipelineStepVersionsUploadRequest  # type: ignore[assignment]
    config = v2.PostPipelineStepVersionsUploadConfig  # type: ignore[assignment]
    id_field = "pipeline_step_version_id"
    done = Code.PIPELINE_STEP_BUILDING
    invalid = Code.PIPELINE_STEP_INVALID_ARGUMENT
    missing = Code.PIPELINE_STEP_DOES_NOT_EXIST
    parent: ClassVar[dict[str, Any]] = {"pipeline_step_id": "s"}
    version_field = "pipeline_step_version"

    @staticmethod
    def make(raw: Raw) -> None:
        request = v2.PostPipelineStepsRequest(pipeline_steps=[v2.PipelineStep(id="s")])
        raw("PostPipelineSteps", request)

    @staticmethod
    def get(raw: Raw, version_id: str) -> Any:
        request = v2.GetPipelineStepVersionRequest(
            pipeline_step_id="s", pipeline_step_version_id=version_id
        )
        return raw("GetPipelineStepVersion", request).pipeline_step_version

    @staticmethod
    def report(version: Any) -> tuple[bool, str]:
        _, digest, size, _ = version.status.details.replace(",", "").split()
        return int(size) == len(CONTENT), digest


KINDS = pytest.mark.parametrize("kind", [Model, Artifact, Step])


def config(kind: type[Model], version_id: str = "", total: int = len(CONTENT)) -> Any:
    inner = kind.config(**kind.parent, total_size=total)
    getattr(inner, kind.version_field).id = version_id
    return kind.request(upload_config=inner)


def part(kind: type[Model], number: int, start: int, data: bytes) -> Any:
    return kind.request(
        content_part=v2.UploadContentPart(part_number=number, range_start=start, data=data)
    )


def parts(kind: type[Model], size: int = 100_000, start: int = 0, ends: bool = False) -> list[Any]:
    return [
        part(
            kind,
            offset // size + 1,
            min(offset + size, len(CONTENT)) if ends else offset,
            CONTENT[offset : offset + size],
        )
        for offset in range(start, len(CONTENT), size)
    ]


def upload(raw: Raw, kind: type[Model], *requests: Any) -> list[Any]:
    return list(raw(kind.method, iter(requests)))


@KINDS
@pytest.mark.parametrize("ends", [False, True])
def test_upload(raw: Raw, kind: type[Model], ends: bool) -> None:
    kind.make(raw)
    responses = upload(raw, kind, config(kind), *parts(kind, ends=ends))
    *progress, final = responses
    assert len(responses) == 12  # the config, ten parts, the final one
    assert {r.status.code for r in progress} == {Code.UPLOAD_IN_PROGRESS}
    assert [r.bytes_remaining for r in progress] == [len(CONTENT) - n * 100_000 for n in range(11)]
    assert [r.status.percent_completed for r in progress][:3] == [0, 9, 19]
    assert final.status.code == kind.done
    assert (final.bytes_remaining, final.status.percent_completed) == (0, 100)
    (version_id,) = {getattr(r, kind.id_field) for r in responses}
    assert kind.report(kind.get(raw, version_id)) == (True, SHA256)


@KINDS
def test_resumes_in_another_stream(raw: Raw, kind: type[Model]) -> None:
    kind.make(raw)
    first = upload(raw, kind, config(kind), *parts(kind)[:4])
    version_id = getattr(first[-1], kind.id_field)
    assert first[-1].status.code == Code.UPLOAD_IN_PROGRESS  # never success
    second = upload(raw, kind, config(kind, version_id), *parts(kind)[4:])
    assert second[0].bytes_remaining == len(CONTENT) - 400_000
    assert second[-1].status.code == kind.done
    # Once more: the final answer may have been lost.
    again = upload(raw, kind, config(kind, version_id))
    assert [r.status.code for r in again] == [kind.done]
    assert kind.report(kind.get(raw, version_id)) == (True, SHA256)


@KINDS
def test_repeats_are_acknowledged_again(raw: Raw, kind: type[Model]) -> None:
    kind.make(raw)
    all_parts = parts(kind)
    version_id = getattr(upload(raw, kind, config(kind), *all_parts[:4])[-1], kind.id_field)
    responses = upload(raw, kind, config(kind, version_id), *all_parts[:5], *all_parts[3:])
    assert responses[1].bytes_remaining == len(CONTENT) - 400_000
    assert responses[-1].status.code == kind.done
    assert kind.report(kind.get(raw, version_id)) == (True, SHA256)


@KINDS
def test_parts_that_cannot_be(raw: Raw, kind: type[Model]) -> None:
    kind.make(raw)
    a, b, c = parts(kind)[:3]
    other = part(kind, 1, 0, b"x" * 100_000)
    cases: list[tuple[list[Any], int, str]] = [
        ([c], kind.invalid, "starts with part 3"),
        ([a, c], kind.invalid, "part 3 arrived after part 1"),
        ([a, part(kind, 2, 150_000, b"x")], kind.invalid, "next missing byte is 100000"),
        ([a, other], Code.UPLOAD_CONFLICT, "differs"),
        ([a, part(kind, 1, 100_000, b"x")], Code.UPLOAD_CONFLICT, "was sent again"),
        ([part(kind, 1, 0, b"")], kind.invalid, "empty"),
        ([part(kind, 0, 0, b"x")], kind.invalid, "count from 1"),
        ([part(kind, 1, 0, CONTENT + b"x")], kind.invalid, "beyond the total size"),
        ([a, config(kind)], kind.invalid, "must have content_part"),
    ]
    for requests, code, text in cases:
        final = upload(raw, kind, config(kind), *requests)[-1]
        assert final.status.code == code, text
        assert text in final.status.details
        assert getattr(final, kind.id_field)
    assert b  # what came before a bad part stays: the upload can be resumed
    bad = upload(raw, kind, config(kind), a, c)[-1]
    assert bad.bytes_remaining == len(CONTENT) - 100_000
    version_id = getattr(bad, kind.id_field)
    good = upload(raw, kind, config(kind, version_id), *parts(kind, start=100_000))
    assert good[-1].status.code == kind.done


@KINDS
def test_configs_that_cannot_be(raw: Raw, kind: type[Model]) -> None:
    def code(*requests: Any) -> int:
        (response,) = upload(raw, kind, *requests)
        return int(response.status.code)

    no_parent = code(config(kind))
    assert no_parent in (
        Code.MODEL_DOES_NOT_EXIST,
        Code.ARTIFACT_DOES_NOT_EXIST,
        Code.PIPELINE_STEP_DOES_NOT_EXIST,
    )
    kind.make(raw)
    assert code() == kind.invalid
    assert code(parts(kind)[0]) == kind.invalid
    assert code(config(kind, total=0)) == kind.invalid
    assert code(config(kind, "no-such-version")) == kind.missing
    first = upload(raw, kind, config(kind), parts(kind)[0])
    version_id = getattr(first[-1], kind.id_field)
    assert code(config(kind, version_id, total=5)) == kind.invalid


def test_versions_are_uploading_then_building_then_ready(
    serve: Callable[..., Raw], tmp_path: Path
) -> None:
    raw = serve(data_dir=tmp_path, build_seconds=600)
    Model.make(raw)
    version_id = upload(raw, Model, config(Model), parts(Model)[0])[-1].model_version_id
    assert Model.get(raw, version_id).status.code == Code.MODEL_UPLOADING
    upload(raw, Model, config(Model, version_id), *parts(Model)[1:])
    assert Model.get(raw, version_id).status.code == Code.MODEL_BUILDING
    raw.server.close()
    raw = serve(data_dir=tmp_path, build_seconds=0)
    assert Model.get(raw, version_id).status.code == Code.MODEL_TRAINED
    model = raw("GetModel", v2.GetModelRequest(model_id="m")).model
    assert (model.model_version.id, model.version_count) == (version_id, 1)
    predict = v2.PostModelOutputsRequest(model_id="m")
    predict.inputs.add().data.text.raw = "x"
    assert raw("PostModelOutputs", predict).status.code == Code.NOT_IMPLEMENTED


def test_announced_hash_is_checked(raw: Raw) -> None:
    Model.make(raw)
    first = config(Model)
    first.upload_config.model_version.metadata.update({"content_sha256": SHA256, "mine": 1})
    final = upload(raw, Model, first, *parts(Model))[-1]
    assert final.status.code == Code.MODEL_BUILDING
    assert Model.get(raw, final.model_version_id).metadata["mine"] == 1
    first.upload_config.model_version.metadata.update({"content_sha256": "0" * 64})
    final = upload(raw, Model, first, *parts(Model))[-1]
    assert final.status.code == Code.UPLOAD_FAILED
    assert SHA256 in final.status.details
    version = Model.get(raw, final.model_version_id)
    assert version.status.code == Code.MODEL_UPLOADING_FAILED
    (again,) = upload(raw, Model, config(Model, final.model_version_id))
    assert again.status.code == Code.UPLOAD_FAILED


def test_a_resumed_stream_takes_the_upload_over(raw: Raw) -> None:
    """The server may not know yet that the first stream's client has lost its connection."""
    Model.make(raw)
    feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    old = raw(Model.method, iter(feed.get, None))
    feed.put(config(Model))
    feed.put(parts(Model)[0])
    next(old)
    version_id = next(old).model_version_id
    new = upload(raw, Model, config(Model, version_id), *parts(Model)[1:])
    assert new[-1].status.code == Code.MODEL_BUILDING
    feed.put(parts(Model)[1])
    assert next(old).status.code == Code.UPLOAD_CONFLICT
    feed.put(None)
    assert Model.report(Model.get(raw, version_id)) == (True, SHA256)


def test_cancelled_stream_leaves_what_was_acknowledged(raw: Raw) -> None:
    Model.make(raw)
    feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    call = raw(Model.method, iter(feed.get, None))
    feed.put(config(Model))
    for request in parts(Model)[:3]:
        feed.put(request)
    version_id = [next(call) for _ in range(4)][-1].model_version_id
    call.cancel()
    feed.put(None)
    first, *_, final = upload(raw, Model, config(Model, version_id), *parts(Model)[3:])
    assert first.bytes_remaining == len(CONTENT) - 300_000
    assert final.status.code == Code.MODEL_BUILDING


SERVER = """
import sys
from clarigrpc.local import LocalServer
with LocalServer(sys.argv[1]) as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""


def test_survives_sigkill(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as server:
        pat = server.pat
    metadata = (("authorization", f"Key {pat}"),)
    total, size = 30 << 20, 1 << 20
    content = random.Random(2).randbytes(total)
    chooser = random.Random(3)
    version_id, acknowledged, kills = "", 0, 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            with grpc.insecure_channel(process.stdout.readline().strip()) as channel:
                stub = v2.V2Stub(channel)
                made = v2.PostModelsRequest(models=[v2.Model(id="m")])
                stub.PostModels(made, metadata=metadata, timeout=60)

                feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
                call = stub.PostModelVersionsUpload(
                    iter(feed.get, None), metadata=metadata, timeout=60
                )
                feed.put(config(Model, version_id, total))
                kill_after = chooser.randrange(2, 12)
                try:
                    for count, response in enumerate(call):
                        version_id = response.model_version_id
                        start = total - response.bytes_remaining
                        assert start >= acknowledged
                        acknowledged = start
                        if response.status.code == Code.MODEL_BUILDING:
                            break
                        assert response.status.code == Code.UPLOAD_IN_PROGRESS
                        number = start // size + 1
                        feed.put(part(Model, number, start, content[start : start + size]))
                        if count == kill_after and kills < 3:
                            os.kill(process.pid, signal.SIGKILL)
                            kills += 1
                except grpc.RpcError:
                    feed.put(None)
                    continue
                feed.put(None)
                request = v2.GetModelVersionRequest(model_id="m", version_id=version_id)
                version = stub.GetModelVersion(request, metadata=metadata).model_version
                break
    else:
        pytest.fail(f"{acknowledged} of {total} bytes arrived")
    assert kills == 3
    assert version.metadata["content_sha256"] == hashlib.sha256(content).hexdigest()


def unary_upload(raw: Raw) -> v2.Upload:
    request = v2.PostUploadsRequest()
    request.uploads.add(content_name="model.tar", content_length=len(CONTENT))
    response: v2.MultiUploadResponse = raw("PostUploads", request)
    assert response.status.code == Code.SUCCESS
    return response.uploads[0]


def put(raw: Raw, upload_id: str, *content_parts: Any) -> Any:
    request = v2.PutUploadContentPartsRequest(upload_id=upload_id)
    request.content_parts.extend(p.content_part for p in content_parts)
    return raw("PutUploadContentParts", request)


def test_unary_parts_in_any_order(serve: Callable[..., Raw], tmp_path: Path) -> None:
    raw = serve(data_dir=tmp_path)
    upload_id = unary_upload(raw).id
    shuffled = parts(Model)
    random.Random(4).shuffle(shuffled)
    for request in shuffled[:5]:
        response = put(raw, upload_id, request)
        assert response.status.code == Code.SUCCESS
        assert response.upload.status.code == Code.UPLOAD_IN_PROGRESS
    raw.server.close()
    raw = serve(data_dir=tmp_path)
    response = put(raw, upload_id, *shuffled[3:])  # some of them again
    assert response.upload.status.code == Code.UPLOAD_DONE
    assert response.upload.status.details == f"sha256 {SHA256}"
    got = raw("GetUpload", v2.GetUploadRequest(upload_id=upload_id)).upload
    assert got == response.upload
    assert [u.id for u in raw("ListUploads", v2.ListUploadsRequest()).uploads] == [upload_id]
    deleted = raw("DeleteUploads", v2.DeleteUploadsRequest(ids=[upload_id]))
    assert deleted.status.code == Code.SUCCESS
    assert not any(path.is_file() for path in (tmp_path / "uploads").iterdir())
    missing = raw("GetUpload", v2.GetUploadRequest(upload_id=upload_id))
    assert missing.status.code == Code.CONN_DOES_NOT_EXIST


def test_unary_parts_that_cannot_be(raw: Raw) -> None:
    upload_id = unary_upload(raw).id
    first = parts(Model)[0]
    put(raw, upload_id, first)
    assert put(raw, upload_id, first).status.code == Code.SUCCESS
    differs = put(raw, upload_id, part(Model, 1, 50_000, b"x" * 60_000))
    assert differs.status.code == Code.UPLOAD_CONFLICT
    for bad in (
        part(Model, 2, 100_000, b""),
        part(Model, 0, 100_000, b"x"),
        part(Model, 2, len(CONTENT), b"x"),
    ):
        assert put(raw, upload_id, bad).status.code == Code.CONN_INVALID_REQUEST
    assert put(raw, "none", first).status.code == Code.CONN_DOES_NOT_EXIST
    assert put(raw, upload_id).status.code == Code.CONN_INVALID_REQUEST
    nameless = v2.PostUploadsRequest(uploads=[v2.Upload(content_length=5)])
    assert raw("PostUploads", nameless).status.code == Code.FAILURE


def test_lists_of_parents(raw: Raw) -> None:
    Artifact.make(raw)
    Step.make(raw)
    duplicate = raw("PostArtifacts", v2.PostArtifactsRequest(artifacts=[v2.Artifact(id="a")]))
    assert duplicate.status.code == Code.DATABASE_DUPLICATE_KEY
    version_id = upload(raw, Artifact, config(Artifact), *parts(Artifact))[-1].artifact_version_id
    artifact = raw("GetArtifact", v2.GetArtifactRequest(artifact_id="a")).artifact
    assert artifact.artifact_version.id == version_id
    assert list(raw("ListArtifacts", v2.ListArtifactsRequest()).artifacts) == [artifact]
    versions = raw("ListArtifactVersions", v2.ListArtifactVersionsRequest(artifact_id="a"))
    assert [v.id for v in versions.artifact_versions] == [version_id]
    upload(raw, Step, config(Step), *parts(Step))

    def built() -> v2.PipelineStep | None:
        step: v2.PipelineStep = raw(
            "GetPipelineStep", v2.GetPipelineStepRequest(pipeline_step_id="s")
        ).pipeline_step
        is_ready = step.pipeline_step_version.status.code == Code.PIPELINE_STEP_READY
        return step if is_ready else None

    step = until(built)
    assert list(raw("ListPipelineSteps", v2.ListPipelineStepsRequest()).pipeline_steps) == [step]
    request = v2.ListPipelineStepVersionsRequest(
        pipeline_step_id="s", status_codes=[Code.PIPELINE_STEP_READY]
    )
    listed = raw("ListPipelineStepVersions", request).pipeline_step_versions
    assert list(listed) == [step.pipeline_step_version]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[int], PartFile]]:
    opened: list[PartFile] = []

    def reopen(total: int) -> PartFile:
        for part_file in opened:
            part_file.close()
        opened.append(PartFile(tmp_path / "content", total))
        return opened[-1]

    yield reopen
    for part_file in opened:
        part_file.close()


@given(data=st.data(), content=st.binary(min_size=1, max_size=60), ends=st.booleans())
def test_any_split_repeat_and_restart_gives_the_content(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, content: bytes, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("part") / "content"
    stream = PartFile(path, len(content))
    number = 0
    while stream.remaining:
        start = stream.received
        size = data.draw(st.integers(1, stream.remaining))
        number += 1
        made = v2.UploadContentPart(
            part_number=number,
            range_start=start + size if ends else start,
            data=content[start : start + size],
        )
        stream.add(made)
        if data.draw(st.booleans()):
            stream.add(made)
        if data.draw(st.booleans()):
            stream.close()
            stream = PartFile(path, len(content))
    assert stream.digest() == hashlib.sha256(content).hexdigest()
    stream.close()


@given(data=st.data())
def test_scattered_parts_are_a_set_of_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("scattered") / "content"
    content = data.draw(st.binary(min_size=40, max_size=40))
    there: set[int] = set()
    file = ScatteredFile(path)
    for number in range(1, data.draw(st.integers(1, 12)) + 1):
        start, size = data.draw(st.integers(0, 35)), data.draw(st.integers(1, 8))
        end = min(40, start + size)
        sent = bytearray(content[start:end])
        changed = data.draw(st.none() | st.integers(start, end - 1))
        if changed is not None:
            sent[changed - start] ^= 1
        made = v2.UploadContentPart(part_number=number, range_start=start, data=bytes(sent))
        if changed is None:
            file.write([made], 40)
            there.update(range(start, end))
        elif changed in there:
            with pytest.raises(PartError):
                file.write([made], 40)
        if data.draw(st.booleans()):  # a restart, perhaps with a torn last record
            log = path.with_name("content.ranges")
            if log.exists() and data.draw(st.booleans()):
                with log.open("ab") as torn:
                    torn.write(b"torn")
            file = ScatteredFile(path)
        assert {n for low, high in file.ranges for n in range(low, high)} == there
        assert all(before[1] < after[0] for before, after in itertools.pairwise(file.ranges))
        assert file.received == len(there)
    written = path.read_bytes() if path.exists() else b""
    assert all(written[n] == content[n] for n in there)


def test_scattered_parts_cost_the_same_however_many_there_are(tmp_path: Path) -> None:
    file = ScatteredFile(tmp_path / "content")
    scattered = [
        v2.UploadContentPart(part_number=n + 1, range_start=2 * n, data=b"x")
        for n in range(upload_files.MAX_RANGES)
    ]
    looked = 0

    class Counted(list[int]):
        def __getitem__(self, index: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(index)

    file._starts, file._ends = Counted(), Counted()
    file.write(scattered, 10**6)
    assert 0 < looked < 60 * len(scattered)
    with pytest.raises(PartError, match="fill the gaps"):
        file.write([v2.UploadContentPart(part_number=1, range_start=999_000, data=b"x")], 10**6)
    file.write([v2.UploadContentPart(part_number=1, range_start=1, data=b"x")], 10**6)
    assert len(file.ranges) == upload_files.MAX_RANGES - 1


def test_uploads_do_not_wait_for_each_other(serve: Callable[..., Raw]) -> None:
    raw = serve()
    slow, quick = unary_upload(raw), unary_upload(raw)
    uploads = raw.server._service.state.uploads  # type: ignore[union-attr]
    app = UserApp(raw.server.user_id, raw.server.app_id)
    with uploads.writing(uploads.path(*uploads_of(app), slow.id)):
        assert put(raw, quick.id, parts(Model)[0]).status.code == Code.SUCCESS


@pytest.mark.parametrize("size", [upload_files.MAX_UPLOAD_BYTES + 1, 2**63])
def test_sizes_beyond_the_limit_are_refused_at_once(raw: Raw, size: int) -> None:
    request = v2.PostUploadsRequest(uploads=[v2.Upload(content_name="a", content_length=size)])
    (refused,) = raw("PostUploads", request).uploads
    assert refused.status.code == Code.UPLOAD_FAILED
    assert str(upload_files.MAX_UPLOAD_BYTES) in refused.status.details
    Model.make(raw)
    (response,) = upload(raw, Model, config(Model, total=size))
    assert response.status.code == Code.UPLOAD_FAILED


def test_sizes_beyond_the_free_space_are_refused_at_once(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))(10, 10, 5)
    monkeypatch.setattr(upload_files.shutil, "disk_usage", lambda path: usage)  # type: ignore[attr-defined]
    Model.make(raw)
    (response,) = upload(raw, Model, config(Model, total=6))
    assert response.status.code == Code.UPLOAD_FAILED
    assert "5 bytes free" in response.status.details


def test_closed_file_takes_nothing(file: Callable[[int], PartFile]) -> None:
    stream = file(3)
    stream.close()
    with pytest.raises(PartError):
        stream.add(v2.UploadContentPart(part_number=1, data=b"abc"))


def test_a_full_disk_fails_a_part_and_the_upload_goes_on(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = v2.Upload(id="on-a-full-disk", content_name="a.txt", content_length=6)
    ok(raw("PostUploads", v2.PostUploadsRequest(uploads=[upload])))

    def put(number: int, data: bytes) -> Any:
        part = v2.UploadContentPart(part_number=number, data=data, range_start=3 * number - 3)
        request = v2.PutUploadContentPartsRequest(upload_id=upload.id, content_parts=[part])
        return raw("PutUploadContentParts", request)

    ok(put(1, b"abc"))
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr(upload_files, "_write_all", Mock(side_effect=full))
        status = put(2, b"def").status
        assert status.code == v2.StatusCode.UPLOAD_FAILED
        assert "No space left on device" in status.details
    assert ok(put(2, b"def")).upload.status.code == v2.StatusCode.UPLOAD_DONE
