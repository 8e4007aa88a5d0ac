"""What searches look up, so that they need not read every input and annotation.

Each input and each annotation has terms in the store: a number for each concept, metadata value,
dataset and so on that it carries, and the place that it is at. ``Lookups`` says which terms what a
query finds must have. That narrows a search down; ``matching`` then decides, so a term may stand
for less than a filter says, and never for more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Literal, TypeAlias

from clarigrpc import v2
from clarigrpc.local.engine import input_level_annotations, search_filters
from clarigrpc.local.store.resource_store import (
    HasId,
    HasStatus,
    HasTerm,
    HasText,
    InBox,
    Indexed,
    Indexer,
    Lookup,
    Relation,
    StoredCollection,
    Tag,
    is_lookup,
)
from clarigrpc.local.user_app import UserApp

_KINDS: tuple[Literal["image", "video", "audio", "text"], ...] = ("image", "video", "audio", "text")
_INDEXED_FIELDS = (
    "user_id",
    "model_version_id",
    "workflow_version_id",
    "task_id",
)
_MOST_METADATA_VALUES = 256
"""Values of metadata that are indexed; what has more is among the candidates of every search."""
_MOST_CHARACTERS = 64 * 1024
"""Characters of a text that are indexed; likewise."""

_KM_OF_DEGREE = search_filters.EARTH_KM * math.pi / 180
# Coordinates are floats of 32 bits; a box a little too large costs nothing.
_MARGIN_DEGREES = 1e-3


def _number(*parts: str) -> int:
    """The term of some words. Two that share a number are told apart by ``matching``."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _of_concept(concept: v2.Concept) -> int:
    if concept.id:
        return _number("concept", concept.id)
    return _number("concept name", concept.name.lower())


_MUCH_METADATA = _number("much metadata")
_LONG_TEXT = _number("long text")


def _leaves(struct: Any, path: tuple[str, ...] = ()) -> Iterator[int]:
    """A term for every value inside an object of metadata that is no object itself."""
    for key, value in struct.fields.items():
        yield from _leaves_of(value, (*path, key))


def _leaves_of(value: Any, path: tuple[str, ...]) -> Iterator[int]:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        yield from _leaves(value.struct_value, path)
    elif kind == "list_value":
        for one in value.list_value.values:
            # Of objects and lists in a list each would have to match as a whole.
            if one.WhichOneof("kind") not in ("struct_value", "list_value"):
                yield from _leaves_of(one, (*path, ""))
    elif kind is not None:
        yield _number("metadata", *path, kind, json.dumps(getattr(value, kind)))


def _data(data: v2.Data) -> Indexed:
    """The terms of what an input says of itself, or of what an annotation says."""
    terms: set[tuple[int, float]] = set()
    for concept in search_filters.concepts_of(data):
        if concept.id:
            terms.add((_number("concept", concept.id), concept.value))
        if concept.name:
            terms.add((_number("concept name", concept.name.lower()), concept.value))
    values = list(islice(_leaves(data.metadata), _MOST_METADATA_VALUES + 1))
    if len(values) > _MOST_METADATA_VALUES:
        values = [_MUCH_METADATA]
    terms.update((term, 0.0) for term in values)
    text = data.text.raw
    if len(text) > _MOST_CHARACTERS:
        text = ""
        terms.add((_LONG_TEXT, 0.0))
    point = data.geo.geo_point
    place = (point.latitude, point.longitude) if data.HasField("geo") else None
    return Indexed(terms, place, text)


def _input(body: bytes) -> Indexed:
    item = v2.Input.FromString(body)
    found = _data(item.data)
    found.terms.update((_number("dataset", i), 0.0) for i in item.dataset_ids)
    for kind in _KINDS:
        if item.data.HasField(kind):
            found.terms.add((_number("kind", kind), 0.0))
            url = getattr(item.data, kind).url
            if url:
                found.terms.add((_number("url", url), 0.0))
    tags = {(c.id, c.value >= 0.5): c.name for c in item.data.concepts}
    return found._replace(tags=frozenset(Tag(*carried, name) for carried, name in tags.items()))


def _annotation(body: bytes) -> Indexed:
    annotation = v2.Annotation.FromString(body)
    found = _data(annotation.data)
    for name in _INDEXED_FIELDS:
        value = getattr(annotation, name)
        if value:
            found.terms.add((_number(name, value), 0.0))
    return found


SoughtKind: TypeAlias = Literal["input", "annotation", "own annotation"]
"""What a search is for; an input's own annotation is looked up by what the input has."""

INDEXERS: dict[str, Indexer] = {"input": _input, "annotation": _annotation}
"""How to index the resources of a kind."""


def _present(term: int) -> HasTerm:
    return HasTerm(term, -math.inf, math.inf)


_Alternatives: TypeAlias = "tuple[HasTerm | InBox | HasText | HasStatus | HasId, ...]"


def _wanted_in_data(data: v2.Data) -> Iterator[_Alternatives]:
    """What data must have to be as a filter's: one of each of these."""
    for concept in data.concepts:
        positive = concept.value >= 0.5
        low, high = (0.5, math.inf) if positive else (-math.inf, math.nextafter(0.5, 0))
        if concept.id or concept.name:
            yield (HasTerm(_of_concept(concept), low, high),)
    for term in _leaves(data.metadata):
        yield _present(term), _present(_MUCH_METADATA)
    if is_lookup(data.text.raw):
        yield HasText(data.text.raw), _present(_LONG_TEXT)
    if data.HasField("geo"):
        box = _box(data.geo)
        if box is not None:
            yield (box,)


