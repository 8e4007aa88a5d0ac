"""Inputs: added, processed, listed, walked, patched, deleted, kept."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc.local import Faults, LocalServer
from tests.local.conftest import Raw, clip, gone, png, settled

Code = v2.StatusCode


def texts(*ids: str) -> v2.PostInputsRequest:
    request = v2.PostInputsRequest()
    for input_id in ids:
        request.inputs.add(id=input_id).data.text.raw = f"text of {input_id}"
    return request


def codes(response: Any) -> list[int]:
    return [item.status.code for item in response.inputs]


@pytest.fixture
def web() -> Any:
    """A web server: /red.png is an image, /broken is none, all else is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bodies = {"/red.png": png("red"), "/other.png": png("blue"), "/broken": b"no image"}
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/red.png")
                self.end_headers()
                return
            body = bodies.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_add_is_asynchronous_and_ends_well(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="own").data.image.base64 = png("red")
    request.inputs.add().data.text.raw = "grüße"
    response = raw("PostInputs", request)
    assert response.status.code == Code.SUCCESS
    assert codes(response) == [Code.INPUT_PENDING] * 2
    assert response.inputs[0].id == "own"
    assert not response.inputs[0].data.image.base64  # not echoed
    image = settled(raw, "own")
    assert image.status.code == Code.INPUT_SUCCESS
    info = image.data.image.image_info
    assert (info.width, info.height, info.format) == (40, 40, "PNG")
    text = settled(raw, response.inputs[1].id)
    assert text.data.text.raw == "grüße"
    assert text.data.text.text_info.char_count == 5


def test_bad_content_fails_in_processing(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="bad").data.image.base64 = b"not an image"
    assert raw("PostInputs", request).status.code == Code.SUCCESS
    item = settled(raw, "bad")
    assert item.status.code == Code.INPUT_FAILED
    assert "decoded" in item.status.details
    counts = raw("GetInputCount", v2.GetInputCountRequest()).counts
    assert (counts.processed, counts.errors, counts.to_process) == (0, 1, 0)


def test_urls(raw: Raw, web: str) -> None:
    request = v2.PostInputsRequest()
    for name in ("red.png", "moved", "broken", "missing"):
        request.inputs.add(id=name).data.image.url = f"{web}/{name}"
    request.inputs.add(id="file").data.image.url = "file:///etc/passwd"
    request.inputs.add(id="private").data.image.url = "http://10.1.2.3/x.png"
    response = raw("PostInputs", request)
    assert response.status.code == Code.MIXED_STATUS
    assert codes(response)[4] == Code.INPUT_INVALID_URL
    assert settled(raw, "red.png").data.image.image_info.width == 40
    assert settled(raw, "moved").status.code == Code.INPUT_SUCCESS
    for name in ("broken", "missing", "private"):
        assert settled(raw, name).status.code == Code.INPUT_FAILED, name
    assert "404 Client Error: Not Found for url: " in settled(raw, "missing").status.details
    assert "private address" in settled(raw, "private").status.details


def test_duplicates(raw: Raw, web: str) -> None:
    assert raw("PostInputs", texts("a")).status.code == Code.SUCCESS
    response = raw("PostInputs", texts("a", "b", "b"))
    assert response.status.code == Code.MIXED_STATUS
    assert codes(response) == [Code.INPUT_DUPLICATE, Code.INPUT_PENDING, Code.INPUT_DUPLICATE]
    assert raw("PostInputs", texts("a", "b")).status.code == Code.FAILURE

    def by_url(**more: Any) -> int:
        request = v2.PostInputsRequest()
        image = request.inputs.add().data.image
        image.url = f"{web}/red.png"
        image.allow_duplicate_url = more.get("allow", False)
        return codes(raw("PostInputs", request))[0]

    assert by_url() == Code.INPUT_PENDING
    assert by_url() == Code.INPUT_DUPLICATE
    assert by_url(allow=True) == Code.INPUT_PENDING


