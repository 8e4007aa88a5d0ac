"""Images of Pillow, arrays and image files as files that look as a viewer shows them.

Pixels are turned as the EXIF orientation says, colour spaces that the format does not have become
RGB, and samples of more than 8 bits are scaled by their range. What cannot be converted without a
guess is refused. Files can be made smaller on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from clarigrpc._extras import NeedsExtra
from clarigrpc.errors import ClarigrpcError, InvalidArgumentError

if TYPE_CHECKING:
    import PIL.Image

PictureFormat: TypeAlias = Literal["jpeg", "png", "webp"]
_PICTURE_FORMATS: tuple[PictureFormat, ...] = ("jpeg", "png", "webp")
_LOSSY = frozenset({"jpeg", "webp"})
_QUALITY = 85
"""Where photos show no blocks, and are half as large as at 95."""
_MOST_QUALITY = 100
_LONGEST_SIDE = {"jpeg": 65_535, "webp": 16_383}
"""Pixels, by the formats' own headers."""

_WRITABLE = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_CONVERTED = {
    "CMYK": "RGB",
    "HSV": "RGB",
    "La": "LA",
    "PA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
}
_GREY = frozenset({"1", "L", "LA"})
_SIXTEEN_BITS = 65_535
_ORIENTATION = 0x0112
"""Tag of EXIF."""


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """How a picture is sent.

    Args:
        max_side: Longest side in pixels; larger pictures are shrunk to it. None keeps their size.
        quality: Of JPEG and WebP, 1 to 100. None is 85.
        format: None keeps JPEG, PNG and WebP, and is PNG for the rest; with a quality, PNG becomes
            JPEG.

    Raises:
        InvalidArgumentError: A value is out of range, or PNG shall have a quality.
    """

    max_side: int | None = None
    quality: int | None = None
    format: PictureFormat | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("max_side", self.max_side, None),
            ("quality", self.quality, _MOST_QUALITY),
        ):
            if value is None:
                continue
            if type(value) is not int or value < 1 or (most and value > most):
                bounds = f"from 1 to {most}" if most else "of at least 1"
                raise InvalidArgumentError(
                    f"image({name}={value!r}): {name} has to be a whole number {bounds}"
                )
        if self.format is not None and self.format not in _PICTURE_FORMATS:
            raise InvalidArgumentError(
                f"image(format={self.format!r}): the formats are {', '.join(_PICTURE_FORMATS)}"
            )
        if self.format == "png" and self.quality is not None:
            raise InvalidArgumentError("image(quality=...): PNG has no quality, it loses nothing")

    def format_after(self, given: str) -> PictureFormat:
        """The format to send a picture in that is in another one, or in none ("")."""
        if self.format is not None:
            return self.format
        if given == "mpo":  # a JPEG file with further pictures behind the first
            given = "jpeg"
        for kept in _PICTURE_FORMATS:
            if kept == given and (kept in _LOSSY or self.quality is None):
                return kept
        return "png" if self.quality is None else "jpeg"


PROGRAM = "eps"
"""The format that Pillow has another process run, Ghostscript: not for what others sent."""


def fitted(content: bytes, options: PictureOptions) -> bytes:
    """An image file by these options: the file itself where it already is what they ask for.

    Raises:
        InvalidArgumentError: It is no picture that Pillow reads, or one that moves or has several
            pages and would have to be encoded.
    """
    with NeedsExtra("image", "image() with max_side, quality or format"):
        from PIL import Image

    unreadable = (
        "image() with max_side, quality or format: the content is no picture that Pillow reads"
    )
    with _decoding(unreadable):
        picture = Image.open(BytesIO(content))
    with picture:
        given = (picture.format or "").lower()
        if given == PROGRAM:
            raise InvalidArgumentError("image(): EPS is a program and no picture; convert it first")
        wanted = options.format_after(given)
        as_it_is = (given == "mpo" and wanted == "jpeg") or given == wanted
        if options.max_side is not None and max(picture.size) > options.max_side:
            as_it_is = False
        elif as_it_is and options.quality is None:
            return content
        with _decoding(unreadable):
            frames = getattr(picture, "n_frames", 1)
        if frames > 1 and given != "mpo":
            if as_it_is:
                return content
            raise InvalidArgumentError(
                f"image(): a {given.upper()} file of {frames} frames or pages cannot be shrunk or "
                "converted; take one of them with Pillow, or send it as it is"
            )
        encoded = encode(picture, options, given)
    return content if as_it_is and len(content) <= len(encoded) else encoded


