"""Models of the type image-crop: the parts of an image that its regions mark, each as an image.

What it takes and gives is described at https://docs.clarifai.com/portal-guide/agent-system-operators/
(Image Cropper): ``data.image`` and regions in, ``regions[...].data.image`` out.
"""

from __future__ import annotations

import io
import math

import PIL.Image

from clarigrpc import v2
from clarigrpc.local.media import media_content
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

IMAGE_CROP_TYPE = "image-crop"

_MARGIN = "margin"
_EDGE = 1e-3  # pixels
_LONGEST_CROP_SIDE = 512
_MAX_CROPPED_PIXELS = 2_000_000
"""In all crops of an input together: a response holds those of 128 inputs."""


class ImageCrop(Runtime):
    """Crops an image to each of its regions; a crop has at most 512 pixels to a side.

    Args:
        margin: Size of a crop relative to its region, whose centre it keeps. What would lie outside
            of the image is cut off.
    """

    crops_regions = True

    def __init__(self, margin: float = 1.0) -> None:
        self._margin = margin

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        media_content.require_data(data)
        if not data.HasField("image"):
            raise ServiceError(
                StatusCode.INPUT_UNSUPPORTED_FORMAT, "this model needs data.image and its regions"
            )
        media_content.check(data)
        result = v2.Data()
        content = media_content.content_of(data, options.fetcher)
        left_over = _MAX_CROPPED_PIXELS
        with media_content.open_image(content, options.fetcher.budget) as image:
            for region in data.regions:
                if not options.is_active():
                    break
                box = self._box(region.region_info.bounding_box)
                corners = _pixels(box, image.size)
                if corners is None:
                    continue
                crop = media_content.as_rgb(image.crop(corners))
                crop.thumbnail((_LONGEST_CROP_SIDE, _LONGEST_CROP_SIDE))
                left_over -= crop.width * crop.height
                if left_over < 0:
                    raise ServiceError(
                        StatusCode.INPUT_OVER_LIMIT,
                        f"the crops have more than {_MAX_CROPPED_PIXELS} pixels together",
                    )
                made = result.regions.add(id=region.id, value=region.value)
                made.region_info.bounding_box.CopyFrom(box)
                made.data.image.base64 = _png(crop)
        return result

    def _box(self, box: v2.BoundingBox) -> v2.BoundingBox:
        """The region with its margin, inside the image."""
        middle_x, middle_y = (box.left_col + box.right_col) / 2, (box.top_row + box.bottom_row) / 2
        half_x = (box.right_col - box.left_col) / 2 * self._margin
        half_y = (box.bottom_row - box.top_row) / 2 * self._margin
        return v2.BoundingBox(
            left_col=max(0.0, middle_x - half_x),
            right_col=min(1.0, middle_x + half_x),
            top_row=max(0.0, middle_y - half_y),
            bottom_row=min(1.0, middle_y + half_y),
        )


def image_crop_of(version: v2.ModelVersion) -> ImageCrop:
    """The model that the settings of a version make.

    Raises:
        ServiceError: MODEL_INVALID_ARGUMENT where ``output_info.params.margin`` is no factor.
    """
    params = version.output_info.params.fields
    if _MARGIN not in params:
        return ImageCrop()
    margin = params[_MARGIN].number_value
    if not (0 < margin <= 100):
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT,
            f"output_info.params.{_MARGIN} must be a number above 0 and up to 100",
        )
    return ImageCrop(margin)


def _pixels(box: v2.BoundingBox, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Corners that hold the region; None where it has no area in the image."""
    sides = (box.left_col, box.top_row, box.right_col, box.bottom_row)
    if not all(map(math.isfinite, sides)) or sides[0] >= sides[2] or sides[1] >= sides[3]:
        return None
    width, height = size
    # Sides are floats of 32 bits: the edge of a pixel is hit only about.
    left, top = (math.floor(s * n + _EDGE) for s, n in zip(sides[:2], size, strict=True))
    right, bottom = (math.ceil(s * n - _EDGE) for s, n in zip(sides[2:], size, strict=True))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _png(image: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
