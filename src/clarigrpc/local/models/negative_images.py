"""Images that show nothing in particular, as negative examples for training."""

from __future__ import annotations

import numpy as np
import PIL.Image

_IMAGE_COUNT = 32
_PATCH_SIDE = 64


def images() -> list[PIL.Image.Image]:
    """Patches of chance colours, from very coarse to very fine; always the same ones."""
    chance = np.random.default_rng(0)
    found = []
    for _ in range(_IMAGE_COUNT):
        rows, columns = chance.integers(2, _PATCH_SIDE, 2)
        patches = chance.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        found.append(PIL.Image.fromarray(patches).resize((_PATCH_SIDE, _PATCH_SIDE)))
    return found
