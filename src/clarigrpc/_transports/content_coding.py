"""The content coding of an HTTP body, undone in pieces of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

ACCEPTED_CODINGS = "gzip, deflate"
"""Value of ``accept-encoding`` for what is read with ``BodyDecoder``."""

_PIECE_BYTES = 1 << 20


class BodyDecoder:
    """Undoes at most one content coding.

    A few bytes can unfold to gigabytes, and in several layers to as much as one likes: several
    codings are refused, and what comes out is handed on piece by piece, so that the caller can
    stop at its limit.

    Args:
        codings: The ``content-encoding`` header; empty for none.

    Raises:
        ValueError: A coding that was not asked for.
    """

    def __init__(self, codings: str) -> None:
        named = [coding for one in codings.lower().split(",") if (coding := one.strip())]
        # The header of the content tells gzip from zlib.
        self._unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._plain = named in ([], ["identity"])
        if not self._plain and named not in (["gzip"], ["x-gzip"], ["deflate"]):
            raise ValueError(f"the content encoding {codings[:100]!r} was not asked for")

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """The content of a chunk of the body.

        Raises:
            ValueError: It is not of the coding.
        """
        if self._plain:
            yield chunk
            return
        try:
            while chunk:
                yield self._unpacking.decompress(chunk, _PIECE_BYTES)
                chunk = self._unpacking.unconsumed_tail
        except zlib.error as error:
            raise ValueError(f"the compressed content cannot be read: {error}") from error
