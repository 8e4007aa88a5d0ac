"""User values -> inputs: ``image()``, ``video()``, ``audio()`` and ``text()``."""

from __future__ import annotations

import base64
import errno
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Literal,
    Protocol,
    SupportsFloat,
    TypeAlias,
    runtime_checkable,
)

from google.protobuf.message import Message

from clarigrpc import _pictures, _video_clips, v2, wellknown
from clarigrpc._public_names import named_in
from clarigrpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct
else:  # whose module takes 10 ms to import
    from google.protobuf.message import Message as Struct

__all__ = ["audio", "image", "text", "video"]  # the types are in ``clarigrpc.types``


@named_in("clarigrpc.types")
class BinaryFile(Protocol):
    """A file opened in binary mode, or anything else whose ``read()`` returns bytes."""

    def read(self) -> bytes: ...


@named_in("clarigrpc.types")
@runtime_checkable
class PilImage(Protocol):
    """An image of Pillow."""

    def save(self, fp: BinaryIO, format: str | None = None) -> None: ...


@named_in("clarigrpc.types")
class ImageArray(Protocol):
    """A NumPy array of shape (height, width) or (height, width, 3 or 4).

    Its dtype is uint8, uint16 (scaled to 8 bits), bool, or a float with samples from 0 to 1.
    """

    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> Any: ...


_Content: TypeAlias = os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile
MediaSource: TypeAlias = str | _Content
"""What ``image()``, ``video()`` and ``audio()`` take: a path, an ``http(s)://`` URL, bytes or a
binary file."""
ImageSource: TypeAlias = MediaSource | PilImage | ImageArray
"""What ``image()`` takes: a ``MediaSource``, an image of Pillow, or a NumPy array."""
PredictInput: TypeAlias = v2.Input | _Content | PilImage | ImageArray
"""What is predicted, searched or added as it is: an input that ``image()``, ``text()``,
``video()`` or ``audio()`` made, or the source of an image, but no string, which could be a path, a
URL or a text."""
InputMetadata: TypeAlias = Mapping[str, Any] | Struct
"""Values to keep with an input, by key: None, bool, numbers, str, dates, and lists and mappings of
those. A ``Struct`` of ``wellknown.struct`` is taken as it is."""
ConceptLabels: TypeAlias = str | v2.Concept | Iterable[str | v2.Concept] | Mapping[str, float]
"""Concepts of an input: ids or messages, one or many, or a mapping of id to value."""


_AS_IT_IS = _pictures.PictureOptions()
_INPUT_NAME = v2.Input.DESCRIPTOR.full_name


def image(
    source: ImageSource,
    *,
    id: str = "",
    concepts: ConceptLabels = (),
    metadata: InputMetadata | None = None,
    geo: tuple[float, float] | None = None,
    allow_duplicate_url: bool = False,
    max_side: int | None = None,
    quality: int | None = None,
    format: Literal["jpeg", "png", "webp"] | None = None,
) -> v2.Input:
    """An input with an image.

    Args:
        source: A path, an ``http(s)://`` URL (fetched by the service), the bytes of an image
            file, a ``data:`` URI, a binary file object, a PIL image or an array (both sent as PNG,
            turned as the EXIF orientation says; needs the extra ``image``).
        id: Id of the input; the service makes one up when it is empty.
        concepts: Ids of concepts that the image shows, one or many, or a mapping of id to value (0
            or 1).
        metadata: Values to keep with the input: None, bool, numbers, str, dates, and lists and
            mappings of those.
        geo: Where it was taken: (latitude, longitude) in degrees.
        allow_duplicate_url: Whether the same URL may be added a second time.
        max_side: Longest side in pixels. A larger image is shrunk to it before it is sent, turned
            as the EXIF orientation says, with its colour profile and without its other EXIF data;
            a smaller one is never enlarged. None sends the size that it has. Like ``quality`` and
            ``format``, it needs the extra ``image``.
        quality: Quality of JPEG and WebP, 1 to 100; None is 85. A file that would not become
            smaller is sent as it is.
        format: Format to send: "jpeg" (what is transparent becomes white), "png" or "webp". None
            keeps these three; other files, PIL images and arrays become PNG, or JPEG with
            ``quality``.

    Raises:
        ConfigurationError: The extra ``image`` is needed and not installed.
        FileNotFoundError: There is no file of this name.
        InvalidArgumentError: The source is empty, a URL of another scheme, no path, a file of 2 GiB
            or more, or an image that has no obvious form of 8 bits a sample, or a number of
            ``metadata`` has no JSON form (NaN); the text names its key. ``max_side``, ``quality``
            or ``format`` is out of range, or is asked of a URL, of an animation, or of what Pillow
            cannot read.
        TypeError: The source is of none of these types, or ``metadata`` has a value without a JSON
            form.
    """
    result = _input(id, concepts, metadata, geo)
    target = result.data.image
    content: Any = source
    plain = max_side is None and quality is None and format is None
    options = _AS_IT_IS if plain else _pictures.PictureOptions(max_side, quality, format)
    if type(content).__module__.partition(".")[0] == "numpy":
        content = _pictures.from_array(content)
    if isinstance(content, PilImage):
        content, plain = _pictures.encode(content, options), True
    _fill(target, content, "image")
    if not plain:
        if target.url:
            raise InvalidArgumentError(
                f"image({_shown(source)}): the service fetches URLs itself; max_side, quality and "
                "format are for content that is sent"
            )
        target.base64 = _pictures.fitted(target.base64, options)
    if allow_duplicate_url:
        target.allow_duplicate_url = True
    return result


