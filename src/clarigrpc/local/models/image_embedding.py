"""image-embedding: where an image has which colours and edges, as a vector."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local.media import media_content
from clarigrpc.local.models.color_recognition import to_lab
from clarigrpc.local.models.image_models import ImageModel

Vector: TypeAlias = NDArray[np.float32]

_EMBEDDED_SIDE = 64
_CELLS = 4
_DIRECTIONS = 8

IMAGE_EMBEDDING_LENGTH = _CELLS * _CELLS * (3 + _DIRECTIONS)
"""Length of a vector: for each cell of a grid a colour and a histogram of edge directions."""


def embed(image: PIL.Image.Image) -> Vector:
    """The vector of an image, of length 1.

    Colours are means in CIELAB, edges sums of gradients by direction; both are classical features,
    nothing is learned. Images that look alike in layout and colour come close.
    """
    small = media_content.as_rgb(image).resize(
        (_EMBEDDED_SIDE, _EMBEDDED_SIDE), PIL.Image.Resampling.BOX
    )
    pixels = np.asarray(small, float)
    lab = to_lab(pixels.reshape(-1, 3)).reshape(_EMBEDDED_SIDE, _EMBEDDED_SIDE, 3)
    size = _EMBEDDED_SIDE // _CELLS
    # Lightness around its middle, as the other two are around grey.
    colours = lab.reshape(_CELLS, size, _CELLS, size, 3).mean(axis=(1, 3)) / 100.0
    colours[..., 0] -= 0.5
    down, across = np.gradient(lab[..., 0])
    strength = np.hypot(down, across)
    turn = np.arctan2(down, across) % np.pi
    direction = np.minimum((turn / np.pi * _DIRECTIONS).astype(int), _DIRECTIONS - 1)
    edges = np.zeros((_CELLS, _CELLS, _DIRECTIONS))
    rows, columns = np.indices((_EMBEDDED_SIDE, _EMBEDDED_SIDE)) // size
    np.add.at(edges, (rows, columns, direction), strength)
    edges /= max(float(np.linalg.norm(edges)), 1e-9)
    vector = np.concatenate([colours.ravel() / _CELLS, edges.ravel()])
    return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)


class ImageEmbedding(ImageModel):
    """Gives the vector of an image in ``data.embeddings``."""

    def look(self, image: PIL.Image.Image, config: v2.OutputConfig) -> v2.Data:
        result = v2.Data()
        result.embeddings.add(vector=embed(image).tolist(), num_dimensions=IMAGE_EMBEDDING_LENGTH)
        return result
