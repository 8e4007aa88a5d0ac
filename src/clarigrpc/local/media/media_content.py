"""Content of inputs: which there is, and what can be said about it."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import PIL.Image

from clarigrpc import v2
from clarigrpc._pictures import PROGRAM, turned_upright
from clarigrpc.local.byte_budget import BudgetFullError, ByteBudget, Held
from clarigrpc.local.media.url_fetching import Fetcher, check_url
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Of a number in 32 bits with a sign.
_INT32_MAX = 2**31 - 1

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: 400 MB of memory."""
_BYTES_PER_PIXEL = 4

MAX_FRAME_PIXELS = 36_000_000
"""Largest frame of a video that is decoded, in pixels: somewhat more than 8K."""
_BYTES_PER_FRAME_PIXEL = 16
"""A decoder keeps several frames to predict the next one."""

DECODE_SECONDS = 30.0
"""Time to decode an image, or to find out what a video or a sound file is."""

MAX_TEXT_BYTES = 8 << 20
"""Longest text of an input, in bytes of UTF-8."""

MEDIA_KINDS: tuple[Literal["image", "video", "audio", "text"], ...] = (
    "image",
    "video",
    "audio",
    "text",
)


def kind_of(data: v2.Data) -> str:
    """Which kind of content the data carries: image, video, audio or text.

    Raises:
        ServiceError: INPUT_INVALID_ARGUMENT (30104) for none, or more than one at once.
    """
    kinds = [kind for kind in MEDIA_KINDS if data.HasField(kind)]
    if len(kinds) != 1:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            "set one of data.image, data.video, data.audio and data.text",
        )
    return kinds[0]


def require_data(data: v2.Data) -> None:
    """Raises ServiceError INPUT_INVALID_ARGUMENT (30104) for data that has nothing."""
    if not data.ListFields():
        raise ServiceError(StatusCode.INPUT_INVALID_ARGUMENT, "the input has no data")


def url_of(data: v2.Data) -> str:
    """The URL of the content, empty where the bytes are inline."""
    return data.image.url or data.video.url or data.audio.url or data.text.url


def check(data: v2.Data) -> str:
    """Checks that the data carries content in one way; returns its kind.

    Raises:
        ServiceError: INPUT_INVALID_ARGUMENT (30104) for content that is missing or ambiguous,
            INPUT_INVALID_URL (30106) for a URL that cannot be.
    """
    kind = kind_of(data)
    url = url_of(data)
    if bool(url) == bool(inline(data)):
        name = "raw" if kind == "text" else "base64"
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT, f"set either data.{kind}.url or .{name}"
        )
    if url:
        check_url(url)
    return kind


def inline(data: v2.Data) -> bytes:
    """The bytes that the data itself carries."""
    return data.image.base64 or data.video.base64 or data.audio.base64 or data.text.raw.encode()


def content_of(data: v2.Data, fetcher: Fetcher) -> bytes:
    """The bytes of the content; downloads them where the data has a URL."""
    url = url_of(data)
    return fetcher.get(url) if url else inline(data)


class TimedBytes(io.BytesIO):
    """The bytes of a file, which can be read for some time only: decoders then give up.

    Args:
        content: The bytes.
        seconds: How long they can be read.
    """

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(content)
        self._end = time.monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise DecodingTooSlowError
        return super().read(size)


class DecodingTooSlowError(Exception):
    """A file takes too long to be decoded."""


@contextmanager
def open_image(
    content: bytes, budget: ByteBudget, *, side: int | None = None
) -> Iterator[PIL.Image.Image]:
    """Decodes an image file and turns it as its EXIF orientation says.

    Args:
        content: The file.
        budget: Gives the memory of the pixels, while the context is open.
        side: Size in pixels that is enough; a JPEG is then decoded to no more than it needs.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101) for what is no image or a broken one,
            INPUT_OVER_LIMIT (30105) for too many pixels, or for too long a time to decode them.
        BudgetFullError: Other calls hold the memory.
    """
    with ExitStack() as held:
        try:
            image: PIL.Image.Image = PIL.Image.open(TimedBytes(content, DECODE_SECONDS))
            if (image.format or "").lower() == PROGRAM:
                raise ValueError("Pillow would have another process run it")  # noqa: TRY301
            _check_pixels(image)
            if side is not None:
                image.draft("RGB", (side, side))
            held.enter_context(budget.take(image.width * image.height * _BYTES_PER_PIXEL))
            image.load()
            file_format = image.format
            image = turned_upright(image)
            image.format = file_format
        except (ServiceError, BudgetFullError):
            raise
        except DecodingTooSlowError as error:
            raise ServiceError(
                StatusCode.INPUT_OVER_LIMIT,
                f"the image takes more than {DECODE_SECONDS:g} s to decode",
            ) from error
        except Exception as error:
            # Pillow's decoders raise whatever a malformed file leads them to.
            raise ServiceError(
                StatusCode.INPUT_UNSUPPORTED_FORMAT,
                "the content is not an image that can be decoded",
            ) from error
        yield image


def _check_pixels(image: PIL.Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT,
            f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels",
        )


def check_text_size(size: int) -> None:
    """Raises ServiceError INPUT_OVER_LIMIT (30105) for a text of more than MAX_TEXT_BYTES."""
    if size > MAX_TEXT_BYTES:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT,
            f"the text has {size} bytes; the maximum is {MAX_TEXT_BYTES}",
        )


