"""Frames of a video at regular times, decoded by OpenCV's FFmpeg."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import PIL.Image

from clarigrpc import v2
from clarigrpc.local import media
from clarigrpc.local.core import ServiceError

DEFAULT_SAMPLE_MS = 1000
MIN_SAMPLE_MS = 100
MAX_SAMPLE_MS = 60_000
"""Bounds of ``output_config.sample_ms``; 0 means the default."""

MAX_MS = 600_000
"""Longest video, in milliseconds."""

_ROUNDING_MS = 0.5
"""Times of frames are fractions; one that ends at a middle is over by then."""

_Code = v2.StatusCode


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame of a video.

    Attributes:
        index: Counts the samples from 0.
        time: Middle of the interval that the frame stands for, in milliseconds.
        number: Counts the frames of the video from 0.
        image: The frame.
    """

    index: int
    time: int
    number: int
    image: PIL.Image.Image


def interval(config: v2.OutputConfig) -> int:
    """Milliseconds from one sample to the next, as a request says.

    Raises:
        ServiceError: PREDICT_INVALID_REQUEST for one that is out of bounds.
    """
    chosen = config.sample_ms or DEFAULT_SAMPLE_MS
    if not MIN_SAMPLE_MS <= chosen <= MAX_SAMPLE_MS:
        raise ServiceError(
            _Code.PREDICT_INVALID_REQUEST,
            f"sample_ms is {chosen}; it must be {MIN_SAMPLE_MS} to {MAX_SAMPLE_MS}",
        )
    return chosen


def samples(content: bytes, sample_ms: int, is_active: Callable[[], bool]) -> Iterator[Sample]:
    """The frames that show in the middle of each interval: at 1000, 3000, ... ms for 2000.

    A last interval counts if the video reaches its middle. A video that ends before the middle
    of the first one gives one frame, of its own middle.

    Args:
        content: The file: MP4, QuickTime, Matroska, WebM or AVI.
        sample_ms: Length of an interval.
        is_active: Asked before each frame; the samples end once it is False.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101) for what cannot be decoded,
            INPUT_OVER_LIMIT (30105) for a video that is too long or has too many pixels.
    """
    import cv2

    if not _is_container(content):
        # FFmpeg would also follow playlists, which name files of this machine.
        raise ServiceError(
            _Code.INPUT_UNSUPPORTED_FORMAT, "the bytes are no MP4, QuickTime, WebM, Matroska or AVI"
        )
    with tempfile.NamedTemporaryFile(prefix="clarigrpc-video-") as file:
        file.write(content)
        file.flush()
        capture = cv2.VideoCapture(file.name, cv2.CAP_FFMPEG)
        try:
            yield from _samples(capture, sample_ms, is_active)
        finally:
            capture.release()


def _samples(capture: Any, sample_ms: int, is_active: Callable[[], bool]) -> Iterator[Sample]:
    import cv2

    if not capture.isOpened():
        raise ServiceError(_Code.INPUT_UNSUPPORTED_FORMAT, "the video cannot be decoded")
    if capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT) > (
        media.MAX_PIXELS
    ):
        raise ServiceError(
            _Code.INPUT_OVER_LIMIT, f"a frame has more than {media.MAX_PIXELS} pixels"
        )
    shown_ms = 1000 / (capture.get(cv2.CAP_PROP_FPS) or 25.0)
    length = capture.get(cv2.CAP_PROP_FRAME_COUNT) * shown_ms
    _check_length(length)
    middle = sample_ms / 2
    if 0 < length <= middle + _ROUNDING_MS:
        middle = length / 2
    index = number = 0
    while is_active() and capture.grab():
        end = capture.get(cv2.CAP_PROP_POS_MSEC) + shown_ms
        _check_length(end)
        if end > middle + _ROUNDING_MS:
            good, pixels = capture.retrieve()
            if not good:
                break
            image = PIL.Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            while end > middle + _ROUNDING_MS:  # one frame may show for several intervals
                yield Sample(index, round(middle), number, image)
                index += 1
                middle += sample_ms
        number += 1
    if not index and is_active():
        raise ServiceError(_Code.INPUT_UNSUPPORTED_FORMAT, "no frame of the video can be decoded")


def _check_length(milliseconds: float) -> None:
    if milliseconds > MAX_MS + 1000:  # containers round
        raise ServiceError(
            _Code.INPUT_OVER_LIMIT, f"the video is longer than {MAX_MS // 60_000} minutes"
        )


def _is_container(content: bytes) -> bool:
    return (
        content[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or content[:4] == b"\x1a\x45\xdf\xa3"
        or (content[:4] == b"RIFF" and content[8:12] == b"AVI ")
    )