def test_ids_are_taken_once_under_concurrency(raw: Raw) -> None:
    """Eight callers add the same ids in different orders: each id has one winner."""

    def post(seed: int) -> list[str]:
        ids = [f"i{n}" for n in range(50)]
        random.Random(seed).shuffle(ids)
        response = raw("PostInputs", texts(*ids))
        return [i.id for i in response.inputs if i.status.code == Code.INPUT_PENDING]

    with ThreadPoolExecutor(8) as pool:
        winners = [i for ids in pool.map(post, range(8)) for i in ids]
    assert sorted(winners) == sorted(f"i{n}" for n in range(50))
    assert len(walk(raw, per_page=1000)) == 50


def test_conflict_resolution(raw: Raw) -> None:
    raw("PostInputs", texts("a"))
    settled(raw, "a")
    request = texts("a")
    request.input_id_conflict_resolution = v2.InputIDConflictResolution.SKIP
    response = raw("PostInputs", request)
    assert response.status.code == Code.SUCCESS
    assert codes(response) == [Code.INPUT_SUCCESS]
    request.input_id_conflict_resolution = v2.InputIDConflictResolution.SUFFIX
    other = raw("PostInputs", request).inputs[0].id
    assert other.startswith("a-")
    assert settled(raw, other).status.code == Code.INPUT_SUCCESS


def test_requests_that_cannot_be(raw: Raw) -> None:
    many = texts(*(f"i{n}" for n in range(129)))
    assert raw("PostInputs", many).status.code == Code.INPUT_INVALID_ARGUMENT
    assert raw("PostInputs", v2.PostInputsRequest()).status.code == Code.INPUT_INVALID_REQUEST
    odd = v2.PostInputsRequest()
    odd.inputs.add(id="none")
    both = odd.inputs.add(id="both").data.image
    both.url, both.base64 = "http://localhost/x", b"x"
    two = odd.inputs.add(id="two").data
    two.text.raw, two.image.base64 = "x", b"x"
    response = raw("PostInputs", odd)
    assert response.status.code == Code.FAILURE
    assert codes(response) == [Code.INPUT_INVALID_ARGUMENT] * 3
    # The tests of the published gRPC client wait for this code after they delete an input.
    missing = raw("GetInput", v2.GetInputRequest(input_id="none")).status
    assert (missing.code, missing.description) == (
        Code.CONN_DOES_NOT_EXIST,
        "Resource does not exist",
    )


def test_lists(raw: Raw) -> None:
    ids = [f"i{n:03}" for n in range(30)]
    raw("PostInputs", texts(*ids))
    first = raw("ListInputs", v2.ListInputsRequest(per_page=20))
    second = raw("ListInputs", v2.ListInputsRequest(page=2, per_page=20))
    third = raw("ListInputs", v2.ListInputsRequest(page=3, per_page=20))
    assert [i.id for i in (*first.inputs, *second.inputs)] == ids[::-1]
    assert (third.status.code, len(third.inputs)) == (Code.SUCCESS, 0)
    some = raw("ListInputs", v2.ListInputsRequest(ids=["i003", "i007", "other"]))
    assert {i.id for i in some.inputs} == {"i003", "i007"}
    settled(raw, "i029")
    for input_id in ids:
        settled(raw, input_id)
    failed = v2.ListInputsRequest(status=v2.Status(code=Code.INPUT_FAILED))
    assert len(raw("ListInputs", failed).inputs) == 0
    good = v2.ListInputsRequest(status=v2.Status(code=Code.INPUT_SUCCESS))
    assert len(raw("ListInputs", good).inputs) == 30
    too_many = v2.ListInputsRequest(per_page=5000)
    assert raw("ListInputs", too_many).status.code == Code.CONN_INVALID_REQUEST


def walk(raw: Raw, **options: Any) -> list[str]:
    seen: list[str] = []
    while True:
        request = v2.StreamInputsRequest(last_id=seen[-1] if seen else "", **options)
        response = raw("StreamInputs", request)
        assert response.status.code == Code.SUCCESS
        if not response.inputs:
            return seen
        seen += [item.id for item in response.inputs]


def test_stream_walks_in_every_order(raw: Raw) -> None:
    ids = ["b", "d", "a", "c", "e"]
    raw("PostInputs", texts(*ids))
    assert walk(raw) == ids
    assert walk(raw, per_page=2) == ids
    assert walk(raw, per_page=2, descending=True) == ids[::-1]
    assert walk(raw, per_page=2, order_by_id=True) == sorted(ids)
    assert walk(raw, per_page=2, order_by_id=True, descending=True) == sorted(ids)[::-1]
    unknown = raw("StreamInputs", v2.StreamInputsRequest(last_id="never"))
    assert unknown.status.code == Code.INPUT_DOES_NOT_EXIST


