"""Media of inputs at addresses of their own, for those who may see the inputs."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import PIL.Image
import pytest
from google.protobuf.message import DecodeError

from clarigrpc import v2
from clarigrpc.local import Limits, LocalServer
from clarigrpc.local.engine import hosted_media
from clarigrpc.local.service.user_limits import Limiter
from clarigrpc.local.store.resource_store import StoreError
from tests.local.conftest import Raw, clip, message, ok, png, settled
from tests.local.web import serving
from tests.waiting import until

PICTURE = png("red", "blue", size=1000)
CLEAR = io.BytesIO()
PIL.Image.new("RGBA", (30, 20), (1, 2, 3, 4)).save(CLEAR, "PNG")
CONFIG = {
    "users": [
        {
            "id": "me",
            "pat": "my-pat",
            "apps": [
                {
                    "id": "mine",
                    "keys": [
                        {"id": "my-key", "scopes": ["All"]},
                        {"id": "narrow", "scopes": ["Concepts_Get"]},
                    ],
                },
                {"id": "öther app", "keys": [{"id": "key-elsewhere", "scopes": ["All"]}]},
            ],
        },
        {"id": "you", "pat": "your-pat", "apps": [{"id": "yours"}]},
    ]
}


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    with (
        serving(lambda: PICTURE) as site,
        LocalServer(config=CONFIG, rest_port=0) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = Raw(server, v2.V2Stub(channel))
        media: dict[str, dict[str, Any]] = {
            "from-url": {"image": {"url": f"{site}/picture.png"}},
            "text": {"text": {"raw": "Grüße"}},
        }
        request = v2.PostInputsRequest()
        for input_id, data in media.items():
            request.inputs.append(message(v2.Input, id=input_id, data=data))
        request.inputs.add(id="sent / as bytes").data.image.base64 = PICTURE
        request.inputs.add(id="clear").data.image.base64 = CLEAR.getvalue()
        request.inputs.add(id="video").data.video.base64 = clip()
        request.inputs.add(id="broken").data.image.base64 = b"no picture"
        # What clients read from another server is not what is kept.
        request.inputs[0].data.image.hosted.prefix = "https://elsewhere"
        ok(raw("PostInputs", request))
        for item in request.inputs:
            settled(raw, item.id)
        yield raw


@pytest.fixture(scope="module")
def web(raw: Raw) -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


def hosted(raw: Raw, input_id: str) -> v2.HostedURL:
    item = ok(raw("GetInput", v2.GetInputRequest(input_id=input_id))).input
    (kind,) = (name for name in ("image", "video", "text") if item.data.HasField(name))
    return getattr(item.data, kind).hosted  # type: ignore[no-any-return]


def address(raw: Raw, input_id: str, size: str) -> str:
    found = hosted(raw, input_id)
    return f"{found.prefix}/{size}/{found.suffix}"


def key(secret: str) -> dict[str, str]:
    return {"authorization": f"Key {secret}"}


@pytest.mark.parametrize(
    ("input_id", "size", "media_type", "content"),
    [
        ("from-url", "orig", "image/png", PICTURE),
        ("sent / as bytes", "orig", "image/png", PICTURE),
        ("video", "orig", "video/mp4", clip()),
        ("text", "orig", "text/plain; charset=utf-8", "Grüße".encode()),
    ],
)
def test_the_original_is_what_was_sent(
    raw: Raw, web: httpx.Client, input_id: str, size: str, media_type: str, content: bytes
) -> None:
    answer = web.get(address(raw, input_id, size), headers=key(raw.server.pat))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.content == content
    assert web.head(address(raw, input_id, size), headers=key(raw.server.pat)).content == b""


@pytest.mark.parametrize(
    ("input_id", "size", "form", "extent"),
    [
        ("from-url", "tiny", "JPEG", (128, 64)),
        ("sent / as bytes", "small", "JPEG", (384, 192)),
        ("sent / as bytes", "large", "JPEG", (1024, 512)),
        ("clear", "large", "PNG", (30, 20)),  # not enlarged, and still to be seen through
        ("video", "thumbnail", "JPEG", (64, 48)),
    ],
)
def test_copies_in_other_sizes(
    raw: Raw, web: httpx.Client, input_id: str, size: str, form: str, extent: tuple[int, int]
) -> None:
    assert size in hosted(raw, input_id).sizes
    answer = web.get(address(raw, input_id, size), headers=key(raw.server.pat))
    image = PIL.Image.open(io.BytesIO(answer.content))
    assert (image.format, image.size) == (form, extent)
    assert answer.headers["content-type"] == PIL.Image.MIME[form]


def test_the_service_s_sizes(raw: Raw) -> None:
    assert list(hosted(raw, "from-url").sizes) == ["orig", "tiny", "small", "large"]
    assert list(hosted(raw, "video").sizes) == ["orig", "thumbnail"]
    assert not hosted(raw, "broken").prefix


def test_who_may_fetch(raw: Raw, web: httpx.Client) -> None:
    url = address(raw, "sent / as bytes", "tiny")
    server = raw.server
    right = {"key": "my-key", "pat": server.pat}
    for secret in right.values():
        assert web.get(url, headers=key(secret)).status_code == 200
        assert web.get(url, headers={"cookie": f"x-clarifai-api-key={secret}"}).status_code == 200
    token = server.session_token
    assert web.get(url, headers={"x-clarifai-session-token": token}).status_code == 200
    cookie = {"cookie": f"x_clarifai_session_token={token}"}
    assert web.get(url, headers=cookie).status_code == 200
    wrong = [
        {"authorization": "Key " + "0" * 32},
        {"authorization": "nonsense"},
        {"x-clarifai-session-token": "0" * 32},
        {"cookie": "x-clarifai-api-key=" + "0" * 32},
        {"cookie": "x_clarifai_session_token=" + "0" * 32},
    ]
    assert [web.get(url, headers=headers).status_code for headers in wrong] == [401] * len(wrong)
    assert web.get(url).status_code == 404
    # Those who have no business with the input do not learn that it is there.
    assert web.get(url, headers=key("your-pat")).status_code == 404
    assert web.get(url, headers=key("key-elsewhere")).status_code == 403
    assert web.get(url, headers=key("narrow")).status_code == 403


@pytest.mark.parametrize("path", ["", "x", "orig/users/me/apps/mine/inputs/image/%ff", "huge/"])
def test_what_is_not_there(raw: Raw, web: httpx.Client, path: str) -> None:
    prefix = hosted(raw, "text").prefix
    url = f"{prefix}/{path}"
    assert web.get(url, headers=key(raw.server.pat)).status_code == 404
    gone = address(raw, "text", "orig").replace("text/text", "image/text")
    assert web.get(gone, headers=key(raw.server.pat)).status_code == 404
    assert web.get(address(raw, "text", "tiny"), headers=key(raw.server.pat)).status_code == 404
    assert web.post(address(raw, "text", "orig"), headers=key(raw.server.pat)).status_code == 404


def test_every_way_to_an_input_has_its_addresses(raw: Raw, web: httpx.Client) -> None:
    expected = hosted(raw, "sent / as bytes")
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    add = v2.PostDatasetInputsRequest(dataset_id="d")
    add.dataset_inputs.add().input.id = "sent / as bytes"
    ok(raw("PostDatasetInputs", add))
    search: dict[str, Any] = {"query": {"filters": [{"input": {"id": "sent / as bytes"}}]}}
    wanted = v2.ListInputsRequest(ids=["sent / as bytes"])
    members = v2.ListDatasetInputsRequest(dataset_id="d")
    hits = message(v2.PostInputsSearchesRequest, searches=[search])
    labels = message(v2.PostAnnotationsSearchesRequest, searches=[search])
    change = message(v2.PatchInputsRequest, action="merge", inputs=[{"id": "sent / as bytes"}])
    found = [
        ok(raw("ListInputs", wanted)).inputs[0],
        ok(raw("ListDatasetInputs", members)).dataset_inputs[0].input,
        ok(raw("PostInputsSearches", hits)).hits[0].input,
        ok(raw("PostAnnotationsSearches", labels)).hits[0].input,
        ok(raw("PatchInputs", change)).inputs[0],
    ]
    assert [item.data.image.hosted for item in found] == [expected] * len(found)
    exported = _exported(raw, web)
    assert exported.data.image.hosted == expected


def _exported(raw: Raw, web: httpx.Client) -> v2.Input:
    version = v2.PostDatasetVersionsRequest(dataset_id="d")
    version.dataset_versions.add(id="v")
    ok(raw("PostDatasetVersions", version))
    wanted = v2.GetDatasetVersionRequest(dataset_id="d", dataset_version_id="v")

    def get() -> v2.DatasetVersion:
        return ok(raw("GetDatasetVersion", wanted)).dataset_version  # type: ignore[no-any-return]

    until(lambda: get().status.code == v2.StatusCode.DATASET_VERSION_READY)
    export = v2.PutDatasetVersionExportsRequest(dataset_id="d", dataset_version_id="v")
    export.exports.add(format=v2.DatasetVersionExportFormat.CLARIFAI_DATA_PROTOBUF)
    ok(raw("PutDatasetVersionExports", export))
    done = v2.StatusCode.DATASET_VERSION_EXPORT_SUCCESS
    made = until(
        lambda: next(
            (e for e in [get().export_info.clarifai_data_protobuf] if e.status.code == done), None
        )
    )
    with zipfile.ZipFile(io.BytesIO(web.get(made.url).content)) as archive:
        (name,) = (name for name in archive.namelist() if name.startswith("all/"))
        return v2.InputBatch.FromString(archive.read(name)).inputs[0]


def test_media_count_towards_limits_and_memory(
    raw: Raw, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = raw.server._service
    assert service is not None
    url, headers = address(raw, "sent / as bytes", "orig"), key(raw.server.pat)
    with service.budget.take(service.budget.total // 2 + 1):
        answer = web.get(url, headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    monkeypatch.setattr(service, "_limiter", Limiter(Limits(requests="1/minute")))
    assert web.get(url, headers=headers).status_code == 200
    answer = web.get(url, headers=headers)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    monkeypatch.setattr(service, "_limiter", None)
    # What was held for the responses is given back.
    until(lambda: service.budget.free == service.budget.total)


@pytest.mark.parametrize("error", [StoreError("the disk is full"), DecodeError("damaged")])
def test_a_failing_database(
    raw: Raw, web: httpx.Client, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    url = address(raw, "text", "orig")
    monkeypatch.setattr(hosted_media, "read", fail)
    answer = web.get(url, headers=key(raw.server.pat))
    assert answer.json()["status"]["code"] == v2.StatusCode.INTERNAL_DATABASE_ISSUE


def test_what_was_sent_as_bytes_can_be_fetched_before_it_is_processed() -> None:
    release = threading.Event()

    def held_back() -> bytes:
        release.wait(30)
        return PICTURE

    with (
        serving(held_back) as site,
        LocalServer(rest_port=0) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = Raw(server, v2.V2Stub(channel))
        request = v2.PostInputsRequest()
        request.inputs.add(id="slow").data.image.url = f"{site}/picture.png"
        request.inputs.add(id="bytes").data.image.base64 = PICTURE
        ok(raw("PostInputs", request))
        try:
            slow, sent = (
                ok(raw("GetInput", v2.GetInputRequest(input_id=name))).input
                for name in ("slow", "bytes")
            )
            assert sent.status.code == v2.StatusCode.INPUT_PENDING
            fetched = httpx.get(sent.data.image.url, headers={"authorization": f"Key {server.pat}"})
            assert (fetched.status_code, fetched.content) == (200, PICTURE)
            assert not slow.data.image.HasField("hosted")
        finally:
            release.set()
