"""Stand-ins for the hosted classifiers of images: tags for what was measured, and for no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import PIL.Image

from clarigrpc import v2
from clarigrpc.local.models.face_detection import FaceDetection
from clarigrpc.local.models.image_measures import BASIC_COLORS, ImageMeasures, ramp
from clarigrpc.local.models.image_models import ImageModel
from clarigrpc.local.models.model_runtime import limit_concepts

_DECODED_SIDE = 512
"""Enough for faces and for the measures."""

DEFAULT_MAX_CONCEPTS = 20
"""Tags of an output where the request does not say how many, as from the service."""


@dataclass(frozen=True)
class ImageTag:
    """One tag.

    Attributes:
        id: Id of its concept.
        group: What it tells about.
        meaning: What its value is, in a sentence for the documentation.
        value: Computes it, 0 to 1, from the measures and the values of the faces found.
    """

    id: str
    group: str
    meaning: str
    value: Callable[[ImageMeasures, list[float]], float]

    @property
    def name(self) -> str:
        """Name of its concept."""
        return self.id.replace("-", " ")


def _of(measure: Callable[[ImageMeasures], float]) -> Callable[[ImageMeasures, list[float]], float]:
    """A value for which faces do not count."""
    return lambda measures, faces: measure(measures)


def _night_like(m: ImageMeasures) -> float:
    return ramp(m.share_darker(25), 0.5, 0.8) * (0.0005 <= m.share_lighter(75) <= 0.1)


def _outdoor_cues(m: ImageMeasures) -> float:
    return max(
        ramp(m.sky_like, 0.2, 0.6), ramp(m.vegetation_like, 0.2, 0.6), ramp(m.water_like, 0.3, 0.7)
    )


def _striped(m: ImageMeasures) -> float:
    return ramp(m.one_direction, 0.5, 0.9) * ramp(m.repetition, 0.1, 0.4)


IMAGE_TAGS = (
    # Format
    ImageTag(
        "landscape-format",
        "format",
        "1 if the image is more than 5 % wider than high, otherwise 0",
        _of(lambda m: float(m.width > 1.05 * m.height)),
    ),
    ImageTag(
        "portrait-format",
        "format",
        "1 if the image is more than 5 % higher than wide, otherwise 0",
        _of(lambda m: float(m.height > 1.05 * m.width)),
    ),
    ImageTag(
        "square-format",
        "format",
        "1 if width and height differ by at most 5 %, otherwise 0",
        _of(lambda m: float(max(m.width, m.height) <= 1.05 * min(m.width, m.height))),
    ),
    ImageTag(
        "panorama-format",
        "format",
        "1 if the image is at least twice as wide as high, otherwise 0",
        _of(lambda m: float(m.width >= 2 * m.height)),
    ),
    ImageTag(
        "transparent",
        "format",
        "Share of the area that is less than half opaque",
        _of(lambda m: m.transparent),
    ),
    # Colour
    *(
        ImageTag(
            name,
            "colour",
            f"Share of the area whose colour is nearer to {value} than to the other ten of these",
            _of(lambda m, name=name: m.basic_colors[name]),  # type: ignore[misc]
        )
        for name, value in BASIC_COLORS.items()
    ),
    ImageTag(
        "black-and-white",
        "colour",
        "From the chroma that 5 % of the area exceed: 1 up to 6, 0 from 20",
        _of(lambda m: ramp(m.most_chroma, 20, 6)),
    ),
    ImageTag(
        "colorful",
        "colour",
        "From the mean chroma: 0 up to 10, 1 from 50",
        _of(lambda m: ramp(m.mean_chroma, 10, 50)),
    ),
    ImageTag(
        "warm-colors",
        "colour",
        "Share of the area with a chroma of 10 or more and a hue from magenta over red to yellow "
        "(-30 to 110 degrees in CIELAB)",
        _of(lambda m: m.share_of_hues(-30, 110)),
    ),
    ImageTag(
        "cool-colors",
        "colour",
        "Share of the area with a chroma of 10 or more and a hue from green to blue "
        "(140 to 310 degrees in CIELAB)",
        _of(lambda m: m.share_of_hues(140, 310)),
    ),
    # Light
    ImageTag(
        "bright",
        "light",
        "From the mean lightness: 0 up to 50, 1 from 80",
        _of(lambda m: ramp(m.mean_lightness, 50, 80)),
    ),
    ImageTag(
        "dark",
        "light",
        "From the mean lightness: 1 up to 20, 0 from 45",
        _of(lambda m: ramp(m.mean_lightness, 45, 20)),
    ),
    ImageTag(
        "high-contrast",
        "light",
        "From the standard deviation of the lightness: 0 up to 15, 1 from 35",
        _of(lambda m: ramp(m.contrast, 15, 35)),
    ),
    ImageTag(
        "low-contrast",
        "light",
        "From the standard deviation of the lightness: 1 up to 8, 0 from 18",
        _of(lambda m: ramp(m.contrast, 18, 8)),
    ),
    ImageTag(
        "overexposed",
        "light",
        "Share of the area where red, green and blue are 250 or more",
        _of(lambda m: m.clipped_white),
    ),
    ImageTag(
        "underexposed",
        "light",
        "Share of the area where red, green and blue are 5 or less",
        _of(lambda m: m.clipped_black),
    ),
    # Scene
    ImageTag(
        "sky-like-area",
        "scene",
        "Share of the upper third that is smooth, and blue or bright grey short of white; a wall "
        "can be, too",
        _of(lambda m: m.sky_like),
    ),
    ImageTag(
        "vegetation-like-area",
        "scene",
        "Share of the area that is green and not quite smooth; painted things can be, too",
        _of(lambda m: m.vegetation_like),
    ),
    ImageTag(
        "water-like-area",
        "scene",
        "Share of the lower half that is blue or blue-green; a blue floor is, too",
        _of(lambda m: m.water_like),
    ),
    ImageTag(
        "outdoor-cues",
        "scene",
        "The highest of three: sky-like and vegetation-like area, 0 up to 0.2 and 1 from 0.6, and "
        "water-like area, 0 up to 0.3 and 1 from 0.7",
        _of(_outdoor_cues),
    ),
    ImageTag(
        "no-outdoor-cues",
        "scene",
        "1 less the value of outdoor-cues; an image of anything but sky, plants and water has it",
        _of(lambda m: 1 - _outdoor_cues(m)),
    ),
    ImageTag(
        "night-like",
        "scene",
        "From the share of the area with a lightness below 25: 0 up to 0.5, 1 from 0.8; 0 unless "
        "0.05 to 10 % of the area have a lightness above 75, as lights at night",
        _of(_night_like),
    ),
    # People
    ImageTag(
        "face",
        "people",
        "The highest value of the faces that `face-detection` finds, 0 without; it finds faces "
        "that look at the camera",
        lambda m, faces: faces[0] if faces else 0.0,
    ),
    ImageTag(
        "several-faces",
        "people",
        "The second highest of these values",
        lambda m, faces: faces[1] if len(faces) > 1 else 0.0,
    ),
    ImageTag(
        "no-face-found",
        "people",
        "1 if `face-detection` finds none, otherwise 0; there may be people all the same",
        lambda m, faces: float(not faces),
    ),
    ImageTag(
        "skin-like-area",
        "people",
        "Share of the area in the range of colours where skin of any tone lies (Cb 77 to 127, Cr "
        "133 to 173), and much wood and sand",
        _of(lambda m: m.skin_like),
    ),
    # Sharpness
    ImageTag(
        "sharp",
        "sharpness",
        "From the logarithm (base 10) of the variance of the lightness's Laplacian: 0 up to 0.8, "
        "1 from 2",
        _of(lambda m: ramp(m.detail, 0.8, 2.0)),
    ),
    ImageTag(
        "blurry",
        "sharpness",
        "1 less the value of sharp; an even surface is blurry, too",
        _of(lambda m: 1 - ramp(m.detail, 0.8, 2.0)),
    ),
    # Structure
    ImageTag(
        "plain-area",
        "structure",
        "Share of the blocks of 16 x 16 pixels whose lightness has a standard deviation below 2",
        _of(lambda m: m.plain),
    ),
    ImageTag(
        "busy",
        "structure",
        "From the mean change of the lightness between neighbouring pixels: 0 up to 2, 1 from 10",
        _of(lambda m: ramp(m.mean_steepness, 2, 10)),
    ),
    ImageTag(
        "text-like-area",
        "structure",
        "From the share of the blocks that have two tones in turns along their rows, as print has: "
        "0 up to 0.05, 1 from 0.4; it reads nothing, and fine patterns have it, too",
        _of(lambda m: ramp(m.text_like, 0.05, 0.4)),
    ),
    ImageTag(
        "repeating-pattern",
        "structure",
        "The highest correlation of the image with itself, moved along rows or columns, after the "
        "first minimum",
        _of(lambda m: m.repetition),
    ),
    ImageTag(
        "stripes",
        "structure",
        "Product of two: how far all edges have one direction, 0 up to 0.5 and 1 from 0.9, and "
        "repeating-pattern, 0 up to 0.1 and 1 from 0.4",
        _of(_striped),
    ),
    ImageTag(
        "mirror-symmetry",
        "structure",
        "Correlation of the lightness with that of the image mirrored left to right, 0 if negative",
        _of(lambda m: max(m.symmetry, 0.0)),
    ),
    ImageTag(
        "few-colors",
        "structure",
        "From the share of the area of the 8 most frequent colours (32 levels a channel): 0 up to "
        "0.5, 1 from 0.95, as in drawings and screenshots",
        _of(lambda m: ramp(m.common_colors, 0.5, 0.95)),
    ),
)
"""All tags. What they mean is documented from here, see ``model_tables``."""

TAG_GROUPS = tuple(dict.fromkeys(tag.group for tag in IMAGE_TAGS))


class ImageTagger(ImageModel):
    """Concepts for the tags of some groups, those with the highest values first.

    Args:
        groups: Groups of tags that it gives.
        faces: Finds the faces that tags of people need.
    """

    side: int | None = _DECODED_SIDE

    def __init__(self, groups: Iterable[str], faces: FaceDetection) -> None:
        wanted = frozenset(groups)
        self.tags = tuple(tag for tag in IMAGE_TAGS if tag.group in wanted)
        self._faces = faces if "people" in wanted else None

    def look(self, image: PIL.Image.Image, config: v2.OutputConfig) -> v2.Data:
        measures = ImageMeasures(image)
        found: list[float] = []
        if self._faces is not None:
            faces = self._faces.look(image, v2.OutputConfig())
            found = [region.value for region in faces.regions]
        values = [(min(max(tag.value(measures, found), 0.0), 1.0), tag) for tag in self.tags]
        concepts = [
            v2.Concept(id=tag.id, name=tag.name, value=value, app_id="main", user_id="clarifai")
            for value, tag in sorted(values, key=lambda pair: -pair[0])
            # What is not there is not worth a mention, unless it is asked for.
            if value > 0 or config.select_concepts
        ]
        kept = limit_concepts(concepts, config)
        if not (config.max_concepts or config.select_concepts):
            del kept[DEFAULT_MAX_CONCEPTS:]
        return v2.Data(concepts=kept)
