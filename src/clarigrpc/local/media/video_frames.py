"""Frames of a video at regular times, decoded by FFmpeg."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import PIL.Image

from clarigrpc import v2
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.media import media_content
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEFAULT_SAMPLE_MS = 1000
MIN_SAMPLE_MS = 100
MAX_SAMPLE_MS = 60_000
"""Bounds of ``output_config.sample_ms``; 0 means the default."""

MAX_MS = 600_000
"""Longest video, in milliseconds."""

FRAMES_SECONDS = 900.0
"""Time to decode all frames of a video, and to work with them. A call's deadline may be shorter."""

_USUAL_RATE = 25
_ROUNDING_MS = 0.5
"""Times of frames are fractions; one that ends at a middle is over by then."""


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
            StatusCode.PREDICT_INVALID_REQUEST,
            f"sample_ms is {chosen}; it must be {MIN_SAMPLE_MS} to {MAX_SAMPLE_MS}",
        )
    return chosen


def samples(
    content: bytes, sample_ms: int, is_active: Callable[[], bool], budget: ByteBudget
) -> Iterator[Sample]:
    """The frames that show in the middle of each interval: at 1000, 3000, ... ms for 2000.

    A last interval counts if the video reaches its middle. A video that ends before the middle
    of the first one gives one frame, of its own middle.

    Args:
        content: The file.
        sample_ms: Length of an interval.
        is_active: Asked before each frame; the samples end once it is False.
        budget: Gives the memory of the frames until the samples end.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101) for what cannot be decoded,
            INPUT_OVER_LIMIT (30105) for a video that is too long, has too many pixels, or takes
            more than FRAMES_SECONDS.
        BudgetFullError: Other calls hold the memory.
    """
    with (
        media_content.open_container(content, FRAMES_SECONDS) as container,
        ExitStack() as held,
    ):
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise ServiceError(StatusCode.INPUT_UNSUPPORTED_FORMAT, "the file has no video stream")
        held.enter_context(media_content.frame_memory(stream, budget))
        length = (container.duration or 0) / 1000
        _check_length(length)
        middle = sample_ms / 2
        if 0 < length <= middle + _ROUNDING_MS:
            middle = length / 2
        index = 0
        for number, frame, end in _shown(container, stream, is_active):
            if end > middle + _ROUNDING_MS:
                image = media_content.frame_image(frame)
                while end > middle + _ROUNDING_MS:  # one frame may show for several intervals
                    yield Sample(index, round(middle), number, image)
                    index += 1
                    middle += sample_ms
        if not index and is_active():
            raise ServiceError(StatusCode.INPUT_UNSUPPORTED_FORMAT, "no frame can be decoded")


def _shown(
    container: InputContainer, stream: VideoStream, is_active: Callable[[], bool]
) -> Iterator[tuple[int, VideoFrame, float]]:
    """The frames, with the time in milliseconds until which each shows."""
    usual = 1000 / float(stream.average_rate or _USUAL_RATE)
    start: float | None = None
    before: tuple[int, VideoFrame, float] | None = None
    for number, frame in enumerate(container.decode(stream)):
        if not is_active():
            return
        begin = number * usual if frame.time is None else frame.time * 1000
        start = begin if start is None else start
        _check_length(begin - start)
        if before is not None:
            yield before[0], before[1], begin - start
        before = number, frame, begin - start + usual
    if before is not None:
        yield before


def _check_length(milliseconds: float) -> None:
    if milliseconds > MAX_MS + 1000:  # containers round
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT, f"the video is longer than {MAX_MS // 60_000} minutes"
        )
