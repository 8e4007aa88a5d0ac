"""Sources of inputs: a folder, a CSV or JSON Lines file, a COCO dataset.

Each yields functions that make an input when it is about to be sent, so that a file is read only
then, and a file that cannot be read fails alone.
"""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from google.protobuf.message import Message

from clarigrpc import v2, wellknown
from clarigrpc._bulk.input_report import FailedInput
from clarigrpc._public_names import named_in
from clarigrpc.errors import ClarigrpcError, InvalidArgumentError
from clarigrpc.media import (
    PredictInput,
    as_input,
    audio,
    image,
    refuse_single,
    refuse_too_large,
    text,
    video,
)

DeferredInput: TypeAlias = Callable[[], v2.Input]
"""A function that makes an input; called when the upload reaches it."""
InputValue: TypeAlias = PredictInput | DeferredInput | FailedInput
"""An input, a function that makes one, or an input that failed in an earlier upload."""
InputSource: TypeAlias = str | os.PathLike[str] | v2.Input | Iterable[InputValue]
"""A source for ``client.inputs.upload``: path of a folder, CSV or JSON Lines file, or inputs."""
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
        InvalidArgumentError: The path is no folder, CSV or JSON Lines file.
    """
    if isinstance(source, Message):
        given: Any = source
        return [as_input(given)]
    if not isinstance(source, (str, os.PathLike)):
        refuse_single(source, "upload", "put a single one in a list")
        return source
    path = Path(source)
    if path.is_dir():
        return from_folder(source)
    if path.suffix.lower() == ".csv":
        return from_csv(path)
    if path.suffix.lower() == ".jsonl":
        return from_json(path)
    if not path.exists():
        raise FileNotFoundError(f"upload({os.fspath(source)!r}): no such file or folder")
    raise InvalidArgumentError(
        f"upload() takes a folder, a .csv or a .jsonl file; to add {path} alone, use "
        "create(image(...))"
    )


@dataclass(frozen=True, slots=True)
class SourceInput:
    """A function that makes an input, with the place that its errors name.

    Attributes:
        make: Makes the input.
        source: Path, or file and line.
        id: Id of the input; empty if it follows from the content.
    """

    make: Callable[[], v2.Input]
    source: str
    id: str = ""

    def __call__(self) -> v2.Input:
        try:
            return self.make()
        except RecursionError:
            raise InvalidArgumentError(f"{self}: values are nested too deep") from None
        except OSError as error:
            raise InvalidArgumentError(f"{self}: {error.strerror or error}") from error
        except (ClarigrpcError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{self}: {error}") from error

    def __str__(self) -> str:
        return f"{self.source}, id {self.id}" if self.id else self.source


@named_in("clarigrpc.ingest")
def from_folder(
    path: str | os.PathLike[str],
    *,
    concepts_from_folders: bool = False,
    recursive: bool = True,
    follow_links: bool = False,
) -> Iterator[DeferredInput]:
    """The image, video, audio and text files of a folder, selected by suffix.

    Hidden files and files with other suffixes are skipped. Files are sorted by name. The metadata
    of each input contains the path below the folder as ``filename``, so that files with equal
    content get different ids. The folder is walked before the first input is returned. A pipe, a
    device or a file whose name is not UTF-8 fails alone.

    Args:
        path: The folder.
        concepts_from_folders: Whether the name of a file's folder becomes its concept, as in
            datasets with a folder per class. Files directly in ``path`` get no concept.
        recursive: Whether to include subfolders.
        follow_links: Whether symbolic links may lead out of the folder. Links to files and
            folders inside it are skipped, as their targets are found anyway.

    Raises:
        FileNotFoundError: The folder does not exist.
        InvalidArgumentError: A link leads out of the folder and ``follow_links`` is False, or the
            path is an empty string.
        PermissionError: A subfolder cannot be read.
    """
    if not os.fspath(path):  # of a variable that is not set; as a path it is the current folder
        raise InvalidArgumentError("from_folder(''): the path is empty; '.' is the current folder")
    top = Path(path)
    if not top.is_dir():
        raise FileNotFoundError(f"from_folder({os.fspath(path)!r}): no such folder")
    files = list(_files_of(top, recursive, follow_links))

    def values() -> Iterator[DeferredInput]:
        for file, kind in files:
            labelled = concepts_from_folders and file.parent != top
            make = partial(
                _from_file,
                kind,
                file,
                concepts=[file.parent.name] if labelled else [],
                metadata={"filename": file.relative_to(top).as_posix()},
            )
            yield SourceInput(make, _printable(file))

    return values()


def _printable(path: Path) -> str:
    """A path as text; bytes that are not UTF-8 are shown as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _real(path: Path) -> Path:
    """The path without links; a link that leads to itself stays, and cannot be read."""
    return Path(os.path.realpath(path))  # unlike resolve(), which raises RuntimeError for it


