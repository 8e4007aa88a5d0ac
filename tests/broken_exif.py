"""EXIF blocks that Pillow's ``exif_transpose`` fails on, or that are no EXIF."""

from __future__ import annotations

import struct

_EXIF = b"Exif\x00\x00"
_UNWRITABLE_EXIF = (
    # A place of pixels that no TIFF file may have, and "turn it right".
    _EXIF
    + b"II*\x00\x08\x00\x00\x00\x02\x00"
    + struct.pack("<HHIi", 0x0111, 8, 1, 0xFFFF)
    + struct.pack("<HHIi", 0x0112, 3, 1, 6)
    + bytes(4)
)

BROKEN_EXIF = (
    (_EXIF + b"no TIFF", False),
    (_EXIF + b"II*\x00\x08", False),
    (_UNWRITABLE_EXIF, True),
)
"""Each with whether its orientation (6, a quarter turn) can be read all the same."""
