"""color-recognition: the dominant colours of an image, with their named web colours."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageColor
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local import media
from clarigrpc.local.core import ServiceError
from clarigrpc.local.runtime import Options, Runtime, limit_concepts

_SIDE = 64
_MOST_COLORS = 16
_MIN_SHARE = 0.01
_APART = 15.0  # least distance in CIELAB between two colours of a result

_NAMES = """
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

W3C_NAMES = tuple(_NAMES.split())
"""Names of the web colours that concepts are made of."""

_Floats = NDArray[np.float64]


def to_lab(rgb: _Floats) -> _Floats:
    """sRGB rows of 0 to 255 as CIELAB, in which distance is what the eye sees."""
    linear = rgb / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


_W3C_RGB = np.array([PIL.ImageColor.getrgb(name.lower())[:3] for name in W3C_NAMES], float)
_W3C_LAB = to_lab(_W3C_RGB)


def _hex(rgb: _Floats) -> str:
    red, green, blue = (round(float(channel)) for channel in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"


def dominant_colors(image: PIL.Image.Image) -> list[v2.Color]:
    """The colours of an image, by share, largest first; colours that look alike are one.

    Transparent pixels do not count. The shares of all colours, the dropped ones of less than
    1 % included, add up to 1.
    """
    rgba = image.convert("RGBA")
    rgba.thumbnail((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    pixels = np.asarray(rgba).reshape(-1, 4)
    seen = pixels[pixels[:, 3] >= 128][:, :3].astype(np.int64)
    if not len(seen):
        raise ServiceError(v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, "the image is transparent")
    # Boxes of 16 levels a channel, each with its own mean: coarse enough to count, fine enough
    # that no two colours that look different share one.
    boxes = (seen >> 4) @ np.array([256, 16, 1])
    counts = np.bincount(boxes, minlength=4096).astype(float)
    sums = np.stack([np.bincount(boxes, seen[:, c], 4096) for c in range(3)], axis=1)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    counts, sums = counts[order], sums[order]
    lab = to_lab(sums / counts[:, np.newaxis])
    centers = [0]
    for index in range(1, len(lab)):
        if len(centers) == _MOST_COLORS:
            break
        if np.min(np.linalg.norm(lab[centers] - lab[index], axis=1)) >= _APART:
            centers.append(index)
    distances = np.linalg.norm(lab[:, np.newaxis] - lab[centers][np.newaxis], axis=2)
    group = np.argmin(distances, axis=1)
    shares = np.bincount(group, counts) / counts.sum()
    weights = np.bincount(group, counts)[:, np.newaxis]
    means: _Floats = np.stack([np.bincount(group, sums[:, c]) for c in range(3)], axis=1) / weights
    nearest = np.argmin(
        np.linalg.norm(to_lab(means)[:, np.newaxis] - _W3C_LAB[np.newaxis], axis=2), axis=1
    )
    colors = []
    for index in np.argsort(-shares, kind="stable"):
        if shares[index] < _MIN_SHARE:
            break
        color = v2.Color(raw_hex=_hex(means[index]), value=shares[index])
        color.w3c.hex = _hex(_W3C_RGB[nearest[index]])
        color.w3c.name = W3C_NAMES[nearest[index]]
        colors.append(color)
    return colors


class ColorRecognition(Runtime):
    """Colours of an image, and a concept for each web colour with its whole share."""

    def predict(self, data: v2.Data, options: Options) -> v2.Data:
        if not data.HasField("image"):
            raise ServiceError(
                v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, "color-recognition needs data.image"
            )
        media.check(data)
        content = media.content_of(data, options.fetcher)
        colors = dominant_colors(media.open_image(content, side=_SIDE))
        shares: dict[str, float] = {}
        for color in colors:
            shares[color.w3c.name] = shares.get(color.w3c.name, 0.0) + color.value
        concepts = [
            v2.Concept(id=name.lower(), name=name, value=share, app_id="main", user_id="clarifai")
            for name, share in sorted(shares.items(), key=lambda item: -item[1])
        ]
        return v2.Data(colors=colors, concepts=limit_concepts(concepts, options.output_config))