def _files_of(top: Path, recursive: bool, follow_links: bool) -> Iterator[tuple[Path, str]]:
    """The files of a folder with a known suffix and their kinds, each file once."""
    real_top = _real(top)
    seen = {real_top}
    for entry in sorted(top.iterdir()):
        yield from _files_below(entry, real_top, seen, recursive, follow_links)


def _files_below(
    entry: Path, real_top: Path, seen: set[Path], recursive: bool, follow_links: bool
) -> Iterator[tuple[Path, str]]:
    if entry.name.startswith("."):
        return
    kind = KIND_BY_SUFFIX.get(entry.suffix.lower())
    is_folder = entry.is_dir()
    if not recursive if is_folder else kind is None:
        return
    if entry.is_symlink():
        inside = _real(entry).is_relative_to(real_top)
        if inside and entry.exists():
            return  # found where it is
        if not (inside or follow_links):
            raise InvalidArgumentError(
                f"{entry} is a link that leads out of the folder; remove it, or use "
                "from_folder(..., follow_links=True)"
            )
    if follow_links:
        # A link may lead to a folder above, or to what another one leads to.
        real = _real(entry)
        if real in seen:
            return
        seen.add(real)
    if is_folder:
        for nested in sorted(entry.iterdir()):
            yield from _files_below(nested, real_top, seen, recursive, follow_links)
    elif kind is not None:
        yield entry, kind


_LONGEST_FIELD = 64 * 1024 * 1024
"""Characters of a field of a CSV file."""

_COLUMNS = (
    *("url", "path", "text", "kind", "id", "concepts", "metadata"),
    *("latitude", "longitude", "dataset_ids", "split"),
)


@named_in("clarigrpc.ingest")
def from_csv(
    path: str | os.PathLike[str],
    *,
    separator: str = "|",
    encoding: str = "utf-8-sig",
    ignore_columns: Iterable[str] = (),
    skip_nan: bool = False,
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
    - ``latitude`` and ``longitude``: the place, in degrees
    - ``dataset_ids``: ids of datasets of the app, separated by ``separator``
    - ``split``: ``train``, ``test`` or another word, kept in the metadata as ``split``

    An invalid row fails alone; the failure names the file, the line and the id. So does what
    follows a quotation mark that is not closed, up to where that shows.

    Args:
        path: The CSV file.
        separator: Separator of the concept and dataset ids.
        encoding: Encoding of the file.
        ignore_columns: Columns that are not read.
        skip_nan: Whether numbers that are NaN are left out of the metadata; otherwise such a row
            fails.

    Raises:
        FileNotFoundError: The file does not exist.
        InvalidArgumentError: The header has none of the columns url, path and text, or a column
            that is not known and not ignored, or one of them twice, or the file has another
            encoding.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"from_csv({os.fspath(path)!r}): no such file")
    _check_encoding(file, encoding)
    with file.open(newline="", encoding=encoding) as lines:
        try:
            header = next(csv.reader(lines, strict=True), [])
        except csv.Error as error:
            raise InvalidArgumentError(f"{file}, line 1: {error}") from error
    ignored = frozenset([ignore_columns] if isinstance(ignore_columns, str) else ignore_columns)
    _check_columns(str(file), header, ignored)
    twice = {name for name in header if header.count(name) > 1} - ignored
    if twice:
        raise InvalidArgumentError(
            f"{file} has more than one column {', '.join(map(repr, sorted(twice)))}"
        )
    return _rows(file, encoding, partial(_from_row, file.parent, separator, skip_nan, ignored))


