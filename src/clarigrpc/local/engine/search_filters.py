"""Whether an input or an annotation is what a search asks for, and how well it ranks.

A filter's concept with value 1 asks for what carries the concept, with value 0 for what is marked
as not carrying it. Metadata matches where it has all that the filter has, objects inside objects
likewise. The conditions inside one filter are alternatives, and all filters have to hold, as in the
service; the time range of a filter limits all of its alternatives. The concepts, metadata and place
of an input count as an annotation of that input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from clarigrpc import v2
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

EARTH_KM = 6371.0088
_KM_OF_LIMITS: dict[str, float] = {
    "withinkilometers": 1.0,
    "withinmiles": 1.609344,
    "withinradians": EARTH_KM,
    "withindegrees": EARTH_KM * math.pi / 180,
}

_COMPARED_FIELDS = (
    "id",
    "input_id",
    "user_id",
    "model_version_id",
    "workflow_version_id",
    "task_id",
    "trusted",
    "input_level",
)
_ANNOTATION_FIELDS = (*_COMPARED_FIELDS, "status", "worker", "annotation_info")
_INPUT_FIELDS = ("id", "dataset_ids", "status")
_MEDIA: tuple[Literal["image", "video", "audio", "text"], ...] = (
    "image",
    "video",
    "audio",
    "text",
)

AnnotationsOf = Callable[[v2.Input], Iterable[v2.Annotation]]
"""The annotations of an input, its own included."""


def simplified(query: v2.Query) -> v2.Query:
    """The query with filters and ranks alone; the old ``ands`` said both.

    Ranks that say nothing are left out: the published SDK sends one where only filters are given.
    """
    ranks = [rank for rank in query.ranks if not _says_nothing(rank.annotation)]
    result = v2.Query(language=query.language, filters=query.filters, ranks=ranks)
    for clause in query.ands:
        if clause.HasField("output"):
            rank = result.ranks.add(negate=clause.negate)
            source = clause.output.input if clause.output.HasField("input") else clause.output
            rank.annotation.data.CopyFrom(source.data)
            rank.annotation.input_id = clause.output.input.id
        if clause.HasField("input"):
            condition = result.filters.add(negate=clause.negate)
            condition.input.CopyFrom(clause.input)
        if clause.HasField("annotation"):
            result.filters.add(negate=clause.negate, annotation=clause.annotation)
    return result


def _says_nothing(example: v2.Annotation) -> bool:
    fields = [field.name for field, _ in example.ListFields()]
    return not fields or (fields == ["data"] and not example.data.ListFields())


def alternatives(condition: v2.Filter) -> list[v2.Filter]:
    """The conditions of a filter, each as a filter of its own; one without conditions is itself."""
    found: list[v2.Filter] = []

    def add() -> v2.Filter:
        found.append(v2.Filter(last_updated_time_range=condition.last_updated_time_range))
        return found[-1]

    for name in _INPUT_FIELDS:
        if _is_set(condition.input, name):
            _copy_field(condition.input, add().input, name)
    for name in _ANNOTATION_FIELDS:
        if _is_set(condition.annotation, name):
            _copy_field(condition.annotation, add().annotation, name)
    sides: tuple[tuple[Any, Callable[[], v2.Data], tuple[str, ...]], ...] = (
        (condition.input.data, lambda: add().input.data, ("metadata", "geo", *_MEDIA)),
        (condition.annotation.data, lambda: add().annotation.data, ("metadata", "geo", "text")),
    )
    for given, new, names in sides:
        for concept in given.concepts:
            new().concepts.append(concept)
        for name in names:
            # An empty medium asks for inputs of that kind; other empty parts ask for nothing.
            of_kind = given is condition.input.data and name in _MEDIA
            if _is_set(given, name) and (of_kind or getattr(given, name).ListFields()):
                _copy_field(given, new(), name)
    return found or [condition]


def _is_set(message: Any, name: str) -> bool:
    if name == "status":
        return bool(message.status.code)
    return any(field.name == name for field, _ in message.ListFields())


def _copy_field(source: Any, target: Any, name: str) -> None:
    target.MergeFrom(type(source)(**{name: getattr(source, name)}))


class Filters:
    """The filters of a query, each split once into its alternatives."""

    def __init__(self, query: v2.Query) -> None:
        self._filters = [(each.negate, alternatives(each)) for each in query.filters]

    def pass_input(self, item: v2.Input, annotations: AnnotationsOf) -> bool:
        """Whether an input passes all filters."""
        return all(
            any(_input_passes(item, one, annotations) for one in choices) != negate
            for negate, choices in self._filters
        )

    def pass_annotation(self, item: v2.Input, annotation: v2.Annotation) -> bool:
        """Whether an annotation, of that input, passes all filters."""
        return all(
            any(_annotation_passes(item, annotation, one) for one in choices) != negate
            for negate, choices in self._filters
        )


def _input_passes(item: v2.Input, condition: v2.Filter, annotations: AnnotationsOf) -> bool:
    if not _within(item.modified_at, condition):
        return False
    if condition.HasField("input") and not _fits_input(item, condition.input):
        return False
    if not condition.HasField("annotation"):
        return True
    wanted = condition.annotation
    return any(_fits_annotation(found, wanted) for found in annotations(item))


def _annotation_passes(item: v2.Input, annotation: v2.Annotation, condition: v2.Filter) -> bool:
    if not _within(annotation.modified_at, condition):
        return False
    if condition.HasField("input") and not _fits_input(item, condition.input):
        return False
    return not condition.HasField("annotation") or _fits_annotation(
        annotation, condition.annotation
    )


def _within(moment: Any, condition: v2.Filter) -> bool:
    span = condition.last_updated_time_range
    when = moment.ToNanoseconds()
    if span.HasField("start_time") and when < span.start_time.ToNanoseconds():
        return False
    return not span.HasField("end_time") or when <= span.end_time.ToNanoseconds()


def _fits_input(item: v2.Input, wanted: v2.Input) -> bool:
    if wanted.id and item.id != wanted.id:
        return False
    if wanted.dataset_ids and not set(wanted.dataset_ids) & set(item.dataset_ids):
        return False
    if wanted.status.code and item.status.code != wanted.status.code:
        return False
    for kind in _MEDIA:
        url = getattr(wanted.data, kind).url
        if url and getattr(item.data, kind).url != url:
            return False
        # An empty medium asks for inputs of that kind.
        if wanted.data.HasField(kind) and not item.data.HasField(kind):
            return False
    return _fits_data(item.data, wanted.data)


def _fits_annotation(found: v2.Annotation, wanted: v2.Annotation) -> bool:
    for name in _COMPARED_FIELDS:
        value = getattr(wanted, name)
        if value and getattr(found, name) != value:
            return False
    if wanted.status.code and found.status.code != wanted.status.code:
        return False
    if wanted.HasField("worker") and found.worker != wanted.worker:
        return False
    if wanted.HasField("annotation_info") and not struct_contains(
        found.annotation_info, wanted.annotation_info
    ):
        return False
    return _fits_data(found.data, wanted.data)


def _fits_data(data: v2.Data, wanted: v2.Data) -> bool:
    if wanted.concepts:
        have = list(concepts_of(data))
        if not all(any(_same_concept(c, w) for c in have) for w in wanted.concepts):
            return False
    if wanted.HasField("metadata") and not struct_contains(data.metadata, wanted.metadata):
        return False
    if wanted.text.raw and wanted.text.raw.lower() not in data.text.raw.lower():
        return False
    return not wanted.HasField("geo") or (data.HasField("geo") and _near(data.geo, wanted.geo))


def concepts_of(data: v2.Data) -> Iterator[v2.Concept]:
    """The concepts of data and of the regions, frames and segments in it."""
    yield from data.concepts
    for region in data.regions:
        yield from concepts_of(region.data)
    for frame in data.frames:
        yield from concepts_of(frame.data)
    for segment in data.time_segments:
        yield from concepts_of(segment.data)


def named(concept: v2.Concept, wanted: v2.Concept) -> bool:
    """Whether both are the same concept, by id or else by name."""
    if wanted.id:
        return concept.id == wanted.id
    return bool(wanted.name) and concept.name.lower() == wanted.name.lower()


def _same_concept(concept: v2.Concept, wanted: v2.Concept) -> bool:
    return named(concept, wanted) and (concept.value >= 0.5) == (wanted.value >= 0.5)


def struct_contains(have: Any, wanted: Any) -> bool:
    """Whether an object has all keys and values of another."""
    return all(
        key in have.fields and _value_contains(have.fields[key], value)
        for key, value in wanted.fields.items()
    )


def _value_contains(have: Any, wanted: Any) -> bool:
    kind = wanted.WhichOneof("kind")
    if have.WhichOneof("kind") != kind:
        return False
    if kind == "struct_value":
        return struct_contains(have.struct_value, wanted.struct_value)
    if kind == "list_value":
        return all(
            any(_value_contains(one, value) for one in have.list_value.values)
            for value in wanted.list_value.values
        )
    return kind is None or getattr(have, kind) == getattr(wanted, kind)


def is_on_earth(point: v2.GeoPoint) -> bool:
    """Whether a point is on the earth, in degrees."""
    return abs(point.latitude) <= 90 and abs(point.longitude) <= 180


def box_edges(geo: v2.Geo) -> tuple[float, float, float, float]:
    """South, north, west and east edge of a ``geo_box``, in degrees.

    Of the two boxes with the same corners it is the narrower one, which may cross the 180th
    meridian: its west edge is then greater than its east edge.
    """
    one, two = (corner.geo_point for corner in geo.geo_box)
    south, north = sorted((one.latitude, two.latitude))
    west, east = sorted((one.longitude, two.longitude))
    if east - west > 180:
        west, east = east, west
    return south, north, west, east


def _near(have: v2.Geo, wanted: v2.Geo) -> bool:
    point = have.geo_point
    if not is_on_earth(wanted.geo_point):
        raise ServiceError(
            StatusCode.SEARCH_INVALID_REQUEST,
            "geo_point is out of range: latitude -90 to 90, longitude -180 to 180",
        )
    if len(wanted.geo_box) == 2:
        south, north, west, east = box_edges(wanted)
        if not south <= point.latitude <= north:
            return False
        if west <= east:
            return west <= point.longitude <= east
        return point.longitude >= west or point.longitude <= east
    if not wanted.HasField("geo_limit"):
        return bool(point == wanted.geo_point)
    return distance_km(point, wanted.geo_point) <= limit_km(wanted.geo_limit)


def limit_km(limit: v2.GeoLimit) -> float:
    """The distance that a limit allows; ServiceError for one of an unknown kind."""
    factor = _KM_OF_LIMITS.get(limit.type.lower())
    if factor is None:
        raise ServiceError(
            StatusCode.SEARCH_INVALID_REQUEST, f"unknown type of geo limit {limit.type!r}"
        )
    return limit.value * factor


def distance_km(one: v2.GeoPoint, two: v2.GeoPoint) -> float:
    """Length of the great circle between two places."""
    lat1, lat2 = math.radians(one.latitude), math.radians(two.latitude)
    across = math.radians(two.longitude - one.longitude)
    h = (
        math.sin((lat2 - lat1) / 2) ** 2
        + math.cos(lat1) * math.cos(lat2) * math.sin(across / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(h)))


def concept_score(item: v2.Annotation, wanted: Iterable[v2.Concept]) -> float:
    """How far data carry some concepts, 0 to 1: the mean of their values there."""
    have = list(concepts_of(item.data))
    scores = []
    for concept in wanted:
        value = max((c.value for c in have if named(c, concept)), default=0.0)
        scores.append(value if concept.value >= 0.5 else 1.0 - value)
    return sum(scores) / len(scores)
