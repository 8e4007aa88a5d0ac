"""Sources of inputs: a folder, a CSV file, a COCO dataset.

Each yields functions that make an input when it is about to be sent, so that a file is read only
then, and a file that cannot be read fails alone.
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
from clarigrpc._public_names import named_in
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.media import PredictInput, audio, image, text, video

DeferredInput: TypeAlias = Callable[[], v2.Input]
"""A function that makes an input; called when the upload reaches it."""
InputValue: TypeAlias = PredictInput | DeferredInput | FailedInput
"""An input, a function that makes one, or an input that failed in an earlier upload."""
InputSource: TypeAlias = str | os.PathLike[str] | v2.Input | Iterable[InputValue]
"""A source for ``client.inputs.upload``: the path of a folder or CSV file, or inputs."""
AsyncInputSource: TypeAlias = InputSource | AsyncIterable[InputValue]
"""A source for an ``AsyncClient``, which also accepts async iterables."""

_SUFFIXES = {
    "image": ".jpg .jpeg .png .gif .bmp .webp .tif .tiff",
    "video": ".mp4 .mov .avi .mkv .webm .mpeg .mpg .m4v",
    "audio": ".wav .mp3 .flac .ogg .m4a .aac",
    "text": ".txt",
}
KIND_BY_SUFFIX: Mapping[str, str] = {
    suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()
}
"""File name suffix -> content type: image, video, audio or text."""

_MAKERS: Mapping[str, Callable[..., v2.Input]] = {"image": image, "video": video, "audio": audio}


def open_input_source(
    source: AsyncInputSource,
) -> Iterable[InputValue] | AsyncIterable[InputValue]:
    """The values of a source.

    Raises:
        FileNotFoundError: The folder or file does not exist.
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
        raise FileNotFoundError(f"upload({os.fspath(source)!r}): no such file or folder")
    raise InvalidArgumentError(
        f"upload() takes a folder or a .csv file; to add {path} alone, use create(image(...))"
    )


@named_in("clarigrpc.ingest")
def from_folder(
    path: str | os.PathLike[str],
    *,
    concepts_from_folders: bool = False,
    recursive: bool = True,
) -> Iterator[DeferredInput]:
    """The image, video, audio and text files of a folder, selected by suffix.

    Hidden files and files with other suffixes are skipped. Files are sorted by name. The metadata
    of each input contains the path below the folder as ``filename``, so that files with equal
    content get different ids.

    Args:
        path: The folder.
        concepts_from_folders: Whether the name of a file's folder becomes its concept, as in
            datasets with a folder per class. Files directly in ``path`` get no concept.
        recursive: Whether to include subfolders.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    top = Path(path)
    if not top.is_dir():
        raise FileNotFoundError(f"from_folder({os.fspath(path)!r}): no such folder")
    return _walk(top, top, concepts_from_folders, recursive)


def _walk(top: Path, folder: Path, labelled: bool, recursive: bool) -> Iterator[DeferredInput]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if recursive:
                yield from _walk(top, path, labelled, recursive)
        elif (kind := KIND_BY_SUFFIX.get(path.suffix.lower())) is not None:
            concepts = [folder.name] if labelled and folder != top else []
            metadata = {"filename": path.relative_to(top).as_posix()}
            yield partial(_from_file, kind, path, concepts=concepts, metadata=metadata)


@named_in("clarigrpc.ingest")
def from_csv(
    path: str | os.PathLike[str], *, separator: str = "|", encoding: str = "utf-8-sig"
) -> Iterator[DeferredInput]:
    """The rows of a CSV file with a header line.

    Each row must have a value in exactly one of the columns ``url``, ``path`` and ``text``:

    - ``url``: URL from which the service fetches the content
    - ``path``: path of a file, relative to the folder of the CSV file
    - ``text``: a text
    - ``kind``: ``image``, ``video``, ``audio`` or ``text``; derived from the suffix of the path or
      URL if empty, ``image`` for a URL without a suffix
    - ``id``: id of the input; derived from the content if empty
    - ``concepts``: concept ids, separated by ``separator``
    - ``metadata``: a JSON object

    Other columns are ignored. An invalid row fails alone.

    Args:
        path: The CSV file.
        separator: Separator of the concept ids.
        encoding: Encoding of the file.

    Raises:
        FileNotFoundError: The file does not exist.
        InvalidArgumentError: The header has none of the columns url, path and text.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"from_csv({os.fspath(path)!r}): no such file")
    with file.open(newline="", encoding=encoding) as lines:
        header = next(csv.reader(lines), [])
    if not {"url", "path", "text"} & set(header):
        raise InvalidArgumentError(
            f"{file} must have a header line with a column url, path or text"
        )
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
        raise InvalidArgumentError(
            f"{where}: exactly one of the columns url, path and text must have a value"
        )
    ((column, content),) = given.items()
    try:
        metadata = json.loads(row.get("metadata") or "{}")
    except ValueError as error:
        raise InvalidArgumentError(f"{where}: metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InvalidArgumentError(f"{where}: metadata is not a JSON object")
    labels = (row.get("concepts") or "").split(separator)
    options: dict[str, Any] = {
        "id": row.get("id") or "",
        "concepts": [label.strip() for label in labels if label.strip()],
        "metadata": metadata,
    }
    if column == "text":
        return text(content, **options)
    suffix = Path(urlsplit(content).path).suffix.lower()
    kind = row.get("kind") or KIND_BY_SUFFIX.get(suffix, "image" if column == "url" else "")
    if kind not in _SUFFIXES:
        raise InvalidArgumentError(
            f"{where}: kind must be image, video, audio or text, not {kind!r}"
        )
    if column == "path":
        return _from_file(kind, folder / content, **options)
    if kind == "text":
        result = text("", **options)
        result.data.text.url = content
        return result
    return _MAKERS[kind](content, **options)


@named_in("clarigrpc.ingest")
def from_coco(
    annotations: str | os.PathLike[str], images: str | os.PathLike[str]
) -> Iterator[DeferredInput]:
    """The images of a COCO dataset, with the categories in each image as its concepts.

    Boxes and polygons are ignored; add them as annotations after the upload. The annotation file
    is read into memory.

    Args:
        annotations: JSON file with ``images``, ``annotations`` and ``categories``.
        images: Folder of the image files.

    Raises:
        FileNotFoundError: The annotation file does not exist.
        InvalidArgumentError: The file is not a COCO annotation file.
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
            f"{os.fspath(annotations)} is not a COCO annotation file: {error!r}"
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