def test_stream_is_stable_under_writes(raw: Raw) -> None:
    raw("PostInputs", texts(*"abcdef"))
    piece = raw("StreamInputs", v2.StreamInputsRequest(per_page=3))
    assert [i.id for i in piece.inputs] == list("abc")
    raw("DeleteInputs", v2.DeleteInputsRequest(ids=["a", "c"]))  # the cursor among them
    gone(raw, "c")
    raw("PostInputs", texts("g", "a"))
    rest = raw("StreamInputs", v2.StreamInputsRequest(per_page=10, last_id="c"))
    assert [i.id for i in rest.inputs] == list("defga")


def patch(raw: Raw, action: str, change: dict[str, Any]) -> Any:
    request = json_format.ParseDict({"inputs": [change], "action": action}, v2.PatchInputsRequest())
    return raw("PatchInputs", request)


def concepts(item: v2.Input) -> dict[str, float]:
    return {concept.id: concept.value for concept in item.data.concepts}


def test_patches(raw: Raw) -> None:
    raw("PostInputs", texts("a"))
    settled(raw, "a")
    change = {
        "id": "a",
        "data": {
            "concepts": [{"id": "tree", "value": 1}, {"id": "water", "value": 0}],
            "metadata": {"k": 1, "deep": {"x": 1, "y": 2}},
        },
    }
    response = patch(raw, "merge", change)
    assert response.status.code == Code.SUCCESS
    assert concepts(response.inputs[0]) == {"tree": 1, "water": 0}
    assert response.inputs[0].data.concepts[0].name == "tree"
    patch(raw, "merge", change)  # again without harm
    response = patch(
        raw,
        "merge",
        {
            "id": "a",
            "data": {
                "concepts": [{"id": "water", "value": 1}],
                "metadata": {"deep": {"x": 5}},
                "geo": {"geoPoint": {"latitude": 1, "longitude": 2}},
            },
        },
    )
    item = response.inputs[0]
    assert concepts(item) == {"tree": 1, "water": 1}
    metadata = {"k": 1, "deep": {"x": 5, "y": 2}}
    assert json_format.MessageToDict(item.data.metadata) == metadata
    item = patch(
        raw,
        "remove",
        {"id": "a", "data": {"concepts": [{"id": "tree"}], "metadata": {"deep": {"y": None}}}},
    ).inputs[0]
    assert concepts(item) == {"water": 1}
    assert json_format.MessageToDict(item.data.metadata) == {"k": 1, "deep": {"x": 5}}
    assert item.data.HasField("geo")
    item = patch(raw, "overwrite", {"id": "a", "data": {"concepts": [{"id": "sky"}]}}).inputs[0]
    assert list(concepts(item)) == ["sky"]
    assert not item.data.HasField("metadata")
    assert item.data.text.raw == "text of a"  # the content itself stays
    assert item.status.code == Code.INPUT_MODIFY_SUCCESS
    read = raw("GetInput", v2.GetInputRequest(input_id="a")).input
    assert (read.data, read.status.code) == (item.data, Code.INPUT_SUCCESS)


def test_patches_that_cannot_be(raw: Raw) -> None:
    raw("PostInputs", texts("a"))
    assert patch(raw, "", {"id": "a"}).status.code == Code.INPUT_INVALID_REQUEST
    request = v2.PatchInputsRequest(action="merge")
    request.inputs.add(id="a")
    request.inputs.add(id="none")
    response = raw("PatchInputs", request)
    assert response.status.code == Code.MIXED_STATUS
    assert response.inputs[1].status.code == Code.INPUT_DOES_NOT_EXIST


