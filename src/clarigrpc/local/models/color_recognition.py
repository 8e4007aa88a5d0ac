"""color-recognition: the dominant colours of an image, with their named web colours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import PIL.Image
import PIL.ImageColor
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local.media import media_content
from clarigrpc.local.models.image_models import ImageModel
from clarigrpc.local.models.model_runtime import limit_concepts
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_COUNTED_SIDE = 64
_MAX_COLORS = 16
_MIN_SHARE = 0.01
_APART = 15.0  # least distance in CIELAB between two colours of a result

_W3C_NAMES_TEXT = """
AliceBlue AntiqueWhite Aqua Aquamarine Azure Beige Bisque Black BlanchedAlmond Blue BlueViolet
Brown BurlyWood CadetBlue Chartreuse Chocolate Coral CornflowerBlue Cornsilk Crimson DarkBlue
DarkCyan DarkGoldenRod DarkGray DarkGreen DarkKhaki DarkMagenta DarkOliveGreen DarkOrange
DarkOrchid DarkRed DarkSalmon DarkSeaGreen DarkSlateBlue DarkSlateGray DarkTurquoise DarkViolet
DeepPink DeepSkyBlue DimGray DodgerBlue FireBrick FloralWhite ForestGreen Fuchsia Gainsboro
GhostWhite Gold GoldenRod Gray Green GreenYellow HoneyDew HotPink IndianRed Indigo Ivory Khaki
Lavender LavenderBlush LawnGreen LemonChiffon LightBlue LightCoral LightCyan
LightGoldenRodYellow LightGray LightGreen LightPink LightSalmon LightSeaGreen LightSkyBlue
LightSlateGray LightSteelBlue LightYellow Lime LimeGreen Linen Maroon MediumAquaMarine
MediumBlue MediumOrchid MediumPurple MediumSeaGreen MediumSlateBlue MediumSpringGreen
MediumTurquoise MediumVioletRed MidnightBlue MintCream MistyRose Moccasin NavajoWhite Navy
OldLace Olive OliveDrab Orange OrangeRed Orchid PaleGoldenRod PaleGreen PaleTurquoise
PaleVioletRed PapayaWhip PeachPuff Peru Pink Plum PowderBlue Purple RebeccaPurple Red RosyBrown
RoyalBlue SaddleBrown Salmon SandyBrown SeaGreen SeaShell Sienna Silver SkyBlue SlateBlue
SlateGray Snow SpringGreen SteelBlue Tan Teal Thistle Tomato Turquoise Violet Wheat White
WhiteSmoke Yellow YellowGreen
"""

W3C_NAMES = tuple(_W3C_NAMES_TEXT.split())
"""Names of the web colours that concepts are made of."""

_Float64s = NDArray[np.float64]


_TO_XYZ = (
    np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    / np.array([[0.95047], [1.0], [1.08883]])
).T
"""Linear RGB rows to XYZ rows, as parts of the white point D65."""


def to_lab(rgb: _Float64s) -> _Float64s:
    """sRGB rows of 0 to 255 as CIELAB, in which distance is what the eye sees."""
    linear = rgb / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


_W3C_RGB = np.array([PIL.ImageColor.getrgb(name.lower())[:3] for name in W3C_NAMES], float)
_W3C_LAB = to_lab(_W3C_RGB)
_W3C_LENGTHS = (_W3C_LAB**2).sum(axis=1)


def _hex(rgb: Iterable[float]) -> str:
    red, green, blue = map(round, rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"


_W3C_HEX = [_hex(rgb) for rgb in _W3C_RGB.tolist()]


def dominant_colors(image: PIL.Image.Image) -> list[v2.Color]:
    """The colours of an image, by share, largest first; colours that look alike are one.

    Transparent pixels do not count. The shares of all colours, the dropped ones of less than
    1 % included, add up to 1.
    """
    counts, means = _boxes(image)
    lab = np.ascontiguousarray(to_lab(means).T)
    # The commonest box is the first colour, and each box in turn that is far from all before.
    group = np.zeros(len(counts), np.intp)
    distance = ((lab - lab[:, :1]) ** 2).sum(axis=0)
    centers = 1
    for _ in range(_MAX_COLORS - 1):
        far = distance >= _APART**2
        index = int(far.argmax())
        if not far[index]:
            break
        other = ((lab - lab[:, index : index + 1]) ** 2).sum(axis=0)
        closer = other < distance
        group[closer] = centers
        distance[closer] = other[closer]
        centers += 1
    weights = np.bincount(group, counts, centers)
    sums = np.stack([np.bincount(group, counts * means[:, c]) for c in range(3)], axis=1)
    colors: _Float64s = sums / weights[:, np.newaxis]
    order = np.argsort(-weights, kind="stable")
    shares = weights[order] / counts.sum()
    order = order[shares >= _MIN_SHARE]
    # Of a squared distance without the part that is the same for every name.
    nearest = (_W3C_LENGTHS - 2 * to_lab(colors[order]) @ _W3C_LAB.T).argmin(axis=1).tolist()
    result = []
    for share, rgb, name in zip(shares.tolist(), colors[order].tolist(), nearest, strict=False):
        color = v2.Color(raw_hex=_hex(rgb), value=share)
        color.w3c.hex, color.w3c.name = _W3C_HEX[name], W3C_NAMES[name]
        result.append(color)
    return result


def _boxes(image: PIL.Image.Image) -> tuple[_Float64s, _Float64s]:
    """Pixels and mean colour of the boxes that the colours fall into, the fullest first.

    A box is 16 levels of each channel: coarse enough to count, fine enough that no two colours
    that look different share one.
    """
    small = image.convert("RGBA") if image.has_transparency_data else media_content.as_rgb(image)
    if small is image:
        small = image.copy()  # the next line works in place
    small.thumbnail((_COUNTED_SIDE, _COUNTED_SIDE), PIL.Image.Resampling.BOX)
    pixels = np.asarray(small).reshape(-1, len(small.getbands()))
    if pixels.shape[1] == 4:
        pixels = pixels[pixels[:, 3] >= 128]
    if not len(pixels):
        raise ServiceError(StatusCode.INPUT_UNSUPPORTED_FORMAT, "the image is fully transparent")
    red, green, blue = (np.ascontiguousarray(pixels[:, channel]) for channel in range(3))
    level = np.uint16(0xF0)
    boxes = ((red & level) << 4) | (green & level) | (blue >> 4)
    counts = np.bincount(boxes, minlength=4096)
    used = counts.nonzero()[0]
    used = used[np.argsort(-counts[used], kind="stable")]
    sums = [np.bincount(boxes, channel, 4096)[used] for channel in (red, green, blue)]
    counted = counts[used].astype(np.float64)
    return counted, np.stack(sums, axis=1) / counted[:, np.newaxis]


class ColorRecognition(ImageModel):
    """Colours of an image, and a concept for each web colour with its whole share."""

    side: int | None = _COUNTED_SIDE

    def look(self, image: PIL.Image.Image, config: v2.OutputConfig) -> v2.Data:
        colors = dominant_colors(image)
        shares: dict[str, float] = {}
        for color in colors:
            shares[color.w3c.name] = shares.get(color.w3c.name, 0.0) + color.value
        concepts = [
            v2.Concept(id=name.lower(), name=name, value=share, app_id="main", user_id="clarifai")
            for name, share in sorted(shares.items(), key=lambda item: -item[1])
        ]
        return v2.Data(colors=colors, concepts=limit_concepts(concepts, config))