def _check_encoding(file: Path, encoding: str) -> None:
    """Read the file once, so that the first row is not sent before the last one is readable."""
    line = 0
    try:
        with file.open(encoding=encoding) as lines:
            for _ in lines:
                line += 1
    except LookupError:
        raise InvalidArgumentError(f"encoding={encoding!r} is not known") from None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"{file}, after line {line}: the file is not {encoding} ({error.reason}); give its "
            "encoding, e.g. encoding='latin-1'"
        ) from error


def _check_columns(where: str, columns: Iterable[str], ignored: Iterable[str]) -> None:
    unknown = [name for name in columns if name not in _COLUMNS and name not in ignored]
    if unknown:
        raise InvalidArgumentError(
            f"{where} has columns that are not known: {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(_COLUMNS)}; name the others in ignore_columns="
        )
    if not {"url", "path", "text"} & {*columns} - {*ignored}:
        raise InvalidArgumentError(
            f"{where} must have a header line with a column url, path or text"
        )


def _rows(file: Path, encoding: str, make: Callable[..., v2.Input]) -> Iterator[DeferredInput]:
    # The csv module has one limit for the process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    with file.open(newline="", encoding=encoding) as lines:
        # Not strict, the reader takes the rows after a quotation mark for text of one field.
        reader = csv.DictReader(lines, strict=True)
        plain = reader.reader  # whose line number also holds after an error
        while True:
            first = plain.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                last = plain.line_num
                lines_read = f"line {last}" if last <= first else f"lines {first} to {last}"
                where = f"{file}, {lines_read}"
                yield SourceInput(partial(_refuse, _csv_reason(error)), where)
                continue
            if row is None:
                return
            where = f"{file}, line {plain.line_num}"
            yield SourceInput(partial(make, row), where, str(row.get("id") or ""))


def _csv_reason(error: csv.Error) -> str:
    """What is wrong with a row, in which the csv module says "data" for a quoted field."""
    reason = str(error)
    if "expected after" in reason or "end of data" in reason:
        reason += "; a quotation mark is not closed, or not doubled within quotation marks"
    return reason


def _refuse(reason: str) -> v2.Input:
    raise InvalidArgumentError(reason)


def _from_row(
    folder: Path,
    separator: str,
    skip_nan: bool,
    ignored: frozenset[str],
    row: Mapping[Any, Any],
) -> v2.Input:
    if None in row:
        raise InvalidArgumentError("more values than columns")
    values = {name: value for name, value in row.items() if value and name not in ignored}
    try:
        metadata = json.loads(values.pop("metadata", "{}"))
    except ValueError as error:
        raise InvalidArgumentError(f"metadata is not JSON: {error}") from error
    for name in ("concepts", "dataset_ids"):
        items = values.pop(name, "").split(separator)
        values[name] = [item.strip() for item in items if item.strip()]
    return _from_values(values, metadata, folder, skip_nan)


def _from_values(values: dict[str, Any], metadata: Any, folder: Path, skip_nan: bool) -> v2.Input:
    """The input of a row: its columns, with lists of concepts and datasets."""
    given = [name for name in ("url", "path", "text") if values.get(name)]
    if len(given) != 1:
        raise InvalidArgumentError(
            "exactly one of the columns url, path and text must have a value"
        )
    (column,) = given
    content = values[column]
    if not isinstance(metadata, dict):
        raise InvalidArgumentError("metadata is not a JSON object")
    if values.get("split"):
        metadata = {**metadata, "split": values["split"]}
    options: dict[str, Any] = {
        "id": str(values.get("id") or ""),
        "concepts": values["concepts"],
        "metadata": wellknown.struct(metadata, skip_nan=skip_nan) if metadata else None,
        "geo": _place(values),
    }
    if column == "text":
        result = text(content, **options)
    else:
        suffix = Path(urlsplit(content).path).suffix.lower()
        default = "image" if column == "url" else ""
        kind = values.get("kind") or KIND_BY_SUFFIX.get(suffix, default)
        if kind not in _SUFFIXES:
            reason = f"not {kind!r}" if kind else f"and {content!r} has no suffix that says which"
            raise InvalidArgumentError(f"kind must be image, video, audio or text, {reason}")
        if column == "path":
            result = _from_file(kind, folder / content, **options)
        elif kind == "text":
            result = text("", **options)
            result.data.text.url = content
        else:
            result = _MAKERS[kind](content, **options)
    result.dataset_ids.extend(values["dataset_ids"])
    return result