def encode(picture: Any, options: PictureOptions, file_format: str = "") -> bytes:
    """An image file of an image of Pillow.

    Args:
        picture: The image.
        options: How it is sent.
        file_format: Format of the file that it was opened from for this alone, in lower case, so
            that its decoder may be told to skip what is not needed. Empty leaves it as it is.

    Raises:
        InvalidArgumentError: The image has no pixels, cannot be read, is too large for the format,
            or has a mode or samples that have no obvious form of 8 bits.
    """
    from PIL import Image

    if 0 in picture.size:
        raise InvalidArgumentError(f"image(): a picture of {picture.width} x {picture.height}")
    chosen = options.format_after(file_format)
    with _decoding(f"image(): a picture of mode {picture.mode!r} cannot be sent"):
        size = _size_within(picture.size, options.max_side)
        if size != picture.size and file_format in ("jpeg", "mpo"):
            # Halved, quartered or eighthed while it is decoded, in a fraction of the time.
            picture.draft(None, size)
        turned = turned_upright(picture)
        shown = _with_writable_mode(turned)
        # The profile of another colour space would be wrong for converted pixels.
        kept = turned.info.get("icc_profile") if shown is turned else None
        if size != picture.size:
            shown = _for_computing(shown).resize(
                size if turned.size == picture.size else size[::-1], Image.Resampling.LANCZOS
            )
        if chosen != "png":
            shown = _for_lossy(shown, chosen)
        if turned.mode in _GREY and (shown.mode not in _GREY or chosen == "webp"):
            kept = None  # WebP has no grey
        # Some versions of Pillow would copy metadata, with a turn that is done.
        written: dict[str, Any] = {"icc_profile": kept, "exif": b"", "xmp": b""}
        if chosen != "png":
            written["quality"] = _QUALITY if options.quality is None else options.quality
        buffer = BytesIO()
        shown.save(buffer, format=chosen.upper(), **written)
    return buffer.getvalue()


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Tell what a broken file makes a decoder raise.

    Args:
        what: Begins the text of the error.

    Raises:
        InvalidArgumentError: The block raised an error that is not the project's own.
    """
    from PIL import UnidentifiedImageError

    try:
        yield
    except (ClarigrpcError, ImportError):
        raise
    except UnidentifiedImageError as error:
        raise InvalidArgumentError(what) from error  # its text is an address in memory
    except Exception as error:  # decoders raise errors of any type, struct.error for one
        raise InvalidArgumentError(f"{what}: {error}") from error


def turned_upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A picture turned as its EXIF orientation says; itself where that says nothing.

    Only the orientation has to be readable; Pillow's ``exif_transpose`` fails on other broken tags.
    """
    from PIL import Image

    picture.load()
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - EXIF that is broken in any way; viewers show the pixels
        return picture
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    if not isinstance(orientation, int) or orientation not in turns:
        return picture
    return picture.transpose(turns[orientation])