def video(
    source: MediaSource,
    *,
    id: str = "",
    concepts: ConceptLabels = (),
    metadata: InputMetadata | None = None,
    geo: tuple[float, float] | None = None,
    allow_duplicate_url: bool = False,
    clip: tuple[float, float] | None = None,
    fps: float | None = None,
) -> v2.Input:
    """An input with a video.

    Args:
        source: A path, a URL, bytes or a binary file object, as of ``image``.
        id, concepts, metadata, geo, allow_duplicate_url: As of ``image``.
        clip: Start and end in seconds from the first frame; only what is between them is sent.
            None sends all. With ``clip`` or ``fps`` the video is encoded anew as MP4 with H.264,
            turned as a player shows it and without its sound (extra ``video``).
        fps: Most frames a second; a video with fewer gets no more. None sends all.

    Raises:
        ConfigurationError: The extra ``video`` is needed and not installed.
        FileNotFoundError: There is no file of this name.
        InvalidArgumentError: As of ``image``, or ``clip`` or ``fps`` is out of range, or is asked
            of a URL, or of what FFmpeg cannot read.
        TypeError: As of ``image``.
    """
    result = _input(id, concepts, metadata, geo)
    target = result.data.video
    _fill(target, source, "video")
    if clip is not None or fps is not None:
        if target.url:
            raise InvalidArgumentError(
                f"video({_shown(source)}): the service fetches URLs itself; clip and fps are for "
                "content that is sent"
            )
        target.base64 = _video_clips.shortened(target.base64, clip, fps)
    if allow_duplicate_url:
        result.data.video.allow_duplicate_url = True
    return result


def audio(
    source: MediaSource,
    *,
    id: str = "",
    concepts: ConceptLabels = (),
    metadata: InputMetadata | None = None,
    geo: tuple[float, float] | None = None,
    allow_duplicate_url: bool = False,
) -> v2.Input:
    """An input with audio: a path, a URL, bytes or a binary file object. As ``image``."""
    result = _input(id, concepts, metadata, geo)
    _fill(result.data.audio, source, "audio")
    if allow_duplicate_url:
        result.data.audio.allow_duplicate_url = True
    return result


def text(
    raw: str,
    *,
    id: str = "",
    concepts: ConceptLabels = (),
    metadata: InputMetadata | None = None,
    geo: tuple[float, float] | None = None,
) -> v2.Input:
    """An input with text, given as it is (a text is never taken for a path or a URL).

    Raises:
        InvalidArgumentError: It has half of a character (a surrogate), which no message can hold.
        TypeError: It is no string.
    """
    if not isinstance(raw, str):
        raise TypeError(f"text() takes a string, not {type(raw).__name__}")
    result = _input(id, concepts, metadata, geo)
    try:
        result.data.text.raw = raw
    except UnicodeEncodeError as error:
        raise _no_text("text()", error) from error
    return result


def is_input(value: Any) -> bool:
    """Whether it is an ``Input``, of this or of another package."""
    return isinstance(value, Message) and value.DESCRIPTOR.full_name == _INPUT_NAME