def _box(geo: v2.Geo) -> InBox | None:
    """A box around all places that a filter lets through; None where it would be no box."""
    if len(geo.geo_box) == 2:
        south, north, west, east = search_filters.box_edges(geo)
        if west > east:  # across the 180th meridian
            west, east = -180.0, 180.0
    else:
        point = geo.geo_point
        km = search_filters.limit_km(geo.geo_limit) if geo.HasField("geo_limit") else 0.0
        degrees = km / _KM_OF_DEGREE
        south, north = point.latitude - degrees, point.latitude + degrees
        if not -89 < south <= north < 89:
            west, east = -180.0, 180.0  # around a pole, or no circle at all
        else:
            # The circle is widest a little towards the pole, where its tangent is a meridian.
            sine = math.sin(math.radians(degrees)) / math.cos(math.radians(point.latitude))
            across = math.degrees(math.asin(sine)) if abs(sine) < 1 else 180.0
            west, east = point.longitude - across, point.longitude + across
            if west < -180 or east > 180:
                west, east = -180.0, 180.0
    return InBox(
        south - _MARGIN_DEGREES,
        north + _MARGIN_DEGREES,
        west - _MARGIN_DEGREES,
        east + _MARGIN_DEGREES,
    )


def _wanted_of_input(wanted: v2.Input) -> Iterator[_Alternatives]:
    if wanted.id:
        yield (HasId(wanted.id),)
    if wanted.status.code:
        yield (HasStatus(wanted.status.code),)
    for kind in _KINDS:
        if wanted.data.HasField(kind):
            yield (_present(_number("kind", kind)),)
            url = getattr(wanted.data, kind).url
            if url:
                yield (_present(_number("url", url)),)
    yield from _wanted_in_data(wanted.data)


class Lookups:
    """How a search for inputs, or for annotations, uses what both are indexed by.

    Args:
        app: The app that is searched.
        kind: What is searched for.
    """

    def __init__(self, app: UserApp, kind: SoughtKind) -> None:
        self._owner = app.user_id
        self._inputs = StoredCollection.of_app("input", app)
        self._annotations = StoredCollection.of_app("annotation", app)
        self._kind = kind

    def of_query(self, query: v2.Query) -> list[tuple[Lookup, ...]]:
        """Conditions on all that a query lets through; each holds where one of its lookups does."""
        found: list[tuple[Lookup, ...]] = []
        for condition in query.filters:
            if condition.negate:
                continue
            choices = [self._of_one(one) for one in search_filters.alternatives(condition)]
            if len(choices) == 1:
                found += choices[0]
            elif all(choices):
                # Of each alternative one lookup that it needs.
                found.append(tuple(chain.from_iterable(tests[0] for tests in choices)))
        return found

    def _of_one(self, condition: v2.Filter) -> list[tuple[Lookup, ...]]:
        """What a filter with a single condition needs; nothing where no index can tell."""
        wanted = condition.input
        found: list[tuple[Lookup, ...]] = []
        found += [
            tuple(self._of_inputs(test) for test in tests) for tests in _wanted_of_input(wanted)
        ]
        if wanted.dataset_ids:
            tests = [_present(_number("dataset", i)) for i in wanted.dataset_ids]
            found.append(tuple(self._of_inputs(test) for test in tests))
        label = condition.annotation
        found += [
            tuple(chain.from_iterable(self._of_either(test) for test in tests))
            for tests in _wanted_in_data(label.data)
        ]
        if label.id:
            found.append(self._of_label_id(label.id))
        if label.input_id:
            found.append((self._of_inputs(HasId(label.input_id)),))
        for name in _INDEXED_FIELDS:
            value = getattr(label, name)
            if not value:
                continue
            if name == "user_id" and value == self._owner and self._kind != "annotation":
                continue  # every input has an annotation by the owner of the app
            found.append(self._of_labels(_present(_number(name, value))))
        return found

    def _of_label_id(self, label_id: str) -> tuple[Lookup, ...]:
        input_id = input_level_annotations.input_id_of(label_id)
        own = (self._of_inputs(HasId(input_id)),) if input_id and self._kind != "annotation" else ()
        return (*own, *self._of_labels(HasId(label_id)))

    def of_concept(self, concept: v2.Concept) -> tuple[Lookup, ...]:
        """Finds what carries a concept, with whatever value."""
        return self._of_either(_present(_of_concept(concept)))

    def _of_inputs(self, test: HasTerm | InBox | HasText | HasStatus | HasId) -> Lookup:
        relation = Relation.PARENT if self._kind == "annotation" else Relation.SELF
        return Lookup(self._inputs, test, relation)

    def _of_labels(self, test: HasTerm | InBox | HasText | HasStatus | HasId) -> tuple[Lookup, ...]:
        """What only annotations beside those of the inputs themselves have."""
        if self._kind == "own annotation":
            return (self._of_inputs(HasId("")),)  # there is none
        relation = Relation.CHILD if self._kind == "input" else Relation.SELF
        return (Lookup(self._annotations, test, relation),)

    def _of_either(self, test: HasTerm | InBox | HasText | HasStatus | HasId) -> tuple[Lookup, ...]:
        """Concepts, metadata and place of an input are in its own annotation."""
        if self._kind == "input":
            return (self._of_inputs(test), *self._of_labels(test))
        return (self._of_inputs(test),) if self._kind == "own annotation" else self._of_labels(test)
