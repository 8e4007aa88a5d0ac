"""Inputs and outputs as a notebook shows them: pictures with regions, concepts as bars, texts.

``%load_ext clarigrpc.notebook`` shows an input or an output that a cell ends with. ``show()`` also
takes lists, and the picture that an output is of.

Only what is named here is shown. Metadata, and what an address has besides host and path, may hold
a credential, and a notebook is passed on with its pictures: neither is ever part of them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from clarigrpc import _pictures, v2
from clarigrpc._extras import NeedsExtra
from clarigrpc.errors import ConfigurationError, InvalidArgumentError
from clarigrpc.media import PredictInput, as_input

if TYPE_CHECKING:
    from clarigrpc._bulk.predict_engine import PredictFailure, PredictSuccess

__all__ = ["Showable", "load_ipython_extension", "show", "to_html", "unload_ipython_extension"]

Showable: TypeAlias = (
    "v2.Input | v2.Output | v2.Hit | v2.MultiOutputResponse | PredictSuccess | PredictFailure"
)
"""What can be shown: an input, an output, a hit of a search, a response, a result of
``predict_many``."""

_SIDE = 480
"""Longest side of a shown picture in pixels."""
_MOST_BARS = 10
_MOST_REGIONS = 50
_MOST_FRAMES = 6
_LONGEST_SHOWN = 2000
_MOST_EMBEDDED = 1_000_000
"""Bytes of a picture that is shown as it is where Pillow is not installed."""
_MIME_TYPES = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n"), "image/png"),
    (re.compile(rb"GIF8"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_COLOURS = ("#e6550d", "#3182bd", "#31a354", "#756bb1", "#d6336c", "#0c8599")
_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def show(
    value: Showable | Iterable[Showable],
    picture: PredictInput | Sequence[PredictInput] | None = None,
    *,
    limit: int = 20,
) -> None:
    """Show inputs or outputs below the cell of a notebook.

    Args:
        value: An input, an output, a hit of a search, a response, a result of ``predict_many``, or
            any number of them.
        picture: What the output is of, as the service returns no content: an input, or the source
            of an image. Of several outputs, a list.
        limit: How many of several are shown.

    Raises:
        ConfigurationError: The extra ``notebook`` is not installed.
        InvalidArgumentError: As of ``to_html``.
        TypeError: As of ``to_html``.
    """
    with NeedsExtra("notebook", "show()"):
        from IPython.display import HTML, display
    put: Any = display  # which has no types
    made: Any = HTML
    put(made(to_html(value, picture, limit=limit)))


def to_html(
    value: Showable | Iterable[Showable],
    picture: PredictInput | Sequence[PredictInput] | None = None,
    *,
    limit: int = 20,
) -> str:
    """The HTML that ``show`` displays: one element, complete in itself.

    Pictures are embedded, at most 480 pixels a side. One with an address is loaded by the browser,
    unless its address has a query or a user, which can be a credential.

    Args:
        value, picture, limit: As of ``show``.

    Raises:
        InvalidArgumentError: There are several values and another number of pictures.
        TypeError: Something cannot be shown.
    """
    if isinstance(value, v2.MultiOutputResponse):
        value = value.outputs
    if isinstance(value, v2.Input | v2.Output | v2.Hit) or hasattr(value, "error"):
        return _card(value, None if picture is None else as_input(picture))  # type: ignore[arg-type]
    if not isinstance(value, Iterable):
        raise TypeError(_cannot_show(value))
    values = [*value]
    pictures: list[Any] = [None] * len(values)
    if picture is not None:
        if not isinstance(picture, Sequence) or isinstance(picture, bytes | bytearray):
            picture = [picture]
        if len(picture) != len(values):
            raise InvalidArgumentError(f"{len(values)} values, and {len(picture)} pictures")
        pictures = [*picture]
    cards = [
        _card(one, None if of is None else as_input(of))
        for one, of in zip(values[:limit], pictures, strict=False)
    ]
    if len(values) > limit:
        cards.append(_note(f"and {len(values) - limit} more"))
    return _element("div", "".join(cards), "display:flex;flex-wrap:wrap;align-items:flex-start")


class Formatter(Protocol):
    """IPython's formatter of one MIME type, as far as it is used here."""

    def for_type_by_name(self, type_module: str, type_name: str, func: Any = None) -> Any: ...
    def for_type(self, typ: type[Any], func: Any = None) -> Any: ...
    def pop(self, typ: Any, default: Any = None) -> Any: ...


def load_ipython_extension(ipython: Any) -> None:
    """Show inputs and outputs at the end of a cell: ``%load_ext clarigrpc.notebook``."""
    formatter: Formatter = ipython.display_formatter.formatters["text/html"]
    for message in _SHOWN_MESSAGES:
        formatter.for_type(message, to_html)
    for name in _SHOWN_RESULTS:  # by name, so that they are not imported before they are used
        formatter.for_type_by_name("clarigrpc.types", name, to_html)


