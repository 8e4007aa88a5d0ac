"""Pictures and videos of the tests: photographs of scikit-image, handwriting of scikit-learn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageColor


def encoded(image: PIL.Image.Image, kind: str = "PNG") -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.convert("RGB").save(file, kind)
    return file.getvalue()


@cache
def photograph(name: str) -> PIL.Image.Image:
    """A photograph: astronaut (with a face), coffee, chelsea (a cat), rocket, coins, brick."""
    from skimage import data

    return PIL.Image.fromarray(getattr(data, name)()).convert("RGB")


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()


def digit(number: int, index: int) -> bytes:
    """The picture ``index`` of those that people wrote of a digit, 32 pixels to a side."""
    digits = _digits()
    pixels = digits.images[np.flatnonzero(digits.target == number)[index]]
    grey = PIL.Image.fromarray((255 - pixels * 255 / 16).astype(np.uint8))
    return encoded(grey.resize((32, 32)))


def video(
    path: Path,
    scenes: Sequence[tuple[str | PIL.Image.Image, int]],
    *,
    fps: float = 10.0,
    codec: str = "mp4v",
) -> bytes:
    """A video of scenes, each a colour or an image with its number of frames."""
    import cv2

    size = (160, 120)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for scene, frames in scenes:
        if isinstance(scene, str):
            image = PIL.Image.new("RGB", size, PIL.ImageColor.getrgb(scene))
        else:
            image = scene.resize(size)
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        for _ in range(frames):
            writer.write(pixels)
    writer.release()
    return path.read_bytes()