def _size_within(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """The size of a picture with no side above the longest."""
    width, height = size
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    return (
        max(1, round(width * max_side / longest)),
        max(1, round(height * max_side / longest)),
    )


def _for_computing(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A picture with colours instead of indexes, and transparency as a channel."""
    if "transparency" in picture.info and picture.mode in ("1", "L", "P", "RGB"):
        return picture.convert("RGBA")
    if picture.mode == "P":
        return picture.convert("RGB")
    return picture.convert("L") if picture.mode == "1" else picture


def _for_lossy(picture: PIL.Image.Image, chosen: PictureFormat) -> PIL.Image.Image:
    """A picture in a mode of JPEG or WebP; JPEG shows what is transparent on white."""
    from PIL import Image

    if max(picture.size) > _LONGEST_SIDE[chosen]:
        raise InvalidArgumentError(
            f"image(format={chosen!r}): a picture of {picture.width} x {picture.height}; the "
            f"format has at most {_LONGEST_SIDE[chosen]} pixels a side: give max_side"
        )
    picture = _for_computing(picture)
    if chosen == "jpeg" and picture.mode in ("LA", "RGBA"):
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
        return opaque.convert("L" if picture.mode == "LA" else "RGB")
    return picture


def _with_writable_mode(picture: PIL.Image.Image) -> PIL.Image.Image:
    mode = picture.mode
    if mode in _WRITABLE:
        return picture
    if mode == "CMYK" and picture.info.get("icc_profile"):
        return _from_cmyk(picture)
    if mode in _CONVERTED:
        return picture.convert(_CONVERTED[mode])
    if mode == "LAB":
        return _from_lab(picture)
    if mode.startswith("I"):
        return _from_integers(picture)
    if mode == "F":
        return _from_floats(picture)
    raise InvalidArgumentError(
        f"image(): pictures of mode {mode!r} are not supported; convert it to RGB or L first"
    )


def _from_cmyk(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Inks as the profile of the file says that they look."""
    from PIL import ImageCms

    profile = BytesIO(picture.info["icc_profile"])
    try:
        converted = ImageCms.profileToProfile(
            picture,
            ImageCms.ImageCmsProfile(profile),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError):  # a broken profile, or one of another colour space
        return picture.convert("RGB")
    assert converted is not None
    return converted


def _from_lab(picture: PIL.Image.Image) -> PIL.Image.Image:
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return converted


def _from_integers(picture: PIL.Image.Image) -> PIL.Image.Image:
    import numpy as np

    return _grey(np.asarray(picture).astype(np.int64))


def _grey(samples: Any) -> PIL.Image.Image:
    """8 bits out of samples of 16."""
    from PIL import Image

    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > _SIXTEEN_BITS:
        raise InvalidArgumentError(
            f"image(): samples from {low} to {high}; give 8 or 16 bits (0 to 65535)"
        )
    return Image.fromarray(scaled(samples))


def scaled(samples: Any) -> Any:
    """Samples of 16 bits as an array of 8."""
    import numpy as np

    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_floats(picture: PIL.Image.Image) -> PIL.Image.Image:
    import numpy as np
    from PIL import Image

    return Image.fromarray(floats_as_bytes(np.asarray(picture)))


def floats_as_bytes(samples: Any) -> Any:
    """Samples from 0 to 1 as an array of 8 bits.

    Raises:
        InvalidArgumentError: A sample is not in that range.
    """
    import numpy as np

    low, high = float(samples.min()), float(samples.max())
    if not 0.0 <= low <= high <= 1.0:  # and no NaN
        raise InvalidArgumentError(
            f"image(): samples of type {samples.dtype} have to be from 0 to 1, not from {low:g} to "
            f"{high:g}"
        )
    return np.rint(samples * 255.0).astype(np.uint8)


def from_array(array: Any) -> PIL.Image.Image:
    """An image of Pillow with the samples of a NumPy array.

    Raises:
        InvalidArgumentError: The array has another shape, type or range.
    """
    if array.ndim not in (2, 3) or array.size == 0:
        raise InvalidArgumentError(
            "image() takes arrays of shape (height, width) or (height, width, 3 or 4), not "
            f"{array.shape}"
        )
    if array.ndim == 3 and array.shape[2] == 1:  # grey, as some libraries have it
        array = array[:, :, 0]
    with NeedsExtra("image", "an array as an image"):
        from PIL import Image
    kind = str(array.dtype)
    if kind == "uint16":
        array = scaled(array)
    elif kind == "bool":
        array = array.astype("uint8") * 255
    elif kind in ("float16", "float32", "float64"):
        array = floats_as_bytes(array)
    elif kind != "uint8":
        raise InvalidArgumentError(
            "image() takes arrays of dtype uint8, uint16, bool, or floats from 0 to 1, not "
            f"{array.shape} of {kind}"
        )
    try:
        return Image.fromarray(array)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"image(): an array of shape {array.shape}: {error}") from error
