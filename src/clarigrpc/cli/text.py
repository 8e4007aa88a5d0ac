"""Text of a response, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` without characters that control a terminal; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def first_sentence(text: str) -> str:
    """The first sentence of a comment."""
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]
