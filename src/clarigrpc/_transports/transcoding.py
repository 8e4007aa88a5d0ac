"""Between messages of the service and HTTP/JSON, by the ``google.api.http`` annotations.

Both ends use these rules: the REST client (``rest.py``) and the gateway of the local server
(``local/gateway.py``).

JSON is proto3 JSON with the service's own ways, as its published answers show them: names of
fields as in the protos (``created_at``; lowerCamelCase is read too), enums as numbers (names are
read too), 64-bit integers as strings, bytes as base64. Fields with ``cl_show_if_empty`` are
written even when they are zero or empty. A field with ``cl_default_float`` (``Concept.value``)
takes that value where the JSON of a request leaves it out.

A request without a body carries its fields in the query: ``page=2``, ``user_app_id.user_id=me``,
``statuses=1&statuses=2``. Bodies are optional everywhere on reading, so a field may come in either
place. What has no dotted form is JSON: ``values={"a":1}`` for structs, maps and each item of a
repeated message, ``status={}`` for a message that is present and empty.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from google.api import annotations_pb2, http_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from clarigrpc._contract import methods
from clarigrpc._descriptor_pool import POOL
from clarigrpc.v2 import field_options_pb2, service_pb2

_FLOAT32 = struct.Struct("<f")
_FLOAT32_MAX = float.fromhex("0x1.fffffep127")
_LONG_TYPES = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_WELL_KNOWN = "google.protobuf."
# Well-known types whose JSON is an object, an array, or any value; that of the others is a scalar.
_JSON_VALUED = frozenset({f"{_WELL_KNOWN}{name}" for name in ("Struct", "Value", "ListValue")})
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\r\n]*={0,2}[\r\n]*")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class TranscodingError(ValueError):
    """The HTTP request does not fit the message, or the message has no HTTP form."""


# Routes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP address of a method.

    Attributes:
        method: Name of the method, ``PostInputs``.
        verb: ``GET``, ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
        segments: Of the path: a string is a literal, a tuple the path of the field that stands
            there (``("user_app_id", "user_id")``).
        has_body: Whether the fields that are not in the path make up the body; without it they
            are query parameters.
    """

    method: str
    verb: str
    segments: tuple[str | tuple[str, ...], ...]
    has_body: bool

    @property
    def variables(self) -> list[tuple[str, ...]]:
        """Paths of the fields in the path, in order."""
        return [segment for segment in self.segments if isinstance(segment, tuple)]

    @property
    def template(self) -> str:
        """The path as the annotation writes it."""
        return "".join(
            f"/{segment}" if isinstance(segment, str) else f"/{{{'.'.join(segment)}}}"
            for segment in self.segments
        )


def _binding(method: str, rule: http_pb2.HttpRule) -> Binding:
    verb = rule.WhichOneof("pattern")
    if verb is None or verb == "custom" or rule.body not in ("", "*"):
        raise AssertionError(f"the HTTP rule of {method} is of a kind that the contract lacks")
    segments = tuple(
        tuple(part[1:-1].split(".")) if part.startswith("{") else part
        for part in getattr(rule, verb).lstrip("/").split("/")
    )
    return Binding(method, verb.upper(), segments, rule.body == "*")


@cache
def bindings(method: str) -> tuple[Binding, ...]:
    """The HTTP addresses of a method, the primary one first.

    Raises:
        KeyError: The service has no such method.
    """
    service = service_pb2.DESCRIPTOR.services_by_name["V2"]
    rule = service.methods_by_name[method].GetOptions().Extensions[annotations_pb2.http]
    return tuple(_binding(method, each) for each in (rule, *rule.additional_bindings))


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    bindings: dict[str, Binding] = field(default_factory=dict)

    def child(self, segment: str | tuple[str, ...]) -> _Node:
        """The node below, made where it is missing."""
        if isinstance(segment, str):
            return self.literals.setdefault(segment, _Node())
        if self.variable is None:
            self.variable = _Node()
        return self.variable

    def leaves(self, segments: list[str], start: int = 0) -> Iterator[_Node]:
        """The nodes that the path leads to, literals before variables."""
        if start == len(segments):
            if self.bindings:
                yield self
            return
        segment = segments[start]
        literal = self.literals.get(segment)
        if literal is not None:
            yield from literal.leaves(segments, start + 1)
        if self.variable is not None and segment:
            yield from self.variable.leaves(segments, start + 1)


