"""Manifests of videos: a player can open what they name."""

from __future__ import annotations

import av
import httpx
import pytest

from clarigrpc import v2
from tests.local.conftest import Raw, clip, gone, ok, png, settled
from tests.waiting import until

Code = v2.StatusCode


@pytest.fixture
def front() -> str:
    return "rest"


def add(raw: Raw, name: str, kind: str, content: bytes) -> None:
    request = v2.PostInputsRequest()
    getattr(request.inputs.add(id=name).data, kind).base64 = content
    ok(raw("PostInputs", request))
    settled(raw, name)


def manifest(raw: Raw, name: str) -> v2.GetVideoManifestResponse:
    found: v2.GetVideoManifestResponse = raw(
        "GetInputVideoManifest", v2.GetVideoManifestRequest(input_id=name)
    )
    return found


def test_a_player_can_open_it(raw: Raw) -> None:
    for name, form in (("a", "mp4"), ("b", "avi")):
        add(raw, name, "video", clip(frames=35, form=form))
        url = ok(manifest(raw, name)).manifest_url
        text = httpx.get(url)
        assert text.headers["content-type"] == "application/vnd.apple.mpegurl"
        assert text.text.startswith("#EXTM3U")
        with av.open(url, "r", options={"allowed_extensions": "ALL"}) as played:
            levels = [frame.to_image().getpixel((5, 5))[0] for frame in played.decode(video=0)]
        assert len(levels) == 35
        assert levels[0] < 20
        assert levels[-1] > 230
        assert manifest(raw, name).manifest_url == url
    first, second = (ok(manifest(raw, name)).manifest_url for name in ("a", "b"))
    assert httpx.get(first.replace(".m3u8", ".m4s")).status_code == 200
    ok(raw("DeleteInput", v2.DeleteInputRequest(input_id="a")))
    gone(raw, "a")
    assert manifest(raw, "a").status.code == Code.INPUT_DOES_NOT_EXIST
    until(lambda: httpx.get(first).status_code == 404)
    assert httpx.get(first.replace(".m3u8", ".m4s")).status_code == 404
    assert httpx.get(second).status_code == 200


def test_what_has_no_manifest(raw: Raw) -> None:
    add(raw, "picture", "image", png("red"))
    assert manifest(raw, "picture").status.code == Code.INPUT_INVALID_ARGUMENT
    # A playlist would lead the server to what it names.
    add(raw, "list", "video", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    assert manifest(raw, "list").status.code in (
        Code.INPUT_UNSUPPORTED_FORMAT,
        Code.INPUT_INVALID_REQUEST,
    )
