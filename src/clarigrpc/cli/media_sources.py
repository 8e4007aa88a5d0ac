"""What the words of a command line name: files, folders, URLs, tables and standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from clarigrpc import audio, image, ingest, text, v2, video
from clarigrpc._bulk.input_sources import KIND_BY_SUFFIX, SourceInput
from clarigrpc.errors import InvalidArgumentError

STDIN = "-"
INPUT_KINDS = ("image", "video", "audio", "text")

_READERS: Mapping[str, Callable[..., v2.Input]] = {"image": image, "video": video, "audio": audio}

kind_option = click.option(
    "--kind",
    type=click.Choice(INPUT_KINDS),
    help="What files, URLs and standard input are.  [default: by the suffix of the name; standard "
    "input is a text if it is UTF-8, else an image]",
)


def inputs_of(
    words: Iterable[str],
    texts: Iterable[str] = (),
    *,
    kind: str | None = None,
    concepts_from_folders: bool = False,
) -> Iterator[SourceInput]:
    """Functions that make the inputs that words name, each with its source.

    Args:
        words: Files, folders, CSV and JSON Lines files, URLs, and ``-`` for standard input.
        texts: Texts.
        kind: What files, URLs and standard input are. None: by the suffix.
        concepts_from_folders: Whether the name of a file's folder is its concept.
    """
    for word in words:
        path = Path(word)
        if word == STDIN:
            yield SourceInput(partial(_from_stdin, kind), "standard input")
        elif "://" in word or word.startswith("data:"):
            yield SourceInput(partial(_READERS[_kind_of_url(word, kind)], word), word)
        elif path.is_dir():
            found = ingest.from_folder(word, concepts_from_folders=concepts_from_folders)
            yield from _named(found)
        elif kind is None and path.suffix.lower() in (".csv", ".jsonl"):
            table = ingest.from_csv if path.suffix.lower() == ".csv" else ingest.from_json
            yield from _named(table(path))
        else:
            shown = os.fsencode(word).decode(errors="backslashreplace")
            yield SourceInput(partial(_from_file, kind, path), shown)
    for index, one in enumerate(texts, 1):
        yield SourceInput(partial(text, one), f"text {index}")


def media_of(kind: str, word: str) -> v2.Input:
    """The input of a kind that one file or URL is.

    Raises:
        OSError: The file cannot be read.
        InvalidArgumentError: It is empty or no URL that the service fetches.
    """
    if kind == "text":
        return text(_read_text(word))
    return _READERS[kind](word)


def _read_text(word: str) -> str:
    try:
        return Path(word).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"{word} is not UTF-8 text") from None


def _named(values: Iterable[Any]) -> Iterator[SourceInput]:
    for value in values:
        assert isinstance(value, SourceInput)
        yield value


def _kind_of_url(url: str, kind: str | None) -> str:
    found = kind or KIND_BY_SUFFIX.get(Path(urlsplit(url).path).suffix.lower(), "image")
    if found == "text":
        raise click.UsageError(f"{url}: a text cannot be given as a URL; download it first")
    return found


def _from_file(kind: str | None, path: Path) -> v2.Input:
    found = kind or KIND_BY_SUFFIX.get(path.suffix.lower(), "image")
    if found == "text":
        try:
            return text(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise InvalidArgumentError(f"{path} is not UTF-8 text") from None
    return _READERS[found](path)


def _from_stdin(kind: str | None) -> v2.Input:
    content = sys.stdin.buffer.read()
    if kind in (None, "text"):
        try:
            return text(content.decode("utf-8-sig"))
        except UnicodeDecodeError:
            if kind is not None:
                raise
    return _READERS[kind or "image"](content)