def as_input(value: PredictInput) -> v2.Input:
    """An input out of what predict methods accept: an ``Input``, or the source of an image.

    An ``Input`` of another package is converted.

    Raises:
        TypeError: The value is neither.
    """
    if isinstance(value, v2.Input):
        return value
    if is_input(value):
        theirs: Any = value
        converted: v2.Input = wellknown.convert(theirs)
        return converted
    if isinstance(value, Message):
        raise TypeError(f"expected a clarifai.api.Input, not a {value.DESCRIPTOR.full_name}")
    if isinstance(value, str):
        raise TypeError(
            "a string can be a path, a URL or a text: say image(...), video(...), audio(...) or "
            "text(...)"
        )
    several = isinstance(value, (list, tuple, set, Mapping, Iterator))
    if value is None or (several and not hasattr(value, "read")):  # as an open file has
        raise TypeError(
            f"{_no_source('image', value)}; predict() also takes a list of inputs, predict_many() "
            "any iterable"
        )
    return image(value)


def concept_messages(concepts: ConceptLabels) -> list[v2.Concept]:
    """The messages of concepts given by id, by id and value, or as messages."""
    if isinstance(concepts, str | v2.Concept):  # a string is an id, not one of each letter
        concepts = (concepts,)
    try:
        pairs = concepts.items() if isinstance(concepts, Mapping) else ((c, 1.0) for c in concepts)
        return [
            concept if isinstance(concept, v2.Concept) else _concept(concept, value)
            for concept, value in pairs
        ]
    except TypeError as error:
        raise TypeError(
            f"concepts are ids, or a mapping of id to value, not {concepts!r}"
        ) from error


def _concept(concept_id: str, value: float) -> v2.Concept:
    if value != value:
        raise InvalidArgumentError(f"the value of the concept {concept_id!r} is NaN")
    if concept_id is None:  # protobuf takes it for an empty one
        raise TypeError("the id of a concept is None")
    if concept_id == "":
        raise InvalidArgumentError("the id of a concept is empty")
    try:
        return v2.Concept(id=concept_id, value=value)
    except UnicodeEncodeError as error:
        raise _no_text("the id of a concept", error) from error
    except OverflowError as error:
        raise InvalidArgumentError(f"the value of the concept {concept_id!r}: {error}") from error


def _no_text(what: str, error: UnicodeEncodeError) -> InvalidArgumentError:
    """What a surrogate is: ``json.loads`` and file names yield them, and UTF-8 has none."""
    half = ascii(error.object[error.start])
    return InvalidArgumentError(
        f"{what}: {half} at {error.start} is half of a character (a surrogate)"
    )


def geo_point(latitude: float, longitude: float) -> v2.GeoPoint:
    """A place on the map.

    Args:
        latitude: Degrees north, -90 to 90.
        longitude: Degrees east, -180 to 180.

    Raises:
        InvalidArgumentError: A coordinate is out of range.
        TypeError: A coordinate is no number.
    """
    for name, value in {"latitude": latitude, "longitude": longitude}.items():
        if not isinstance(value, SupportsFloat):
            raise TypeError(f"{name} has to be a number, not {type(value).__name__}")
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise InvalidArgumentError(
            f"latitude must be -90 to 90 and longitude -180 to 180, not {latitude}, {longitude}"
        )
    return v2.GeoPoint(latitude=latitude, longitude=longitude)


def place(pair: tuple[float, float]) -> v2.GeoPoint:
    """A place on the map by its ``(latitude, longitude)`` in degrees.

    Raises:
        InvalidArgumentError: A coordinate is out of range.
        TypeError: It is not two numbers.
    """
    try:
        latitude, longitude = pair
    except (TypeError, ValueError):
        raise TypeError(f"a place is (latitude, longitude), not {pair!r}") from None
    return geo_point(latitude, longitude)


def is_iterable(value: Any) -> bool:
    """Whether ``iter`` takes it; for that ``__getitem__`` is enough, as data sets have it."""
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def refuse_single(values: Any, called: str, instead: str) -> None:
    """Refuse one value where an iterable is needed; a string would be taken letter by letter.

    Raises:
        TypeError: The value is no iterable of inputs; the text says what to do ``instead``.
    """
    single = isinstance(values, (str, bytes, bytearray, os.PathLike, Message))
    if single or not (is_iterable(values) or hasattr(values, "__aiter__")):
        raise TypeError(
            f"{called}() takes an iterable of inputs, not {type(values).__name__}; {instead}"
        )


