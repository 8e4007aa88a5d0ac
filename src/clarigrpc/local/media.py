"""Content of inputs: which there is, and what can be said about it."""

from __future__ import annotations

import io
from typing import Literal

import PIL.Image

from clarigrpc import v2
from clarigrpc.local.core import ServiceError
from clarigrpc.local.fetch import Fetcher, check_url

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: 300 MB of memory."""

_KINDS: tuple[Literal["image", "video", "audio", "text"], ...] = ("image", "video", "audio", "text")


def kind_of(data: v2.Data) -> str:
    """Which kind of content the data carries: image, video, audio or text.

    Raises:
        ServiceError: INPUT_INVALID_ARGUMENT (30104) for none, or more than one at once.
    """
    kinds = [kind for kind in _KINDS if data.HasField(kind)]
    if len(kinds) != 1:
        raise ServiceError(
            v2.StatusCode.INPUT_INVALID_ARGUMENT,
            "set one of data.image, data.video, data.audio and data.text",
        )
    return kinds[0]


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
            v2.StatusCode.INPUT_INVALID_ARGUMENT, f"set either data.{kind}.url or .{name}"
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
    """Decodes an image file.

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
    except Exception as error:
        # Pillow's decoders raise whatever a malformed file leads them to.
        raise ServiceError(
            v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, "the bytes are no image that can be decoded"
        ) from error
    if pixels > MAX_PIXELS:
        raise ServiceError(
            v2.StatusCode.INPUT_OVER_LIMIT,
            f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels",
        )
    return image


def decode_text(content: bytes) -> str:
    """The text in UTF-8 bytes; ServiceError 30101 for others."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ServiceError(
            v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, "the text is not UTF-8"
        ) from error


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
    elif not content:
        raise ServiceError(v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, f"the {kind} is empty")
    return None
