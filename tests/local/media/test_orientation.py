"""Pictures and videos are looked at as a viewer shows them."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import PIL.Image
import pytest

from clarigrpc import v2
from clarigrpc.local.models.image_embedding import embed
from tests.broken_exif import BROKEN_EXIF
from tests.local.conftest import PUBLIC, Raw, ok, settled

_Turn = PIL.Image.Transpose
# How a camera has to lie for each orientation of EXIF.
_STORED = {
    1: None,
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_90,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_270,
}
# a, b, c, d of the display matrix that shows such pixels upright.
_MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
_ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def scene() -> PIL.Image.Image:
    """A picture that no turn leaves as it is."""
    picture = PIL.Image.new("RGB", (96, 64), "white")
    picture.paste("blue", (0, 0, 96, 16))
    picture.paste("red", (0, 16, 24, 64))
    return picture


def _lying(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    turn = _STORED[orientation]
    return picture if turn is None else picture.transpose(turn)


def _photograph(picture: PIL.Image.Image, orientation: int, kind: str) -> bytes:
    exif = PIL.Image.Exif()
    exif[_ORIENTATION] = orientation
    file = io.BytesIO()
    _lying(picture, orientation).save(file, kind, exif=exif)
    return file.getvalue()


def _film(picture: PIL.Image.Image, orientation: int) -> bytes:
    stored = _lying(picture, orientation)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *stored.size, "yuv420p"
        stream.bit_rate = 4_000_000
        for _ in range(10):
            pixels = av.VideoFrame.from_ndarray(np.asarray(stored), format="rgb24")
            container.mux(stream.encode(pixels))
        container.mux(stream.encode())
    content = bytearray(file.getvalue())
    # Of a track header of version 0 (ISO/IEC 14496-12, 8.3.2), counted from its name.
    a, b, c, d = (value << 16 for value in _MATRICES[orientation])
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(content)


def _embedded(raw: Raw, data: v2.Data) -> v2.Data:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="image-embedding")
    request.inputs.add(data=data)
    response: v2.MultiOutputResponse = ok(raw("PostModelOutputs", request))
    return response.outputs[0].data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", _STORED)
def test_photographs(raw: Raw, scene: PIL.Image.Image, orientation: int, kind: str) -> None:
    data = v2.Data()
    data.image.base64 = _photograph(scene, orientation, kind)
    seen = np.asarray(_embedded(raw, data).embeddings[0].vector)
    assert seen @ embed(scene) > 0.97
    ok(raw("PostInputs", v2.PostInputsRequest(inputs=[v2.Input(id="i", data=data)])))
    info = settled(raw, "i").data.image.image_info
    assert (info.width, info.height, info.format) == (*scene.size, kind)


@pytest.mark.parametrize(("exif", "turns"), BROKEN_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_photographs_with_broken_exif(
    raw: Raw, scene: PIL.Image.Image, exif: bytes, turns: bool, kind: str
) -> None:
    file = io.BytesIO()
    _lying(scene, 6 if turns else 1).save(file, kind, exif=exif)
    data = v2.Data()
    data.image.base64 = file.getvalue()
    assert np.asarray(_embedded(raw, data).embeddings[0].vector) @ embed(scene) > 0.97
    ok(raw("PostInputs", v2.PostInputsRequest(inputs=[v2.Input(id="b", data=data)])))
    info = settled(raw, "b").data.image.image_info
    assert (info.width, info.height, info.format) == (*scene.size, kind)


@pytest.mark.parametrize("orientation", _STORED)
def test_videos(raw: Raw, scene: PIL.Image.Image, orientation: int) -> None:
    data = v2.Data()
    data.video.base64 = _film(scene, orientation)
    (frame,) = _embedded(raw, data).frames
    assert np.asarray(frame.data.embeddings[0].vector) @ embed(scene) > 0.97
    ok(raw("PostInputs", v2.PostInputsRequest(inputs=[v2.Input(id="v", data=data)])))
    info = settled(raw, "v").data.video.video_info
    assert (info.width, info.height) == scene.size


def test_a_matrix_that_is_no_quarter_turn_changes_nothing(
    raw: Raw, scene: PIL.Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_MATRICES, 1, (1, 1, -1, 1))
    data = v2.Data()
    data.video.base64 = _film(scene, 1)
    (frame,) = _embedded(raw, data).frames
    assert np.asarray(frame.data.embeddings[0].vector) @ embed(scene) > 0.97