class Router:
    """Finds the binding of a verb and a path.

    A literal segment wins over a variable (``/v2/inputs/status`` is not an input). Some methods
    share an address (PostRunners and PatchRunners, ListLogEntries and StreamLogEntries,
    PostPipelines and ListPipelines): the one whose primary verb it is has it, and of several of
    these the first in the service.
    """

    def __init__(self) -> None:
        self._root = _Node()
        names = [method.name for method in service_pb2.DESCRIPTOR.services_by_name["V2"].methods]
        every = [binding for name in names for binding in bindings(name)]
        for binding in sorted(every, key=lambda each: each.verb != bindings(each.method)[0].verb):
            node = self._root
            for segment in binding.segments:
                node = node.child(segment)
            node.bindings.setdefault(binding.verb, binding)

    def match(self, verb: str, path: str) -> Binding | None:
        """The binding of a path as it stands in the request line, still percent-encoded."""
        for leaf in self._leaves(path):
            if verb in leaf.bindings:
                return leaf.bindings[verb]
        return None

    def verbs(self, path: str) -> list[str]:
        """The verbs that the path takes, sorted; none where there is no such path."""
        return sorted({verb for leaf in self._leaves(path) for verb in leaf.bindings})

    def _leaves(self, path: str) -> Iterator[_Node]:
        return self._root.leaves(path.split("/")[1:])


@cache
def router() -> Router:
    """The router of all methods."""
    return Router()


# Messages to JSON -----------------------------------------------------------------------------


def to_json(message: Message) -> dict[str, Any]:
    """The message as what ``json.dumps`` takes.

    Raises:
        TranscodingError: A value has no JSON: a time out of range, NaN in a struct.
    """
    try:
        return _to_json(message)
    except (json_format.SerializeToJsonError, ValueError, RecursionError) as error:
        raise TranscodingError(f"{message.DESCRIPTOR.name} has no JSON form: {error}") from error


def dumps(tree: Any) -> bytes:
    """JSON text, compact, UTF-8."""
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def _to_json(message: Message) -> dict[str, Any]:
    writers, shown = _writers(message.DESCRIPTOR)
    tree = {}
    for descriptor, value in message.ListFields():
        name, write = writers[descriptor.number]
        tree[name] = write(value)
    for name, empty in shown:
        if name not in tree:
            tree[name] = [] if empty == [] else empty
    return tree


_Writer = Callable[[Any], Any]


@cache
def _writers(
    descriptor: Descriptor,
) -> tuple[dict[int, tuple[str, _Writer]], list[tuple[str, Any]]]:
    """How each field is written, by number; and what stands for those shown when empty."""
    writers = {each.number: (each.name, _field_writer(each)) for each in descriptor.fields}
    shown = [
        (each.name, _empty(each))
        for each in descriptor.fields
        if _options(each).Extensions[field_options_pb2.cl_show_if_empty]
    ]
    return writers, shown


def _options(descriptor: FieldDescriptor) -> Any:
    # The default pool does not know the service's own options, so they are read with ours.
    options = message_factory.GetMessageClass(
        POOL.FindMessageTypeByName(f"{_WELL_KNOWN}FieldOptions")
    )
    return options.FromString(descriptor.GetOptions().SerializeToString())


def _empty(descriptor: FieldDescriptor) -> Any:
    if descriptor.is_repeated:
        return []
    if descriptor.message_type is not None:
        return None
    return _value_writer(descriptor)(descriptor.default_value)


