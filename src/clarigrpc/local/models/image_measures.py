"""What can be measured of a picture without having learned anything: light, colours, structure."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from clarigrpc.local.media import media_content
from clarigrpc.local.models.color_recognition import to_lab

MEASURED_SIDE = 256
"""Pixels of the longer side of what is measured; larger images are made as small as this."""

_BLOCK_SIDE = 16
"""Pixels to a side of the blocks that are judged one by one."""

BASIC_COLORS = {
    "black": "#000000",
    "blue": "#2050d0",
    "brown": "#704020",
    "gray": "#808080",
    "green": "#20a020",
    "orange": "#ff8000",
    "pink": "#ff90b0",
    "purple": "#8020a0",
    "red": "#e01010",
    "white": "#ffffff",
    "yellow": "#ffe000",
}
"""The eleven basic colour terms, each with the colour that stands for it."""

_Numbers = NDArray[np.float64]
_Marks = NDArray[np.bool_]


def ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, and straight in between; ``high`` may be the lower."""
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _share(marks: Any) -> float:
    return float(np.mean(marks)) if marks.size else 0.0


class ImageMeasures:
    """The measures of one image, each taken when it is first asked for.

    Args:
        image: The image, turned as a viewer shows it.
    """

    def __init__(self, image: PIL.Image.Image) -> None:
        self.width, self.height = image.size
        self._image = image

    @cached_property
    def _small(self) -> PIL.Image.Image:
        small = media_content.as_rgb(self._image)
        longer = max(small.size)
        if longer <= MEASURED_SIDE:
            return small
        width, height = (max(1, round(n * MEASURED_SIDE / longer)) for n in small.size)
        return small.resize((width, height), PIL.Image.Resampling.BOX)

    @cached_property
    def _rgb(self) -> _Numbers:
        return np.asarray(self._small, float)

    @cached_property
    def _lab(self) -> _Numbers:
        return to_lab(self._rgb.reshape(-1, 3)).reshape(self._rgb.shape)

    @cached_property
    def _lightness(self) -> _Numbers:
        light: _Numbers = self._lab[..., 0]
        return light

    @cached_property
    def _chroma(self) -> _Numbers:
        chroma: _Numbers = np.hypot(self._lab[..., 1], self._lab[..., 2])
        return chroma

    @cached_property
    def _hsv(self) -> tuple[_Numbers, _Numbers, _Numbers]:
        """Hue in degrees, saturation and value from 0 to 1."""
        planes = np.asarray(self._small.convert("HSV"), float) / 255
        return planes[..., 0] * 360, planes[..., 1], planes[..., 2]

    @cached_property
    def _gradient(self) -> tuple[_Numbers, _Numbers]:
        """Change of the lightness from row to row, and from column to column."""
        light = self._lightness
        if min(light.shape) < 2:
            return np.zeros_like(light), np.zeros_like(light)
        return np.gradient(light, axis=0), np.gradient(light, axis=1)

    @cached_property
    def _steepness(self) -> _Numbers:
        steep: _Numbers = np.hypot(*self._gradient)
        return steep

    @cached_property
    def _blocks(self) -> _Numbers:
        """Lightness in whole blocks: (blocks, pixels of a block, pixels of a row of it)."""
        rows, columns = (n // _BLOCK_SIDE for n in self._lightness.shape)
        cut = self._lightness[: rows * _BLOCK_SIDE, : columns * _BLOCK_SIDE]
        blocks = cut.reshape(rows, _BLOCK_SIDE, columns, _BLOCK_SIDE).swapaxes(1, 2)
        return blocks.reshape(-1, _BLOCK_SIDE, _BLOCK_SIDE)

    # Light

    @cached_property
    def mean_lightness(self) -> float:
        """Mean of CIELAB's lightness, 0 to 100."""
        return float(self._lightness.mean())

    @cached_property
    def contrast(self) -> float:
        """Standard deviation of the lightness."""
        return float(self._lightness.std())

    def share_lighter(self, lightness: float) -> float:
        """Share of the area that is lighter than that."""
        return _share(self._lightness > lightness)

    def share_darker(self, lightness: float) -> float:
        """Share of the area that is darker than that."""
        return _share(self._lightness < lightness)

    @cached_property
    def clipped_white(self) -> float:
        """Share of the area where red, green and blue are all 250 or more."""
        return _share((self._rgb >= 250).all(axis=-1))

    @cached_property
    def clipped_black(self) -> float:
        """Share of the area where red, green and blue are all 5 or less."""
        return _share((self._rgb <= 5).all(axis=-1))

    @cached_property
    def transparent(self) -> float:
        """Share of the area that is less than half opaque."""
        if not self._image.has_transparency_data:
            return 0.0
        alpha = np.asarray(self._image.convert("RGBA").getchannel("A"))
        return _share(alpha < 128)

    # Colours

    @cached_property
    def mean_chroma(self) -> float:
        """Mean distance of the colours from grey, in CIELAB."""
        return float(self._chroma.mean())

    @cached_property
    def most_chroma(self) -> float:
        """Distance from grey that only 5 % of the area exceed."""
        return float(np.percentile(self._chroma, 95))

    def share_of_hues(self, start: float, end: float) -> float:
        """Share of the area with a chroma of 10 or more and a CIELAB hue in that range of degrees.

        From red at about 30 over yellow at 100, green at 140 and blue at 300 degrees; ``start``
        may be negative.
        """
        hue = np.degrees(np.arctan2(self._lab[..., 2], self._lab[..., 1]))
        return _share((self._chroma >= 10) & ((hue - start) % 360 <= end - start))

    @cached_property
    def basic_colors(self) -> dict[str, float]:
        """Share of the area for each basic colour, to the nearest of which each pixel counts."""
        known = [tuple(bytes.fromhex(value[1:])) for value in BASIC_COLORS.values()]
        references = to_lab(np.array(known, float))
        pixels = self._lab.reshape(-1, 3)
        # Of a squared distance without the part that is the same for every reference.
        distances = (references**2).sum(axis=1) - 2 * pixels @ references.T
        counts = np.bincount(distances.argmin(axis=1), minlength=len(known)) / len(pixels)
        return dict(zip(BASIC_COLORS, counts.tolist(), strict=True))

    @cached_property
    def common_colors(self) -> float:
        """Share of the area of the 8 most frequent colours, with 32 levels of each channel."""
        levels = (self._rgb.reshape(-1, 3) // 8).astype(np.intp)
        counts = np.bincount(levels @ np.array([1024, 32, 1]))
        return float(np.sort(counts)[-8:].sum() / len(levels))

    # What areas of nature and people often look like

    @cached_property
    def sky_like(self) -> float:
        """Share of the upper third that is blue or bright grey short of white, and smooth."""
        hue, saturation, value = self._hsv
        blue = (hue >= 180) & (hue <= 260) & (saturation >= 0.15) & (value >= 0.35)
        overcast = (saturation < 0.15) & (value >= 0.75) & (value < 0.98)  # paper is whiter
        smooth = self._steepness < 2
        return _share(((blue | overcast) & smooth)[: max(1, len(hue) // 3)])

    @cached_property
    def vegetation_like(self) -> float:
        """Share of the area that is green, and uneven as leaves are."""
        hue, saturation, value = self._hsv
        green = (hue >= 60) & (hue <= 160) & (saturation >= 0.2) & (value >= 0.12)
        return _share(green & (self._steepness >= 0.5))

    @cached_property
    def water_like(self) -> float:
        """Share of the lower half that is blue or blue-green."""
        hue, saturation, value = self._hsv
        blue = (hue >= 165) & (hue <= 250) & (saturation >= 0.15) & (value >= 0.15)
        return _share(blue[len(hue) // 2 :])

    @cached_property
    def skin_like(self) -> float:
        """Share of the area in the range of colours in which human skin of any tone lies.

        Cb from 77 to 127 and Cr from 133 to 173 (Chai and Ngan, 1999), and not nearly grey. Wood,
        sand and much else lie there as well.
        """
        planes = np.asarray(self._small.convert("YCbCr"), float)
        _, blue, red = planes[..., 0], planes[..., 1], planes[..., 2]
        marks = (blue >= 77) & (blue <= 127) & (red >= 133) & (red <= 173)
        return _share(marks & (self._chroma >= 10))

    # Structure

    @cached_property
    def detail(self) -> float:
        """Logarithm to base 10 of the variance of the lightness's second derivative."""
        light = self._lightness
        if min(light.shape) < 3:
            return 0.0
        inner = light[1:-1, 1:-1]
        second = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * inner
        return float(np.log10(max(float(second.var()), 1e-6)))

    @cached_property
    def mean_steepness(self) -> float:
        """Mean change of the lightness from pixel to pixel."""
        return float(self._steepness.mean())

    @cached_property
    def plain(self) -> float:
        """Share of the blocks whose lightness varies by less than 2."""
        return _share(self._blocks.std(axis=(1, 2)) < 2)

    @cached_property
    def text_like(self) -> float:
        """Share of the blocks with two tones that take turns along the rows, as printed text has.

        At least 40 between the tones, 85 % of the pixels near one of them, the rarer tone on 8 to
        45 % of the block, and 1.5 changes in a row of 16 pixels.
        """
        blocks = self._blocks
        low, high = blocks.min(axis=(1, 2)), blocks.max(axis=(1, 2))
        spread = high - low
        relative = (blocks - low[:, None, None]) / np.maximum(spread, 1e-9)[:, None, None]
        two_toned = np.mean((relative < 0.35) | (relative > 0.65), axis=(1, 2))
        bright = relative > 0.5
        rarer = np.minimum(bright.mean(axis=(1, 2)), 1 - bright.mean(axis=(1, 2)))
        changes = (bright[:, :, 1:] != bright[:, :, :-1]).sum(axis=2).mean(axis=1)
        marks = (spread >= 40) & (two_toned >= 0.85) & (rarer >= 0.08) & (rarer <= 0.45)
        return _share(marks & (changes >= 1.5))

    @cached_property
    def one_direction(self) -> float:
        """Whether the edges run in one direction: 0 for all alike, 1 for one alone."""
        down, across = self._gradient
        strength = float((down**2 + across**2).sum())
        if strength < 1e-9:
            return 0.0
        # Doubled, opposite directions are the same.
        doubled = ((across + 1j * down) ** 2).sum()
        return float(abs(doubled) / strength)

    @cached_property
    def repetition(self) -> float:
        """How well the image fits itself, moved along its rows or columns, beyond the first gap.

        0 for not at all, 1 for a pattern that repeats exactly.
        """
        light = self._lightness - self._lightness.mean()
        energy = float((light**2).mean())
        if energy < 1e-6 or min(light.shape) < 16:
            return 0.0
        best = 0.0
        for axis in (0, 1):
            length = light.shape[axis]
            # Zeros behind it, so that it does not wrap; each shift by the area that overlaps.
            spectrum = np.fft.rfft(light, 2 * length, axis=axis)
            fits = np.fft.irfft((abs(spectrum) ** 2).sum(axis=1 - axis), 2 * length)
            shifts = np.arange(length // 2)
            fits = fits[: length // 2] / ((length - shifts) * light.shape[1 - axis] * energy)
            rising = np.flatnonzero(np.diff(fits) > 0)
            if rising.size:  # what is close to itself is alike in any image
                best = max(best, float(fits[rising[0] :].max()))
        return min(best, 1.0)

    @cached_property
    def symmetry(self) -> float:
        """Correlation of the lightness with its mirror image, left to right: -1 to 1."""
        light = self._lightness - self._lightness.mean()
        energy = float((light**2).sum())
        return float((light * light[:, ::-1]).sum() / energy) if energy > 1e-6 else 1.0
