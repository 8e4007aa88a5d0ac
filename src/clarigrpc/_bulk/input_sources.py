"""Sources of inputs: a folder, a CSV file, a COCO data set.

Each is a generator of functions that make an input when it is its turn, so that a file is read
only then, and one that cannot be read fails alone.
"""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from clarigrpc import v2
from clarigrpc._bulk.input_report import FailedInput
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.media import PredictInput, audio, image, text, video

DeferredInput: TypeAlias = Callable[[], v2.Input]
"""A function that makes an input when the upload comes to it."""
InputValue: TypeAlias = PredictInput | DeferredInput | FailedInput
"""One input to upload: an input, a function that makes one, or a failure of an earlier upload."""
InputSource: TypeAlias = str | os.PathLike[str] | v2.Input | Iterable[InputValue]
"""What ``client.inputs.upload`` reads: the path of a folder or of a CSV file, or inputs."""
AsyncInputSource: TypeAlias = InputSource | AsyncIterable[InputValue]
"""The same for an ``AsyncClient``, which reads asynchronous iterables too."""

_SUFFIXES = {
    "image": ".jpg .jpeg .png .gif .bmp .webp .tif .tiff",
    "video": ".mp4 .mov .avi .mkv .webm .mpeg .mpg .m4v",
    "audio": ".wav .mp3 .flac .ogg .m4a .aac",
    "text": ".txt",
}
KINDS: Mapping[str, str] = {
    suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()
}
"""File name suffix -> kind of input."""

_MAKERS: Mapping[str, Callable[..., v2.Input]] = {"image": image, "video": video, "audio": audio}


def open_source(source: AsyncInputSource) -> Iterable[InputValue] | AsyncIterable[InputValue]:
    """The values of a source.

    Raises:
        FileNotFoundError: There is no such folder or file.
        InvalidArgumentError: The path is neither a folder nor a CSV file.
    """
    if isinstance(source, v2.Input):
        return [source]
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = Path(source)
    if path.is_dir():
        return from_folder(path)
    if path.suffix.lower() == ".csv":
        return from_csv(path)
    if not path.exists():
        raise FileNotFoundError(f"upload({os.fspath(source)!r}): there is no such folder or file")
    raise InvalidArgumentError(
        f"upload() reads a folder or a .csv file; for {path} alone use create(image(...))"
    )


def from_folder(
    path: str | os.PathLike[str],
    *,
    concepts_from_folders: bool = False,
    recursive: bool = True,
) -> Iterator[DeferredInput]:
    """The images, videos, audio and text files of a folder, by their suffixes.

    Files with other suffixes and hidden ones are left out. The order is that of the names. Each
    input keeps its path inside of the folder as ``filename`` in its metadata, which also keeps
    apart files of the same content.

    Args:
        path: The folder.
        concepts_from_folders: Whether the name of the folder that a file is in becomes its
            concept, as in data sets with one folder a class; not for files at the top.
        recursive: Whether to look into the folders inside.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    top = Path(path)
    if not top.is_dir():
        raise FileNotFoundError(f"from_folder({os.fspath(path)!r}): there is no such folder")
    return _walk(top, top, concepts_from_folders, recursive)


def _walk(top: Path, folder: Path, labelled: bool, recursive: bool) -> Iterator[DeferredInput]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if recursive:
                yield from _walk(top, path, labelled, recursive)
        elif (kind := KINDS.get(path.suffix.lower())) is not None:
            concepts = [folder.name] if labelled and folder != top else []
            metadata = {"filename": path.relative_to(top).as_posix()}
            yield partial(_from_file, kind, path, concepts=concepts, metadata=metadata)


def from_csv(
    path: str | os.PathLike[str], *, separator: str = "|", encoding: str = "utf-8-sig"
) -> Iterator[DeferredInput]:
    """The rows of a CSV file with a header line.

    Columns, of which each row fills one of the first three:

    - ``url``: where the service fetches the content; ``path``: a file, relative to the CSV's
      folder; ``text``: a text itself
    - ``kind``: ``image``, ``video``, ``audio`` or ``text``; by default from the suffix of path or
      URL, ``image`` for a URL without one
    - ``id``: the input's id; by default made from the content
    - ``concepts``: ids of concepts, with ``separator`` between them
    - ``metadata``: a JSON object

    Other columns are left out. A row that makes no sense fails alone.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidArgumentError: The header has none of the columns url, path and text.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"from_csv({os.fspath(path)!r}): there is no such file")
    with file.open(newline="", encoding=encoding) as lines:
        header = next(csv.reader(lines), [])
    if not {"url", "path", "text"} & set(header):
        raise InvalidArgumentError(f"{file} needs a header line with a column url, path or text")
    return _rows(file, separator, encoding)


def _rows(file: Path, separator: str, encoding: str) -> Iterator[DeferredInput]:
    with file.open(newline="", encoding=encoding) as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            where = f"{file.name}, line {reader.line_num}"
            yield partial(_from_row, dict(row), file.parent, separator, where)


def _from_row(row: Mapping[str, str | None], folder: Path, separator: str, where: str) -> v2.Input:
    given = {name: row[name] or "" for name in ("url", "path", "text") if row.get(name)}
    if len(given) != 1:
        raise InvalidArgumentError(f"{where}: fill one of the columns url, path and text")
    ((column, content),) = given.items()
    try:
        metadata = json.loads(row.get("metadata") or "{}")
    except ValueError as error:
        raise InvalidArgumentError(f"{where}: metadata is no JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InvalidArgumentError(f"{where}: metadata is no JSON object")
    labels = (row.get("concepts") or "").split(separator)
    options: dict[str, Any] = {
        "id": row.get("id") or "",
        "concepts": [label.strip() for label in labels if label.strip()],
        "metadata": metadata,
    }
    if column == "text":
        return text(content, **options)
    suffix = Path(urlsplit(content).path).suffix.lower()
    kind = row.get("kind") or KINDS.get(suffix, "image" if column == "url" else "")
    if kind not in _SUFFIXES:
        raise InvalidArgumentError(f"{where}: the kind is {kind!r}; give image, video, ...")
    if column == "path":
        return _from_file(kind, folder / content, **options)
    if kind == "text":
        result = text("", **options)
        result.data.text.url = content
        return result
    return _MAKERS[kind](content, **options)


def from_coco(
    annotations: str | os.PathLike[str], images: str | os.PathLike[str]
) -> Iterator[DeferredInput]:
    """The images of a COCO data set; the categories that appear in one are its concepts.

    Boxes and outlines are left out: they become annotations once the inputs are there. The file
    of annotations is read into memory.

    Args:
        annotations: The JSON file with ``images``, ``annotations`` and ``categories``.
        images: The folder that the file names in it are relative to.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidArgumentError: It is no COCO file.
    """
    try:
        content = json.loads(Path(annotations).read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        labels: dict[Any, dict[str, None]] = defaultdict(dict)
        for annotation in content["annotations"]:
            labels[annotation["image_id"]][names[annotation["category_id"]]] = None
        files = [(one["file_name"], list(labels[one["id"]])) for one in content["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"{os.fspath(annotations)} is no COCO file of annotations: {error!r}"
        ) from error
    folder = Path(images)
    return (
        partial(_from_file, "image", folder / name, concepts=found, metadata={"filename": name})
        for name, found in files
    )


def _from_file(kind: str, path: Path, **options: Any) -> v2.Input:
    if kind == "text":
        return text(path.read_text(encoding="utf-8"), **options)
    return _MAKERS[kind](path, **options)