def _field_writer(descriptor: FieldDescriptor) -> _Writer:
    if _is_map(descriptor):
        key, value = _map_fields(descriptor)
        write_key = _bool_key if key.type == FieldDescriptor.TYPE_BOOL else str
        write_value = _value_writer(value)
        return lambda items: {write_key(k): write_value(v) for k, v in items.items()}
    write = _value_writer(descriptor)
    if descriptor.is_repeated:
        return lambda items: [write(item) for item in items]
    return write


def _value_writer(descriptor: FieldDescriptor) -> _Writer:
    if descriptor.message_type is not None:
        known = descriptor.message_type.full_name.startswith(_WELL_KNOWN)
        return json_format.MessageToDict if known else _to_json
    if descriptor.type == FieldDescriptor.TYPE_FLOAT:
        return _float32
    if descriptor.type == FieldDescriptor.TYPE_DOUBLE:
        return _float64
    if descriptor.type == FieldDescriptor.TYPE_BYTES:
        return _base64
    return str if descriptor.type in _LONG_TYPES else _as_is


def _as_is(value: Any) -> Any:
    return value


def _bool_key(value: bool) -> str:
    return "true" if value else "false"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _float64(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float32(value: float) -> float | str:
    """The shortest number that reads back as the same 32-bit float."""
    if not math.isfinite(value):
        return _float64(value)
    for digits in (6, 7, 8, 9):
        short = float(f"{value:.{digits}g}")
        # Rounded up, the largest float would be beyond the range.
        if abs(short) <= _FLOAT32_MAX and _FLOAT32.unpack(_FLOAT32.pack(short))[0] == value:
            return short
    return value


def _is_map(descriptor: FieldDescriptor) -> bool:
    entry = descriptor.message_type
    return entry is not None and entry.GetOptions().map_entry


def _map_fields(descriptor: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    entry = descriptor.message_type
    assert entry is not None
    return entry.fields_by_name["key"], entry.fields_by_name["value"]


# JSON to messages -----------------------------------------------------------------------------


def loads(text: bytes | str) -> Any:
    """Read JSON.

    Raises:
        TranscodingError: The text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TranscodingError(f"not JSON: {error or 'nested too deeply'}") from error


def from_json(tree: Any, message: Message, *, ignore_unknown: bool = False) -> None:
    """Merge JSON into a message.

    Raises:
        TranscodingError: A field is unknown (unless ``ignore_unknown``) or of the wrong type.
    """
    if not isinstance(tree, dict):
        raise TranscodingError(f"a JSON object is expected, not {json.dumps(tree)[:40]}")
    try:
        json_format.ParseDict(tree, message, ignore_unknown_fields=ignore_unknown)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise TranscodingError(str(error) or "nested too deeply") from error
    except OverflowError as error:
        raise TranscodingError(
            f"{_place_of_huge_integer(tree)}: the integer is too large for a double"
        ) from error


def _place_of_huge_integer(tree: Any) -> str:
    """Where the first integer beyond a double is."""
    waiting = [("", tree)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            inner = [(f"{path}.{key}" if path else str(key), each) for key, each in value.items()]
        elif isinstance(value, list):
            inner = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
        elif isinstance(value, int) and abs(value) > sys.float_info.max:
            return path
        else:
            continue
        waiting += reversed(inner)
    return "a field"


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Fields by both of their names, ``user_app_id`` and ``userAppId``."""
    both = ((name, each) for each in descriptor.fields for name in (each.json_name, each.name))
    return dict(both)


@cache
def _defaults(descriptor: Descriptor) -> list[tuple[FieldDescriptor, float]]:
    option = field_options_pb2.cl_default_float
    return [
        (each, _options(each).Extensions[option])
        for each in descriptor.fields
        if _options(each).HasExtension(option)
    ]


def _child(descriptor: FieldDescriptor) -> Descriptor | None:
    """The message type of a field's values."""
    return (
        _map_fields(descriptor)[1].message_type
        if _is_map(descriptor)
        else (descriptor.message_type)
    )


@cache
def _needs_care(descriptor: Descriptor) -> bool:
    """Whether the message, or one that it may hold, has bytes or a field with a default."""
    seen: set[Descriptor] = set()
    waiting: list[Descriptor | None] = [descriptor]
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        if _defaults(each) or any(f.type == FieldDescriptor.TYPE_BYTES for f in each.fields):
            return True
        seen.add(each)
        waiting.extend(_child(inner) for inner in each.fields)
    return False


@cache
def _fields_to_check(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    fields = {}
    for name, each in _fields(descriptor).items():
        child = _child(each)
        if each.type == FieldDescriptor.TYPE_BYTES or (child is not None and _needs_care(child)):
            fields[name] = each
    return fields


def _prepare(descriptor: Descriptor, tree: Any) -> None:
    """What ``json_format`` does not do with the JSON of a request, in place.

    The service's defaults are written where the JSON leaves their fields out, and characters
    that do not belong into base64 are refused (``json_format`` drops them in silence).
    """
    if not isinstance(tree, dict):
        return
    for key, each in _fields_to_check(descriptor).items():
        if key not in tree:
            continue
        value = tree[key]
        if isinstance(value, list):
            items = value
        elif isinstance(value, dict) and _is_map(each):
            items = list(value.values())
        else:
            items = [value]
        child = _child(each)
        for item in items:
            if child is not None:
                _prepare(child, item)
            elif isinstance(item, str) and not _BASE64.fullmatch(item):
                raise TranscodingError(f"{each.name}: not base64")
    for each, default in _defaults(descriptor):
        if each.name not in tree and each.json_name not in tree:
            tree[each.name] = default


# Requests -------------------------------------------------------------------------------------


class HttpRequest(NamedTuple):
    """A request as HTTP: verb, path with query (percent-encoded), body or None."""

    verb: str
    target: str
    body: bytes | None


def encode_request(method: str, request: Message) -> HttpRequest:
    """A request message as HTTP, at the first binding whose path the message fills.

    Raises:
        TranscodingError: A field that every path needs is empty; the method's addresses all
            belong to another method; an id is a word of another path (``status``).
    """
    for binding in bindings(method):
        path = _path(binding, request)
        if path is not None and router().match(binding.verb, path) is binding:
            break
    else:
        raise TranscodingError(_no_binding(method, request))
    tree = to_json(request)
    for variable in binding.variables:
        _remove(tree, variable)
    if binding.has_body:
        return HttpRequest(binding.verb, path, dumps(tree))
    descriptor: Any = request.DESCRIPTOR
    query = urlencode(list(_query(descriptor, tree, "")), quote_via=quote, safe="")
    return HttpRequest(binding.verb, f"{path}?{query}" if query else path, None)


def _path(binding: Binding, request: Message) -> str | None:
    parts = []
    for segment in binding.segments:
        if isinstance(segment, str):
            parts.append(segment)
            continue
        value: Any = request
        for name in segment:
            value = getattr(value, name)
        if not value:
            return None
        # Clients and servers fold the segments . and .. away unless they are encoded.
        parts.append(value.replace(".", "%2E") if value in (".", "..") else quote(value, safe=""))
    return "/" + "/".join(parts)


def _no_binding(method: str, request: Message) -> str:
    choices = []
    for binding in bindings(method):
        path = _path(binding, request)
        if path is not None:
            return (
                f"{method} has no HTTP address of its own for this request: "
                f"{binding.verb} {path} is that of another method; use gRPC"
            )
        choices.append(", ".join(".".join(variable) for variable in binding.variables))
    return f"over HTTP, {method} needs these fields of the request set: {' or '.join(choices)}"


def _remove(tree: dict[str, Any], path: tuple[str, ...]) -> None:
    """Take a field out, and the messages around it that have nothing else."""
    name, *rest = path
    if not rest:
        del tree[name]
        return
    _remove(tree[name], tuple(rest))
    if not tree[name]:
        del tree[name]


def _query(descriptor: Descriptor, tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        each = descriptor.fields_by_name[name]
        key = prefix + name
        kind = each.message_type
        if each.is_repeated and not _is_map(each):
            for item in value:
                yield key, _to_text(kind, item)
        elif kind is None or _is_map(each) or kind.full_name.startswith(_WELL_KNOWN) or not value:
            yield key, _to_text(kind, value)
        else:
            yield from _query(kind, value, f"{key}.")


def _to_text(kind: Descriptor | None, value: Any) -> str:
    plain = isinstance(value, str) and (kind is None or kind.full_name not in _JSON_VALUED)
    return value if plain else dumps(value).decode()


def decode_request(
    binding: Binding,
    path: str,
    query: str,
    body: bytes,
    *,
    check: Callable[[Any], None] = lambda tree: None,
) -> Message:
    """The request message of an HTTP request that ``Router.match`` gave the binding of.

    Args:
        binding: Of the address.
        path: As in the request line, percent-encoded.
        query: Likewise.
        body: JSON, or nothing.
        check: Called with the JSON before it becomes a message; raises to refuse it.

    Raises:
        TranscodingError: Something in it is malformed, unknown or of the wrong type. The text is
            fit to be shown to the caller.
    """
    message: Message = methods.lookup(binding.method).request_class()()
    descriptor: Any = message.DESCRIPTOR
    given = loads(body) if body.strip() else {}
    check(given)
    for tree in (given, _tree(descriptor, query)):
        try:
            _prepare(descriptor, tree)
        except RecursionError as error:
            raise TranscodingError("the body is nested too deeply") from error
        from_json(tree, message)
    segments = zip(binding.segments, path.split("/")[1:], strict=True)
    for variable, segment in segments:
        if isinstance(variable, tuple):
            _assign(message, variable, segment)
    return message


def _assign(message: Any, path: tuple[str, ...], segment: str) -> None:
    *parents, name = path
    for parent in parents:
        message = getattr(message, parent)
    try:
        setattr(message, name, unquote(segment, errors="strict"))
    except UnicodeDecodeError as error:
        raise TranscodingError(f"{'.'.join(path)} in the path is not UTF-8") from error


def _tree(descriptor: Descriptor, query: str) -> dict[str, Any]:
    """Query parameters as the JSON object that they stand for."""
    try:
        parameters = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise TranscodingError(f"the query is malformed: {error}") from error
    tree: dict[str, Any] = {}
    for key, text in parameters:
        _add_parameter(descriptor, tree, key, text)
    return tree


def _add_parameter(descriptor: Descriptor, tree: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    for name in parents:
        each = _fields(descriptor).get(name)
        if each is None or each.message_type is None or each.is_repeated:
            raise TranscodingError(f"unknown query parameter {key!r}")
        descriptor = each.message_type
        tree = tree.setdefault(each.name, {})
        if not isinstance(tree, dict):
            raise TranscodingError(f"query parameter {key!r} contradicts another one")
    each = _fields(descriptor).get(last)
    if each is None:
        raise TranscodingError(f"unknown query parameter {key!r}")
    try:
        value = _from_text(each, text)
    except TranscodingError as error:
        raise TranscodingError(f"query parameter {key!r}: {error}") from error
    if each.is_repeated and not _is_map(each):
        tree.setdefault(each.name, []).append(value)
    elif each.name in tree:
        raise TranscodingError(f"query parameter {key!r} is given twice")
    else:
        tree[each.name] = value


def _from_text(descriptor: FieldDescriptor, text: str) -> Any:
    kind = descriptor.message_type
    if kind is not None:
        if not kind.full_name.startswith(_WELL_KNOWN) or kind.full_name in _JSON_VALUED:
            return loads(text)
        if kind.name != "BoolValue":
            return text
    if kind is not None or descriptor.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() not in _BOOLEANS:
            raise TranscodingError(f"true or false is expected, not {text!r}")
        return _BOOLEANS[text.lower()]
    return text