def unload_ipython_extension(ipython: Any) -> None:
    """Undo ``load_ipython_extension``: ``%unload_ext clarigrpc.notebook``."""
    formatter: Formatter = ipython.display_formatter.formatters["text/html"]
    for message in _SHOWN_MESSAGES:
        formatter.pop(message, None)
    for name in _SHOWN_RESULTS:
        formatter.pop(f"clarigrpc.types.{name}", None)


_SHOWN_MESSAGES: tuple[type[Any], ...] = (v2.Input, v2.Output, v2.Hit, v2.MultiOutputResponse)
_SHOWN_RESULTS = ("PredictSuccess", "PredictFailure")


def _cannot_show(value: object) -> str:
    return (
        "inputs, outputs, hits, responses and results of predict_many can be shown, not "
        f"{type(value).__name__}"
    )


def _card(value: Any, picture: v2.Input | None) -> str:
    """One input, output, hit or result."""
    title, parts = "", []
    if getattr(value, "error", None) is not None:
        parts = [_failure(type(value.error).__name__, str(value.error))]
        shown = v2.Data()
    elif isinstance(value, v2.Hit):
        title, shown = f"score {value.score:.3f}", value.input.data
        title = " · ".join(filter(None, (value.input.id, title)))
    elif isinstance(value, v2.Input):
        title, shown = value.id, value.data
    else:
        output = value if isinstance(value, v2.Output) else getattr(value, "output", None)
        if not isinstance(output, v2.Output):
            raise TypeError(_cannot_show(value))
        title, shown = output.input.id, output.data
        if output.status.code not in (v2.StatusCode.SUCCESS, v2.StatusCode.ZERO):
            parts.append(_failure(_name_of(output.status.code), output.status.description))
        picture = picture or output.input
    of = shown if picture is None else picture.data
    parts += [_media(of, shown.regions), *_contents(shown)]
    if of is not shown and of.HasField("text"):
        parts.insert(0, _text(of.text.raw))
    head = _element("div", escape(title), "font-weight:600;margin-bottom:4px") if title else ""
    style = (
        f"font:13px/1.4 sans-serif;min-width:300px;max-width:{_SIDE}px;margin:4px;padding:8px;"
        "border:1px solid rgba(128,128,128,.4);border-radius:4px;box-sizing:border-box"
    )
    return _element("div", head + "".join(parts), style)


def _name_of(code: int) -> str:
    try:
        return v2.StatusCode.Name(code)  # type: ignore[arg-type]
    except ValueError:  # of a newer service
        return str(code)


def _failure(name: str, description: str) -> str:
    return _element("div", escape(f"{name}: {description}"), "color:#d6336c;overflow-wrap:anywhere")


def _contents(shown: v2.Data) -> list[str]:
    """All that has no place in a picture."""
    parts = []
    if shown.HasField("text"):
        parts.append(_text(shown.text.raw))
    parts.append(_bars(shown.concepts))
    parts.append(_swatches(shown.colors))
    parts.append(_regions(shown.regions))
    parts += [
        _note(f"embedding of {len(embedding.vector)} numbers") for embedding in shown.embeddings
    ]
    for frame in shown.frames[:_MOST_FRAMES]:
        parts.append(_note(f"{frame.frame_info.time / 1000:.2f} s"))
        parts.append(_bars(frame.data.concepts, 3))
        parts.append(_regions(frame.data.regions))
    if len(shown.frames) > _MOST_FRAMES:
        parts.append(_note(f"and {len(shown.frames) - _MOST_FRAMES} more frames"))
    return parts


def _media(of: v2.Data, regions: Sequence[v2.Region]) -> str:
    """The picture with its regions, or what it is where it cannot be shown."""
    for kind in ("video", "audio"):
        if of.HasField(kind):
            medium = getattr(of, kind)
            return _note(_address(medium.url) or f"{kind}, {len(medium.base64):,} bytes")
    if not of.HasField("image"):
        return ""
    source = _source(of.image)
    if source is None:
        told = _address(of.image.url) or f"image, {len(of.image.base64):,} bytes"
        return _note(told)
    picture = (
        f'<img src="{escape(source)}" alt="the picture" referrerpolicy="no-referrer" '
        f'style="display:block;max-width:100%;max-height:{_SIDE}px;margin:0">'
    )
    boxes = "".join(_box(place, region) for place, region in enumerate(regions[:_MOST_REGIONS]))
    style = "position:relative;display:table;line-height:0;max-width:100%;margin-bottom:4px"
    return _element("div", picture + boxes, style)


