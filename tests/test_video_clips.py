"""Videos of which a part, or fewer frames, are sent."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest

from clarigrpc import errors, video

SIZE = (64, 48)


def made(frames: int = 40, fps: int = 10, codec: str = "h264", format: str = "mp4") -> bytes:
    """A video whose frames get brighter, with a red left quarter."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as target:
        stream: Any = target.add_stream(codec, rate=fps, options={"g": "15"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.full((SIZE[1], SIZE[0], 3), 40 + number * 4, np.uint8)
            pixels[:, :16] = (220, 0, 0)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode(None))
    return buffer.getvalue()


def turned(content: bytes) -> bytes:
    """An MP4 file that players turn by a quarter with the clock."""
    start = content.index(b"tkhd") + 4 + 40
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    encoded = b"".join(one.to_bytes(4, "big", signed=True) for one in matrix)
    return content[:start] + encoded + content[start + 36 :]


def read(content: bytes) -> list[tuple[float, Any]]:
    """The time and the pixels of each frame."""
    with av.open(io.BytesIO(content), "r") as source:
        return [
            (float(frame.time or 0.0), frame.to_ndarray(format="rgb24"))
            for frame in source.decode(video=0)
        ]


def sent(content: Any, **options: Any) -> list[tuple[float, Any]]:
    return read(video(content, **options).data.video.base64)


@pytest.fixture(scope="module")
def whole() -> bytes:
    return made()


def brightness(frames: list[tuple[float, Any]]) -> list[int]:
    """The numbers of the frames of ``made``, by what they show."""
    return [round((pixels[24, 40].mean() - 40) / 4) for _, pixels in frames]


def test_a_clip_has_the_frames_between(whole: bytes) -> None:
    frames = sent(whole, clip=(1.2, 2.5))  # 1.2 is between two key frames
    assert brightness(frames) == list(range(12, 25))
    assert [time for time, _ in frames] == pytest.approx([n / 10 for n in range(13)], abs=1e-3)
    assert brightness(sent(whole, clip=(3.8, 100))) == [38, 39]
    assert len(sent(whole, clip=(0, 4))) == 40


def test_fewer_frames_a_second_and_never_more(whole: bytes) -> None:
    assert brightness(sent(whole, fps=2)) == list(range(0, 40, 5))
    assert brightness(sent(whole, clip=(1, 3), fps=1)) == [10, 20]
    assert brightness(sent(whole, fps=100)) == list(range(40))
    assert brightness(sent(whole, fps=0.1)) == [0]
    # 4 a second of 10: no two closer than the frames of the video allow, and none left out.
    assert len(sent(whole, fps=4)) == 16


def test_a_video_is_sent_as_a_player_shows_it(whole: bytes) -> None:
    frames = sent(turned(whole), fps=1)
    assert len(frames) == 4
    for _, pixels in frames:
        assert pixels.shape[:2] == SIZE  # which is (width, height) of the unturned one
        assert pixels[4, 24, 0] > pixels[4, 24, 1] + 100  # the left is at the top now
        assert abs(int(pixels[40, 24, 0]) - int(pixels[40, 24, 1])) < 20


def test_other_containers_and_odd_sizes() -> None:
    found = brightness(sent(made(codec="mpeg4", format="avi"), clip=(1, 2)))
    assert found == pytest.approx(range(10, 20), abs=1)  # for it is coarse
    assert brightness(sent(made(format="matroska"), fps=5)) == list(range(0, 40, 2))
    odd = io.BytesIO()
    with av.open(odd, "w", format="gif") as target:
        stream: Any = target.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 65, 49, "rgb8"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((49, 65, 3), np.uint8), format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    frames = sent(odd.getvalue(), fps=5)
    assert [pixels.shape for _, pixels in frames] == [(48, 64, 3)] * 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clip": (2, 1)}, "start and end"),
        ({"clip": (-1, 1)}, "start and end"),
        ({"clip": (1,)}, "start and end"),
        ({"clip": 5}, "start and end"),
        ({"clip": (float("nan"), 1)}, "start and end"),
        ({"clip": (50, 60)}, "no frame there"),
        ({"fps": 0}, "above 0"),
        ({"fps": float("inf")}, "above 0"),
        ({"fps": float("nan")}, "above 0"),
    ],
)
def test_numbers_out_of_range(whole: bytes, options: Any, says: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=says):
        video(whole, **options)


def test_what_is_no_video(whole: bytes) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="fetches URLs itself"):
        video("http://h/x.mp4", fps=1)
    for content in (b"nothing", whole[:200], b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"):
        with pytest.raises(errors.InvalidArgumentError, match="FFmpeg cannot convert"):
            video(content, fps=1)
    assert video(whole).data.video.base64 == whole
