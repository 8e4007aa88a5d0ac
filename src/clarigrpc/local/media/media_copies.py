"""Copies of media in several sizes, with their media types."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import NamedTuple

import PIL.Image

from clarigrpc import v2
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.media import media_content

ORIGINAL = "orig"
SIZES: Mapping[str, tuple[str, ...]] = {
    "image": (ORIGINAL, "tiny", "small", "large"),
    "video": (ORIGINAL, "thumbnail"),
    "audio": (ORIGINAL,),
    "text": (ORIGINAL,),
}
"""The sizes that the service names, by the kind of medium."""

# The longer side in pixels; the service does not say which it has.
_LONGEST_SIDES = {"tiny": 128, "small": 384, "thumbnail": 384, "large": 1024}

_UNKNOWN = "application/octet-stream"
# FFmpeg's names of containers that both start with, or are, one of these.
_CONTAINER_TYPES = {
    "mov": "video/mp4",
    "matroska": "video/x-matroska",
    "avi": "video/x-msvideo",
    "mpegts": "video/mp2t",
    "mpeg": "video/mpeg",
    "flv": "video/x-flv",
    "gif": "image/gif",
    "ogg": "application/ogg",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "aac": "audio/aac",
}


class MediaCopy(NamedTuple):
    """A file and its media type."""

    content: bytes
    media_type: str


def copy_of(content: bytes, data: v2.Data, kind: str, size: str, budget: ByteBudget) -> MediaCopy:
    """A medium in one of ``SIZES``; images are not enlarged.

    Raises:
        ServiceError: It cannot be decoded.
        BudgetFullError: Other calls hold the memory for it.
    """
    if size == ORIGINAL:
        return MediaCopy(content, _media_type(data, kind))
    side = _LONGEST_SIDES[size]
    if kind == "image":
        with media_content.open_image(content, budget, side=side) as image:
            return _small(image, side)
    with media_content.open_container(content) as container:
        stream = container.streams.video[0]
        with media_content.frame_memory(stream, budget):
            return _small(media_content.frame_image(next(container.decode(stream))), side)


def _small(image: PIL.Image.Image, side: int) -> MediaCopy:
    clear = "A" in image.getbands() or "transparency" in image.info
    image = image.convert("RGBA") if clear else media_content.as_rgb(image)
    image.thumbnail((side, side))
    file = io.BytesIO()
    kind = "PNG" if clear else "JPEG"
    image.save(file, kind)
    return MediaCopy(file.getvalue(), PIL.Image.MIME[kind])


def _media_type(data: v2.Data, kind: str) -> str:
    """As far as it is known since the content was decoded."""
    if kind == "image":
        return PIL.Image.MIME.get(data.image.image_info.format, _UNKNOWN)
    if kind == "text":
        return "text/plain; charset=utf-8"
    form = data.video.video_info.video_format or data.audio.audio_info.audio_format
    found = _CONTAINER_TYPES.get(form.partition(",")[0], _UNKNOWN)
    return found.replace("video/", "audio/") if kind == "audio" else found
