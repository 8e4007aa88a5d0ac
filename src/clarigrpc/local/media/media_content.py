"""Content of inputs: which there is, and what can be said about it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import PIL.Image
import PIL.ImageOps

from clarigrpc import v2
from clarigrpc.local.media.url_fetching import Fetcher, check_url
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

# Of a number in 32 bits with a sign.
_INT32_MAX = 2**31 - 1

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: 300 MB of memory."""

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


def open_image(content: bytes, *, side: int | None = None) -> PIL.Image.Image:
    """Decodes an image file and turns it as its EXIF orientation says.

    Args:
        content: The file.
        side: Size in pixels that is enough; a JPEG is then decoded to no more than it needs.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101) for what is no image or a broken one,
            INPUT_OVER_LIMIT (30105) for too many pixels.
    """
    try:
        image = PIL.Image.open(io.BytesIO(content))
        pixels = image.width * image.height
        if pixels <= MAX_PIXELS:
            if side is not None:
                image.draft("RGB", (side, side))
            image.load()
            # In place, since a copy has no format.
            PIL.ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:
        # Pillow's decoders raise whatever a malformed file leads them to.
        raise ServiceError(
            StatusCode.INPUT_UNSUPPORTED_FORMAT,
            "the content is not an image that can be decoded",
        ) from error
    if pixels > MAX_PIXELS:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT,
            f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels",
        )
    return image


def decode_text(content: bytes) -> str:
    """The text in UTF-8 bytes; ServiceError 30101 for others."""
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


def inspect(content: bytes, kind: str, data: v2.Data) -> PIL.Image.Image | None:
    """Checks downloaded content and writes what it is into the data.

    Returns:
        The decoded image, None for other kinds.

    Raises:
        ServiceError: The content cannot be decoded.
    """
    if kind == "image":
        image = open_image(content)
        data.image.image_info.width = image.width
        data.image.image_info.height = image.height
        data.image.image_info.format = image.format or ""
        data.image.image_info.color_mode = image.mode
        data.image.image_info.mode = image.mode
        return image
    if kind == "text":
        text = decode_text(content)
        data.text.text_info.char_count = len(text)
        data.text.text_info.encoding = "UTF8"
    elif kind == "video":
        _inspect_video(content, data.video.video_info)
    else:
        _inspect_audio(content, data.audio.audio_info)
    return None


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
def open_container(content: bytes) -> Iterator[InputContainer]:
    """Opens a video or audio file.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101), also for what fails to be read inside.
    """
    import av
    from av.error import FFmpegError

    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(content), "r", options=options) as container:
            yield container
    except (FFmpegError, ValueError, EOFError, StopIteration) as error:
        raise ServiceError(
            StatusCode.INPUT_UNSUPPORTED_FORMAT,
            "the content is not video or audio that can be decoded",
        ) from error


def _inspect_video(content: bytes, info: v2.VideoInfo) -> None:
    with open_container(content) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise ServiceError(
                StatusCode.INPUT_OVER_LIMIT, f"a frame has more than {MAX_PIXELS} pixels"
            )
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