def _source(image: v2.Image) -> str | None:
    """What a browser shows the image from; None if it has nothing, or must not be told."""
    if image.url and not image.base64:
        try:
            parts = urlsplit(image.url)
        except ValueError:
            return None
        harmless = not parts.query and "@" not in parts.netloc and not parts.fragment
        return image.url if parts.scheme in ("http", "https") and harmless else None
    content = _small(image.base64)
    for pattern, mime_type in _MIME_TYPES:
        if pattern.match(content):
            return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"
    return None


def _small(content: bytes) -> bytes:
    """A picture in a size and a format for a page; empty if there is none."""
    known = any(pattern.match(content) for pattern, _ in _MIME_TYPES)
    options = _pictures.PictureOptions(max_side=_SIDE, format=None if known else "png")
    try:
        return _pictures.fitted(content, options)
    except (ConfigurationError, InvalidArgumentError):  # no Pillow, an animation, or no picture
        return content if len(content) <= _MOST_EMBEDDED else b""


def _address(url: str) -> str:
    """Host and path of an address, with nothing that may be a credential."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}{parts.path}"[:200] or "an address"
    except ValueError:
        return "an address"


def _share(value: float) -> float:
    """A number from 0 to 1, of one that may be anything."""
    return min(max(value, 0.0), 1.0) if value == value else 0.0  # NaN is not itself


def _box(place: int, region: v2.Region) -> str:
    box = region.region_info.bounding_box
    top, left = _share(box.top_row), _share(box.left_col)
    height, width = _share(box.bottom_row) - top, _share(box.right_col) - left
    if height <= 0 or width <= 0:
        return ""
    colour = _COLOURS[place % len(_COLOURS)]
    label = _element(
        "span", str(place + 1), f"background:{colour};color:#fff;padding:0 3px;font-size:11px"
    )
    style = (
        f"position:absolute;top:{top:.2%};left:{left:.2%};height:{height:.2%};width:{width:.2%};"
        f"border:2px solid {colour};box-sizing:border-box;line-height:1.3"
    )
    return _element("div", label, style)


def _regions(regions: Sequence[v2.Region]) -> str:
    """What regions show, by the numbers that they have in the picture."""
    lines = []
    for place, region in enumerate(regions[:_MOST_REGIONS]):
        best = max(region.data.concepts, key=lambda concept: concept.value, default=None)
        named = f"{best.name or best.id} {best.value:.3f}" if best else ""
        told = " · ".join(filter(None, (named, _cut(region.data.text.raw)))) or region.id
        colour = _COLOURS[place % len(_COLOURS)]
        number = _element("b", str(place + 1), f"color:{colour};margin-right:6px")
        lines.append(_element("div", number + escape(told or "region"), "overflow-wrap:anywhere"))
    if len(regions) > _MOST_REGIONS:
        lines.append(_note(f"and {len(regions) - _MOST_REGIONS} more regions"))
    return "".join(lines)


def _bars(concepts: Sequence[v2.Concept], most: int = _MOST_BARS) -> str:
    """The concepts with the highest values."""
    best = sorted(concepts, key=lambda concept: -_share(concept.value))
    lines = []
    for concept in best[:most]:
        name = _element(
            "div",
            escape(_cut(concept.name or concept.id)),
            "flex:0 0 40%;overflow:hidden;text-overflow:ellipsis;white-space:nowrap",
        )
        bar = _element(
            "div",
            _element(
                "div", "", f"width:{_share(concept.value):.2%};height:100%;background:#3182bd"
            ),
            "flex:1;height:10px;background:rgba(128,128,128,.2)",
        )
        number = _element(
            "div", f"{concept.value:.3f}", "flex:0 0 44px;font-variant-numeric:tabular-nums"
        )
        lines.append(
            _element("div", name + bar + number, "display:flex;align-items:center;gap:8px")
        )
    if len(best) > most:
        lines.append(_note(f"and {len(best) - most} more concepts"))
    return "".join(lines)


def _swatches(colors: Sequence[v2.Color]) -> str:
    lines = []
    for color in colors[:_MOST_BARS]:
        shown = color.raw_hex if _HEX_COLOUR.fullmatch(color.raw_hex) else color.w3c.hex
        if not _HEX_COLOUR.fullmatch(shown):
            continue
        square = _element(
            "span",
            "",
            f"display:inline-block;width:12px;height:12px;background:{shown};margin-right:6px",
        )
        told = f"{color.w3c.name or shown} {color.value:.3f}"
        lines.append(_element("div", square + escape(told), ""))
    return "".join(lines)


def _text(raw: str) -> str:
    style = (
        "white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid rgba(128,128,128,.5);"
        "padding-left:8px;margin:4px 0"
    )
    return _element("div", escape(_cut(raw, _LONGEST_SHOWN)), style)


def _cut(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _note(text: str) -> str:
    return _element("div", escape(text), "opacity:.7;overflow-wrap:anywhere")


def _element(name: str, content: str, style: str) -> str:
    """An element; its content is HTML."""
    return f'<{name} style="{style}">{content}</{name}>'