def _place(values: Mapping[str, Any]) -> tuple[float, float] | None:
    latitude, longitude = values.get("latitude"), values.get("longitude")
    if latitude is None and longitude is None:
        return None
    try:
        return float(latitude), float(longitude)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):  # a whole number of JSON has no bounds
        raise InvalidArgumentError(
            f"latitude and longitude must both be degrees, not {latitude!r} and {longitude!r}"
        ) from None


@named_in("clarigrpc.ingest")
def from_json(
    path: str | os.PathLike[str], *, ignore_keys: Iterable[str] = (), skip_nan: bool = False
) -> Iterator[DeferredInput]:
    """The lines of a JSON Lines file, an object each.

    The keys are the columns of ``from_csv``; ``metadata`` is an object, ``concepts`` and
    ``dataset_ids`` are lists of ids, ``latitude`` and ``longitude`` numbers, ``id`` may be a whole
    number. An invalid line fails alone; the failure names the file and the line.

    Args:
        path: The file, in UTF-8.
        ignore_keys: Keys that are not read.
        skip_nan: Whether numbers that are NaN are left out of the metadata; otherwise such a line
            fails.

    Raises:
        FileNotFoundError: The file does not exist.
        InvalidArgumentError: The file is not UTF-8.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"from_json({os.fspath(path)!r}): no such file")
    _check_encoding(file, "utf-8-sig")
    ignored = frozenset([ignore_keys] if isinstance(ignore_keys, str) else ignore_keys)

    def values() -> Iterator[DeferredInput]:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    make = partial(_from_json_line, line, file.parent, ignored, skip_nan)
                    yield SourceInput(make, f"{file}, line {number}")

    return values()


def _from_json_line(line: str, folder: Path, ignored: frozenset[str], skip_nan: bool) -> v2.Input:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise InvalidArgumentError("not a JSON object")
    _check_columns("the line", row, ignored)
    values = {n: value for n, value in row.items() if value is not None and n not in ignored}
    metadata = values.pop("metadata", {})
    for name in ("concepts", "dataset_ids"):
        found = values.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise InvalidArgumentError(f"{name} must be a list of ids")
        values[name] = found
    for name in ("url", "path", "text", "kind", "split"):
        if not isinstance(values.get(name, ""), str):
            raise InvalidArgumentError(f"{name} must be a string")
    name = values.get("id", "")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise InvalidArgumentError("id must be a string or a whole number")
    values["id"] = str(name)  # 0 too
    return _from_values(values, metadata, folder, skip_nan)


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
        content = json.loads(Path(annotations).read_text(encoding="utf-8-sig"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        labels: dict[Any, dict[str, None]] = defaultdict(dict)
        for annotation in content["annotations"]:
            labels[annotation["image_id"]][names[annotation["category_id"]]] = None
        files = [(one["file_name"], list(labels[one["id"]])) for one in content["images"]]
        folder = Path(images)
        paths = [folder / name for name, _ in files]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{os.fspath(annotations)} is not a COCO annotation file: {error!r}"
        ) from error
    return (
        SourceInput(
            partial(_from_file, "image", path, concepts=found, metadata={"filename": name}),
            str(path),
        )
        for path, (name, found) in zip(paths, files, strict=True)
    )


def _from_file(kind: str, path: Path, **options: Any) -> v2.Input:
    if path.is_fifo() or path.is_char_device():  # reading it may never end
        raise InvalidArgumentError("it is a pipe or a device, not a file")
    if kind == "text":
        refuse_too_large(path.stat().st_size, kind, os.fspath(path))
        return text(path.read_text(encoding="utf-8-sig"), **options)
    return _MAKERS[kind](path, **options)
