"""The conditions of searches: filters that say what is found, ranks that say in which order.

Each function returns a message of the service, ready for ``client.search``::

    from clarigrpc import query

    client.search.inputs(
        query.has_concept("dog"),
        query.negate(query.has_metadata({"split": "test"})),
        query.like_image("cat.jpg"),
    )

What is found passes all filters. With several ranks the score is the mean of theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from clarigrpc import v2
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.media import ImageSource, image

Condition = v2.Filter | v2.Rank
Unit = Literal["kilometers", "miles", "degrees", "radians"]

_LIMITS: Mapping[str, str] = {
    "kilometers": "withinKilometers",
    "miles": "withinMiles",
    "degrees": "withinDegrees",
    "radians": "withinRadians",
}

__all__ = [
    "Condition",
    "Unit",
    "by_concept",
    "has_concept",
    "has_metadata",
    "has_status",
    "has_url",
    "in_box",
    "in_dataset",
    "is_input",
    "is_kind",
    "like_embedding",
    "like_image",
    "like_input",
    "near",
    "negate",
    "search",
    "updated",
]

ConditionT = TypeVar("ConditionT", bound=v2.Filter | v2.Rank)


def has_concept(concept_id: str, *, value: float = 1.0) -> v2.Filter:
    """What carries a concept.

    Args:
        concept_id: Id of the concept.
        value: 1: what is marked as showing it; 0: what is marked as not showing it.
    """
    return _annotated(v2.Data(concepts=[_concept(concept_id, value)]))


def has_metadata(values: Mapping[str, Any]) -> v2.Filter:
    """What has all these values in its metadata, objects inside objects likewise."""
    data = v2.Data()
    data.metadata.update(dict(values))
    return _annotated(data)


def near(
    latitude: float, longitude: float, *, within: float, unit: Unit = "kilometers"
) -> v2.Filter:
    """What lies around a point.

    Args:
        latitude: Degrees north of the equator, -90 to 90.
        longitude: Degrees east of Greenwich, -180 to 180.
        within: How far away at most, in ``unit``.
        unit: ``"kilometers"``, ``"miles"``, ``"degrees"`` or ``"radians"``.

    Raises:
        InvalidArgumentError: There is no such point or unit.
    """
    if unit not in _LIMITS:
        raise InvalidArgumentError(f"unit= is one of {', '.join(_LIMITS)}; not {unit!r}")
    limit = v2.GeoLimit(type=_LIMITS[unit], value=within)
    geo = v2.Geo(geo_point=_point(latitude, longitude), geo_limit=limit)
    return _annotated(v2.Data(geo=geo))


def in_box(first: tuple[float, float], second: tuple[float, float]) -> v2.Filter:
    """What lies between two opposite corners, each ``(latitude, longitude)`` in degrees."""
    corners = [v2.GeoBoxedPoint(geo_point=_point(*corner)) for corner in (first, second)]
    return _annotated(v2.Data(geo=v2.Geo(geo_box=corners)))


def is_input(input_id: str) -> v2.Filter:
    """The input of this id."""
    return v2.Filter(input=v2.Input(id=input_id))


def in_dataset(dataset_id: str) -> v2.Filter:
    """What is in a dataset."""
    return v2.Filter(input=v2.Input(dataset_ids=[dataset_id]))


def has_status(code: v2.StatusCode.ValueType) -> v2.Filter:
    """Inputs in this state, ``v2.StatusCode.INPUT_SUCCESS`` say."""
    return v2.Filter(input=v2.Input(status=v2.Status(code=code)))


def is_kind(kind: Literal["image", "video", "audio", "text"]) -> v2.Filter:
    """Inputs of one kind.

    Raises:
        InvalidArgumentError: There is no such kind.
    """
    if kind not in ("image", "video", "audio", "text"):
        raise InvalidArgumentError(f"is_kind() takes image, video, audio or text; not {kind!r}")
    data = v2.Data()
    getattr(data, kind).SetInParent()
    return v2.Filter(input=v2.Input(data=data))


def has_url(url: str) -> v2.Filter:
    """Images that were added from this URL."""
    return v2.Filter(input=v2.Input(data=v2.Data(image=v2.Image(url=url))))


def updated(since: datetime | None = None, until: datetime | None = None) -> v2.Filter:
    """What was changed last in a span of time.

    Args:
        since: Its start; None: it has none.
        until: Its end; None: it has none.
    """
    span = v2.TimeRange()
    if since is not None:
        span.start_time.FromDatetime(since)
    if until is not None:
        span.end_time.FromDatetime(until)
    return v2.Filter(last_updated_time_range=span)


def by_concept(concept_id: str, *, value: float = 1.0) -> v2.Rank:
    """Rank by how sure it is that a concept (with ``value`` 0: its absence) is shown."""
    return _ranked(v2.Data(concepts=[_concept(concept_id, value)]))


def like_image(source: ImageSource) -> v2.Rank:
    """Rank by how much images look like this one; ``source`` as ``clarigrpc.image`` takes it."""
    return _ranked(image(source).data)


def like_input(input_id: str) -> v2.Rank:
    """Rank by how much images look like that of an input of the app."""
    return v2.Rank(annotation=v2.Annotation(input_id=input_id))


def like_embedding(vector: Sequence[float]) -> v2.Rank:
    """Rank by how near embeddings are to a vector, which has as many numbers as they have."""
    numbers = [float(number) for number in vector]
    if not numbers:
        raise InvalidArgumentError("like_embedding() needs a vector")
    embedding = v2.Embedding(vector=numbers, num_dimensions=len(numbers))
    return _ranked(v2.Data(embeddings=[embedding]))


def negate(condition: ConditionT) -> ConditionT:
    """The opposite: what does not pass the filter; what is least like the rank's example.

    The condition given stays as it is.
    """
    result = copy.deepcopy(condition)
    result.negate = not condition.negate
    return result


def search(
    *conditions: Condition,
    id: str = "",
    name: str = "",
    language: str = "",
    min_value: float = 0.0,
    metric: v2.Search.Metric.ValueType = v2.Search.METRIC_NOT_SET,
) -> v2.Search:
    """A search out of conditions, for what takes one: datasets, annotation filters, saved ones.

    Args:
        conditions: Filters and ranks, in any order.
        id: Its id, where it is to be saved.
        name: What it is called, where it is to be saved.
        language: The language of concepts that are given by name.
        min_value: Least score of a hit, 0 to 1.
        metric: How embeddings are compared: ``v2.Search.COSINE_DISTANCE`` or
            ``EUCLIDEAN_DISTANCE``. Default: the app's.

    Raises:
        TypeError: A condition is neither a filter nor a rank.
    """
    result = v2.Search(id=id, name=name, min_value=min_value, metric=metric)
    result.query.language = language
    for condition in conditions:
        if isinstance(condition, v2.Filter):
            result.query.filters.append(condition)
        elif isinstance(condition, v2.Rank):
            result.query.ranks.append(condition)
        else:
            raise TypeError(
                "a search takes what the functions of clarigrpc.query return (v2.Filter, v2.Rank), "
                f"not {type(condition).__name__}"
            )
    return result


def _concept(concept_id: str, value: float) -> v2.Concept:
    if not concept_id:
        raise InvalidArgumentError("the id of a concept is missing")
    return v2.Concept(id=concept_id, value=value)


def _annotated(data: v2.Data) -> v2.Filter:
    return v2.Filter(annotation=v2.Annotation(data=data))


def _ranked(data: v2.Data) -> v2.Rank:
    return v2.Rank(annotation=v2.Annotation(data=data))


def _point(latitude: float, longitude: float) -> v2.GeoPoint:
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise InvalidArgumentError(f"there is no place at {latitude}, {longitude}")
    return v2.GeoPoint(latitude=latitude, longitude=longitude)
