"""While somebody sends the server the worst that it takes, another caller hardly waits."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import PIL.Image
import pytest

from clarigrpc import Client, image, text, v2
from tests.faults.processes import ServerProcess, serve_command

_REST_BASE = re.compile(r"REST_BASE=(\S+)")
LONGEST_SECONDS = 1.0


def _command(port: int, data_dir: Path) -> Sequence[str]:
    return [*serve_command(port, data_dir), "--rest-port", "0"]


class Hostile:
    """Requests in bytes, made before anything is measured."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        found = _REST_BASE.search(server.log())
        assert found is not None
        self.rest_base = found[1]
        self.metadata = (("authorization", f"Key {server.pat}"),)
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel: Any = grpc.insecure_channel(server.address, options)
        self.folder = folder

    def send(self, method: str, request: bytes) -> None:
        call = self.channel.unary_unary(f"/clarifai.api.V2/{method}")
        try:
            call(request, metadata=self.metadata, timeout=60)
        except grpc.RpcError as error:
            assert error.code() in (  # noqa: PT017
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )

    def much_metadata(self) -> Callable[[], None]:
        request = v2.PostInputsRequest()
        item = request.inputs.add()
        item.data.text.raw = "x"
        for number in range(100_000):
            item.data.metadata.fields[f"key{number}"].number_value = number
        body = request.SerializeToString()
        return lambda: self.send("PostInputs", body)

    def many_with_metadata(self) -> Callable[[], None]:
        request = v2.PostInputsRequest()
        for _ in range(128):
            item = request.inputs.add()
            item.data.text.raw = "x"
            for number in range(250):
                item.data.metadata.fields[f"key{number}"].number_value = number
        body = request.SerializeToString()
        return lambda: self.send("PostInputs", body)

    def many_concepts(self) -> Callable[[], None]:
        request = v2.PostInputsRequest()
        for _ in range(100):
            item = request.inputs.add()
            item.data.text.raw = "x"
            for number in range(100):
                item.data.concepts.add(id=f"concept{number}", value=1)
        body = request.SerializeToString()
        return lambda: self.send("PostInputs", body)

    def a_long_text(self) -> Callable[[], None]:
        request = v2.PostInputsRequest(inputs=[text("some words of a text " * 390_000)])
        body = request.SerializeToString()
        return lambda: self.send("PostInputs", body)

    def nothing_but_fields(self) -> Callable[[], None]:
        body = b"\x12\x00" * 10_000_000
        return lambda: self.send("PostInputs", body)

    def a_huge_picture(self) -> Callable[[], None]:
        file = io.BytesIO()
        PIL.Image.new("L", (9900, 9900)).save(file, "PNG")
        sent = v2.PostInputsRequest(inputs=[image(file.getvalue())]).SerializeToString()
        asked = v2.PostModelOutputsRequest(
            user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"),
            model_id="color-recognition",
            inputs=[image(file.getvalue())],
        ).SerializeToString()

        def run() -> None:
            self.send("PostInputs", sent)
            self.send("PostModelOutputs", asked)

        return run

    def a_bomb(self) -> Callable[[], None]:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(6):
                archive.writestr(f"{number}.png", bytes(30 << 20))
        wanted = v2.PostInputsUploadsRequest()
        upload = wanted.inputs_uploads.add().upload
        upload.id, upload.content_name = "bomb", "bomb.zip"
        upload.content_length = len(file.getvalue())
        part = v2.UploadContentPart(part_number=1, data=file.getvalue())
        put = v2.PutUploadContentPartsRequest(upload_id="bomb", content_parts=[part])

        def run() -> None:
            self.send("PostInputsUploads", wanted.SerializeToString())
            self.send("PutUploadContentParts", put.SerializeToString())

        return run

    def much_json(self) -> Callable[[], None]:
        item = b'{"data":{"text":{"raw":"x"}}}'
        body = b'{"inputs":[' + b",".join([item] * 200_000) + b"]}"

        def run() -> None:
            response = httpx.post(
                f"{self.rest_base}/v2/inputs", content=body, headers=dict(self.metadata), timeout=60
            )
            assert response.status_code == 413

        return run

    def a_dataset_that_goes(self) -> Callable[[], None]:
        dataset = v2.PostDatasetsRequest(datasets=[v2.Dataset(id="large")])
        self.send("PostDatasets", dataset.SerializeToString())
        inputs = [text("x")] * 128
        for item in inputs:
            item.dataset_ids[:] = ["large"]
        body = v2.PostInputsRequest(inputs=inputs).SerializeToString()
        for _ in range(40):
            self.send("PostInputs", body)
        delete = v2.DeleteDatasetsRequest(dataset_ids=["large"])
        return lambda: self.send("DeleteDatasets", delete.SerializeToString())


ATTACKS = [
    *("much_metadata", "many_with_metadata", "many_concepts", "a_long_text"),
    *("nothing_but_fields", "a_huge_picture", "a_bomb", "much_json", "a_dataset_that_goes"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("data")
    with ServerProcess(folder, command=_command) as server:
        yield server


@pytest.fixture(scope="module")
def probe(server: ServerProcess) -> Iterator[Callable[[], float]]:
    """Another caller's call; returns how long it took."""
    with Client(
        base=server.base, pat=server.pat, user_id="local-user", app_id="local-app"
    ) as client:
        client.inputs.create(text("probe", id="probe"))

        def call() -> float:
            began = time.monotonic()
            client.v2.GetInput(v2.GetInputRequest(input_id="probe"))
            return time.monotonic() - began

        yield call


@pytest.mark.measures
@pytest.mark.parametrize("attack", ATTACKS)
def test_another_caller_hardly_waits(
    server: ServerProcess, probe: Callable[[], float], tmp_path: Path, attack: str
) -> None:
    run = getattr(Hostile(server, tmp_path), attack)()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        took = [probe()]
        # What it leaves to jobs and to processing takes a little longer.
        until = time.monotonic() + 1.0
        while not done.done() or time.monotonic() < until:
            took.append(probe())
            time.sleep(0.01)
            if not done.done():
                until = time.monotonic() + 1.0
        done.result()
    assert max(took) < LONGEST_SECONDS
