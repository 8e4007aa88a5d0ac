"""Parts of videos, and videos with fewer frames, encoded anew as MP4 with H.264."""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from clarigrpc._extras import NeedsExtra
from clarigrpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_OPTIONS = {"protocol_whitelist": "data"}
"""A playlist in a video's place opens no file and no address."""
_ENCODING = {"preset": "veryfast", "crf": "23"}
_EARLY = 1e-6
"""Seconds by which a frame may be early, as times are fractions with other denominators."""


def shortened(content: bytes, clip: tuple[float, float] | None, fps: float | None) -> bytes:
    """A part of a video with at most so many frames a second, without its sound.

    Args:
        content: The video file.
        clip: Its start and end in seconds from the first frame. None is the whole video.
        fps: Most frames a second. None keeps all.

    Raises:
        ConfigurationError: PyAV is not installed.
        InvalidArgumentError: A number is out of range, the content is no video that FFmpeg reads,
            or it has no frame in the clip.
    """
    start, end = _checked_clip(clip)
    if fps is not None and not 0 < fps < math.inf:
        raise InvalidArgumentError(f"video(fps={fps!r}): fps has to be a number above 0")
    with NeedsExtra("video", "video() with clip or fps"):
        import av
    from av.error import FFmpegError

    buffer = BytesIO()
    try:
        with (
            av.open(BytesIO(content), "r", options=_OPTIONS) as source,
            av.open(buffer, "w", format="mp4") as target,
        ):
            if not source.streams.video:
                raise InvalidArgumentError("video(): the file has no video stream")
            stream = source.streams.video[0]
            frames = (_upright(frame) for frame in _chosen(source, stream, start, end, fps))
            first = next(frames, None)
            if first is None:
                raise InvalidArgumentError(f"video(clip={clip!r}): the video has no frame there")
            assert stream.time_base is not None
            encoder = target.add_stream("h264", rate=stream.average_rate, options=_ENCODING)
            # H.264 with halved colours has even sides only.
            encoder.width, encoder.height = first.width & ~1, first.height & ~1
            encoder.pix_fmt = "yuv420p"
            encoder.codec_context.time_base = stream.time_base
            origin = first.pts
            frame: VideoFrame | None = first
            while frame is not None:
                shown = frame.reformat(encoder.width, encoder.height, "yuv420p")
                assert frame.pts is not None
                assert origin is not None
                shown.pts = frame.pts - origin
                shown.time_base = stream.time_base
                shown.pict_type = 0  # the encoder chooses its own key frames
                target.mux(encoder.encode(shown))
                frame = next(frames, None)
            target.mux(encoder.encode(None))
    except FFmpegError as error:
        raise InvalidArgumentError(
            f"video(): FFmpeg cannot convert the content: {error}"
        ) from error
    return buffer.getvalue()


def _checked_clip(clip: tuple[float, float] | None) -> tuple[float, float]:
    if clip is None:
        return 0.0, math.inf
    try:
        start, end = map(float, clip)
    except (TypeError, ValueError):
        start = end = math.nan
    if not 0 <= start < end:
        raise InvalidArgumentError(
            f"video(clip={clip!r}): a clip is its start and end in seconds, from 0 up"
        )
    return start, end


def _chosen(
    source: InputContainer,
    stream: VideoStream,
    start: float,
    end: float,
    fps: float | None,
) -> Iterator[VideoFrame]:
    """The frames from the start to before the end, the first one of each ``1 / fps`` seconds."""
    assert stream.time_base is not None
    stream.thread_type = "AUTO"
    origin = stream.start_time or 0
    if start:
        source.seek(origin + int(start / stream.time_base), stream=stream)
    due = 0.0
    for frame in source.decode(stream):
        if frame.pts is None:
            continue
        time = float((frame.pts - origin) * stream.time_base)
        if time >= end:
            return
        since = time - start + _EARLY
        if since < due:
            continue
        if fps is not None:
            due = (math.floor(since * fps) + 1) / fps
        yield frame


def _upright(frame: VideoFrame) -> VideoFrame:
    """A frame as a player shows it, as the turn is told beside the frames and gets lost."""
    quarters = round(frame.rotation / 90) % 4  # against the clock
    if not quarters:
        return frame
    import numpy as np
    from av import VideoFrame

    pixels: NDArray[np.uint8] = np.rot90(frame.to_ndarray(format="rgb24"), quarters)
    turned = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    turned.pts = frame.pts
    return turned