def test_deletes(raw: Raw) -> None:
    raw("PostInputs", texts("a", "b", "c"))
    assert raw("DeleteInput", v2.DeleteInputRequest(input_id="a")).status.code == Code.SUCCESS
    gone(raw, "a")
    again = raw("DeleteInput", v2.DeleteInputRequest(input_id="a"))
    assert again.status.code == Code.CONN_DOES_NOT_EXIST
    response = raw("DeleteInputs", v2.DeleteInputsRequest(ids=["a", "b", "c"]))
    assert (response.status.code, response.status.details) == (Code.SUCCESS, "not there: a")
    gone(raw, "b")
    gone(raw, "c")
    too_many = v2.DeleteInputsRequest(ids=[str(n) for n in range(129)])
    assert raw("DeleteInputs", too_many).status.code == Code.INPUT_INVALID_REQUEST
    none = raw("DeleteInputs", v2.DeleteInputsRequest())
    assert none.status.code == Code.INPUT_INVALID_REQUEST


def test_told_to_fail(serve: Callable[..., Raw]) -> None:
    raw = serve(faults=Faults(fail_inputs={"b"}))
    raw("PostInputs", texts("a", "b"))
    assert settled(raw, "a").status.code == Code.INPUT_SUCCESS
    assert settled(raw, "b").status.code == Code.INPUT_FAILED
    raw.server.faults.fail_inputs = lambda input_id: input_id.endswith("9")
    raw("PostInputs", texts("c9"))
    assert settled(raw, "c9").status.code == Code.INPUT_FAILED


def test_kept_over_a_restart(serve: Callable[..., Raw], tmp_path: Path) -> None:
    first = serve(data_dir=tmp_path)
    first("PostInputs", texts("a", "b"))
    settled(first, "b")
    first("DeleteInput", v2.DeleteInputRequest(input_id="a"))
    first.server.close()
    second = serve(data_dir=tmp_path)
    gone(second, "a")
    assert settled(second, "b").data.text.raw == "text of b"


KILLED = """
import sys
from clarigrpc.local import LocalServer
with LocalServer(sys.argv[1]) as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""


def test_sigkill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Batches are posted until the server is killed in the middle; every reply counts.

    It is killed some time after it has answered a few.
    """
    pat = LocalServer(tmp_path).pat
    acknowledged: list[str] = []
    for round_number in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            timer = threading.Timer(0.25, process.send_signal, [signal.SIGKILL])
            metadata = (("authorization", f"Key {pat}"),)
            with grpc.insecure_channel(address) as channel:
                stub = v2.V2Stub(channel)
                try:
                    for batch in range(10_000):
                        if batch == 4:
                            timer.start()
                        ids = [f"{round_number}-{batch}-{n}" for n in range(5)]
                        response = stub.PostInputs(texts(*ids), metadata=metadata, timeout=20)
                        assert response.status.code == Code.SUCCESS
                        acknowledged += ids
                except grpc.RpcError:
                    pass
            timer.join()
    assert len(acknowledged) > 30
    with LocalServer(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        kept = Raw(server, v2.V2Stub(channel))
        assert set(acknowledged) <= set(walk(kept, per_page=1000))
        for input_id in acknowledged[-5:]:
            assert settled(kept, input_id).status.code == Code.INPUT_SUCCESS


def test_videos_and_sounds_are_decoded(raw: Raw) -> None:
    def added(kind: str, content: bytes) -> v2.Input:
        request = v2.PostInputsRequest()
        getattr(request.inputs.add().data, kind).base64 = content
        (item,) = raw("PostInputs", request).inputs
        return settled(raw, item.id)

    film = added("video", clip(frames=20, rate=10))
    info = film.data.video.video_info
    assert (info.width, info.height, info.fps, info.frame_count) == (64, 48, 10.0, 20)
    assert info.duration_seconds == pytest.approx(2.0)
    tone = added("audio", sound(seconds=0.5, rate=8000))
    sampling = tone.data.audio.audio_info
    assert (sampling.sample_rate, sampling.audio_format) == (8000, "wav")
    assert sampling.duration_seconds == pytest.approx(0.5)
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    for kind, content in (
        ("video", b"junk" * 50),
        ("video", playlist),
        ("video", sound()),
        ("audio", b"junk" * 50),
        ("audio", png("red")),
    ):
        assert added(kind, content).status.code == Code.INPUT_FAILED


def sound(seconds: float = 0.2, rate: int = 16_000) -> bytes:
    """A WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(bytes(2 * int(seconds * rate)))
    return file.getvalue()
