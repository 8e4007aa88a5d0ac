"""face-detection: frontal faces, by the Haar cascade that OpenCV ships."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from clarigrpc import v2
from clarigrpc.local.media import media_content
from clarigrpc.local.models.image_models import ImageModel

_SEARCHED_SIDE = 512
"""Larger images are made as small as this: the time grows with the area."""

_SMALLEST = 24
"""Pixels of the smallest face, to a side, in an image of that size."""

_NEIGHBOURS = 4
"""Overlapping hits that make a face; fewer are noise."""

_CASCADE = "haarcascade_frontalface_alt2.xml"


class FaceDetection(ImageModel):
    """A region for each face that looks at the camera, the surest first.

    The value of a region says how many overlapping windows agreed, as ``n / (n + 4)``: a face in a
    clear photograph comes above 0.8. It is no probability.
    """

    side: int | None = _SEARCHED_SIDE

    def __init__(self) -> None:
        # The cascade keeps state while it looks.
        self._lock = threading.Lock()

    @cached_property
    def _cascade(self) -> Any:
        import cv2

        return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / _CASCADE))

    def look(self, image: PIL.Image.Image, config: v2.OutputConfig) -> v2.Data:
        grey = media_content.as_rgb(image).convert("L")
        grey.thumbnail((_SEARCHED_SIDE, _SEARCHED_SIDE))
        with self._lock:
            boxes, counts = self._cascade.detectMultiScale2(
                np.asarray(grey),
                scaleFactor=1.1,
                minNeighbors=_NEIGHBOURS,
                minSize=(_SMALLEST, _SMALLEST),
            )
        result = v2.Data()
        for count, (left, top, width, height) in sorted(
            zip(np.ravel(counts).tolist(), np.reshape(boxes, (-1, 4)).tolist(), strict=True),
            reverse=True,
        ):
            value = count / (count + _NEIGHBOURS)
            if value < config.min_value:
                break
            region = result.regions.add(id=f"{len(result.regions)}", value=value)
            box = region.region_info.bounding_box
            box.left_col, box.right_col = left / grey.width, (left + width) / grey.width
            box.top_row, box.bottom_row = top / grey.height, (top + height) / grey.height
            region.data.concepts.add(
                id="face", name="face", value=value, app_id="main", user_id="clarifai"
            )
        return result
