"""Images of Pillow and arrays as PNG files that look as a viewer shows them.

Pixels are turned as the EXIF orientation says, colour spaces that PNG does not have become RGB, and
samples of more than 8 bits are scaled by their range. What cannot be converted without a guess is
refused.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from clarigrpc._extras import NeedsExtra
from clarigrpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    import PIL.Image

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
_SIXTEEN_BITS = 65_535


def encode_png(picture: Any) -> bytes:
    """A PNG file of an image of Pillow.

    Raises:
        InvalidArgumentError: The image has no pixels, cannot be read, or has a mode or samples
            that have no obvious form of 8 bits.
    """
    from PIL import Image, ImageOps

    if 0 in picture.size:
        raise InvalidArgumentError(f"image(): a picture of {picture.width} x {picture.height}")
    try:
        turned = ImageOps.exif_transpose(picture)
        shown = _with_writable_mode(turned)
        buffer = BytesIO()
        # The profile of another colour space would be wrong for converted pixels.
        kept = turned.info.get("icc_profile") if shown is turned else None
        shown.save(buffer, format="PNG", icc_profile=kept)
    except InvalidArgumentError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidArgumentError(
            f"image(): a picture of mode {picture.mode!r} cannot be sent: {error}"
        ) from error
    return buffer.getvalue()


def _with_writable_mode(picture: PIL.Image.Image) -> PIL.Image.Image:
    mode = picture.mode
    if mode in _WRITABLE:
        return picture
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