def metadata_struct(metadata: InputMetadata) -> Any:
    """The ``Struct`` of metadata.

    Raises:
        InvalidArgumentError: A number has no JSON form; the text names its key.
        TypeError: A value of another type has none.
    """
    try:
        return wellknown.struct(metadata)
    except ValueError as error:
        raise InvalidArgumentError(f"metadata: {error}") from error


def _input(
    id: str,
    concepts: ConceptLabels,
    metadata: InputMetadata | None,
    geo: tuple[float, float] | None,
) -> v2.Input:
    if not isinstance(id, str):
        raise TypeError(f"id has to be a string, not {type(id).__name__}")
    try:
        result = v2.Input(id=id)
    except UnicodeEncodeError as error:
        raise _no_text("id", error) from error
    if concepts:
        result.data.concepts.extend(concept_messages(concepts))
    if metadata:
        result.data.metadata.CopyFrom(metadata_struct(metadata))
    if geo is not None:
        result.data.geo.geo_point.CopyFrom(place(geo))
    return result


_MOST_BYTES = 2**31 - 1
"""Bytes that a protobuf message can have."""


def refuse_too_large(size: int, kind: str, path: str | bytes) -> None:
    """Refuse a file that no message can hold, before it takes as much memory several times.

    Raises:
        InvalidArgumentError: It has more bytes.
    """
    if size > _MOST_BYTES:
        raise InvalidArgumentError(
            f"{kind}({_shown(path)}): the file has {size} bytes, more than a message can hold; "
            "give a URL"
        )


def _fill(target: Any, source: Any, kind: str) -> None:
    """Set ``url`` or ``base64`` of an image, video or audio message in place."""
    if isinstance(source, str) and source[:5].lower() == "data:":
        source = _from_data_uri(source, kind)
    elif isinstance(source, str) and "://" in source:
        scheme = source.partition("://")[0].lower()
        if scheme not in ("http", "https"):
            raise InvalidArgumentError(
                f"{kind}({_shown(source)}): the service fetches http:// and https:// URLs only; "
                "give a path or bytes for anything else"
            )
        try:
            target.url = source
        except UnicodeEncodeError as error:
            raise _no_text(f"{kind}({_shown(source)})", error) from error
        return
    content = _content(source, kind)
    if not content:
        file = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
        name = repr(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else ""
        raise InvalidArgumentError(f"{kind}({name}): the source is empty")
    target.base64 = content


_MOST_SHOWN = 100
_LONGEST_PATH = 255
"""Characters of a text that may be the path of a missing file; longer ones are encoded content."""


def _shown(source: object) -> str:
    """A source as an error text shows it."""
    text = repr(source)
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"


def _from_data_uri(uri: str, kind: str) -> bytes:
    """The content of a ``data:`` URI (RFC 2397)."""
    header, comma, content = uri.partition(",")
    if not comma:
        raise InvalidArgumentError(f"{kind}({_shown(uri)}): a data URI has a comma before its data")
    from urllib.parse import unquote_to_bytes

    unquoted = unquote_to_bytes(content)
    if not header.lower().endswith(";base64"):
        return unquoted
    try:
        return base64.b64decode(b"".join(unquoted.split()), validate=True)
    except ValueError as error:
        raise InvalidArgumentError(f"{kind}({_shown(uri)}): no valid base64: {error}") from error


def _content(source: Any, kind: str) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        try:
            file = open(path, "rb")  # noqa: SIM115 - closed below; its errors are other ones
        except FileNotFoundError:
            if len(path) <= _LONGEST_PATH:
                raise FileNotFoundError(f"{kind}({path!r}): there is no such file") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL character
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                raise
        else:
            with file:
                refuse_too_large(os.fstat(file.fileno()).st_size, kind, path)
                return file.read()
        raise InvalidArgumentError(
            f"{kind}({_shown(path)}) is no path; give content as bytes or as a data: URI"
        )
    if callable(getattr(source, "read", None)):
        # A picture that is read as text may end with the error of a decoder.
        content = None if isinstance(source, io.TextIOBase) else source.read()
        if isinstance(content, bytes):
            return content
        raise TypeError(f"{kind}() needs a file opened in binary mode ('rb')")
    raise TypeError(_no_source(kind, source))


def _no_source(kind: str, source: object) -> str:
    return f"{kind}() takes a path, a URL, bytes or a binary file, not {type(source).__name__}"