def decode_text(content: bytes) -> str:
    """The text in UTF-8 bytes; ServiceError 30101 for others."""
    check_text_size(len(content))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ServiceError(StatusCode.INPUT_UNSUPPORTED_FORMAT, "the text is not UTF-8") from error


def as_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image with 8 bits for each of red, green and blue."""
    if image.mode.startswith("I;16"):
        # Pillow cannot convert these at once.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    return image.convert("RGB")


@contextmanager
def inspect(
    content: bytes, kind: str, data: v2.Data, budget: ByteBudget
) -> Iterator[PIL.Image.Image | None]:
    """Checks downloaded content and writes what it is into the data.

    Gives the decoded image, and None for other kinds.

    Raises:
        ServiceError: The content cannot be decoded.
        BudgetFullError: Other calls hold the memory for it.
    """
    if kind == "image":
        with open_image(content, budget) as image:
            data.image.image_info.width = image.width
            data.image.image_info.height = image.height
            data.image.image_info.format = image.format or ""
            data.image.image_info.color_mode = image.mode
            data.image.image_info.mode = image.mode
            yield image
        return
    if kind == "text":
        text = decode_text(content)
        data.text.text_info.char_count = len(text)
        data.text.text_info.encoding = "UTF8"
    elif kind == "video":
        _inspect_video(content, data.video.video_info, budget)
    else:
        _inspect_audio(content, data.audio.audio_info)
    yield None


_Turn = PIL.Image.Transpose
# Of a display matrix (ISO/IEC 14496-12, 6.2.2): x' = ax + cy, y' = bx + dy, with y downwards.
_TURNS = {
    (0, 1, -1, 0): _Turn.ROTATE_270,  # Pillow turns counterclockwise
    (-1, 0, 0, -1): _Turn.ROTATE_180,
    (0, -1, 1, 0): _Turn.ROTATE_90,
    (-1, 0, 0, 1): _Turn.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): _Turn.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): _Turn.TRANSPOSE,
    (0, -1, -1, 0): _Turn.TRANSVERSE,
}
_MATRIX = struct.Struct("=9i")


def frame_image(frame: VideoFrame) -> PIL.Image.Image:
    """The picture of a video frame, turned as the display matrix says.

    A matrix that is no turn by a multiple of 90 degrees, mirrored or not, changes nothing.
    """
    image: PIL.Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    turn = _turn(frame)
    return image if turn is None else image.transpose(turn)


def _turn(frame: VideoFrame) -> PIL.Image.Transpose | None:
    try:
        matrix: Any = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]
    except KeyError:
        return None
    if matrix.buffer_size != _MATRIX.size:
        return None
    a, b, _, c, d, *_ = _MATRIX.unpack(bytes(matrix))
    return _TURNS.get(tuple((value > 0) - (value < 0) for value in (a, b, c, d)))


# Playlists and the like are not among them: they would make FFmpeg open what they name.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,ogg,flv,gif,wav,mp3,flac,aac"


@contextmanager
def open_container(content: bytes, seconds: float | None = None) -> Iterator[InputContainer]:
    """Opens a video or audio file.

    Args:
        content: The file.
        seconds: How long it may be read; None for DECODE_SECONDS.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101), also for what fails to be read inside,
            INPUT_OVER_LIMIT (30105) for what takes too long.
    """
    seconds = DECODE_SECONDS if seconds is None else seconds
    import av
    from av.error import FFmpegError

    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    try:
        with av.open(TimedBytes(content, seconds), "r", options=options) as container:
            yield container
    except DecodingTooSlowError as error:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT, f"the content takes more than {seconds:g} s to decode"
        ) from error
    except (FFmpegError, ValueError, EOFError, StopIteration) as error:
        raise ServiceError(
            StatusCode.INPUT_UNSUPPORTED_FORMAT,
            "the content is not video or audio that can be decoded",
        ) from error


def frame_memory(stream: VideoStream, budget: ByteBudget) -> Held:
    """The memory that decoding the frames of a video takes.

    Raises:
        ServiceError: INPUT_OVER_LIMIT (30105) for frames of too many pixels.
        BudgetFullError: Other calls hold the memory.
    """
    pixels = stream.width * stream.height
    if pixels > MAX_FRAME_PIXELS:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT, f"a frame has more than {MAX_FRAME_PIXELS} pixels"
        )
    return budget.take(pixels * _BYTES_PER_FRAME_PIXEL)


def _inspect_video(content: bytes, info: v2.VideoInfo, budget: ByteBudget) -> None:
    with open_container(content) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        with frame_memory(stream, budget):
            first = next(container.decode(stream))
            info.width, info.height = frame_image(first).size
        info.fps = float(stream.average_rate or 0)
        info.video_format = container.format.name
        info.bit_rate = min(container.bit_rate, _INT32_MAX)
        info.frame_count = min(stream.frames, _INT32_MAX)
        info.duration_seconds = (container.duration or 0) / 1e6


def _inspect_audio(content: bytes, info: v2.AudioInfo) -> None:
    with open_container(content) as container:
        if not container.streams.audio:
            raise ValueError("it has no sound")
        stream = container.streams.audio[0]
        next(container.decode(stream))
        info.audio_format = container.format.name
        info.sample_rate = stream.rate
        info.bit_rate = min(container.bit_rate, _INT32_MAX)
        info.duration_seconds = (container.duration or 0) / 1e6
