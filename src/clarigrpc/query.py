"""Conditions of searches: filters choose the hits, ranks order them.

Each function returns a message of the service for the methods of ``client.search``::

    from clarigrpc import query

    client.search.inputs(
        query.has_concept("dog"),
        query.negate(query.has_metadata({"split": "test"})),
        query.like_image("cat.jpg"),
    )

A hit passes all filters; ``any_of`` makes one of several, which a hit passes with any of them. With
several ranks, its score is the mean of their scores.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Literal, TypeVar

from clarigrpc import v2, wellknown
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.media import ImageSource, geo_point, image, metadata_struct, place, text

Condition = v2.Filter | v2.Rank
Unit = Literal["kilometers", "miles", "degrees", "radians"]

_LIMITS: Mapping[str, str] = {
    "kilometers": "withinKilometers",
    "miles": "withinMiles",
    "degrees": "withinDegrees",
    "radians": "withinRadians",
}

# Of filters: fields whose own fields are conditions, and those that hold several conditions.
_INSIDE = ("annotation", "input", "data")
_MANY = ("concepts",)

__all__ = [
    "Condition",
    "Unit",
    "any_of",
    "by_concept",
    "has_concept",
    "has_metadata",
    "has_status",
    "has_text",
    "has_url",
    "in_box",
    "in_dataset",
    "is_input",
    "is_kind",
    "like_embedding",
    "like_image",
    "like_input",
    "like_text",
    "near",
    "negate",
    "search",
    "updated",
]

ConditionT = TypeVar("ConditionT", bound=v2.Filter | v2.Rank)


def has_concept(concept_id: str, *, value: float = 1.0) -> v2.Filter:
    """Filter by a concept.

    Args:
        concept_id: Id of the concept.
        value: 1 matches what is labelled with the concept, 0 what is labelled as not having it.

    Raises:
        InvalidArgumentError: The id is empty.
    """
    return _annotated(v2.Data(concepts=[_concept(concept_id, value)]))


def has_metadata(values: Mapping[str, Any]) -> v2.Filter:
    """Filter by metadata.

    Args:
        values: Keys and values that the metadata must have; nested objects are matched in the same
            way.
    """
    data = v2.Data()
    data.metadata.CopyFrom(metadata_struct(values))
    return _annotated(data)


def near(
    latitude: float, longitude: float, *, within: float, unit: Unit = "kilometers"
) -> v2.Filter:
    """Filter by distance from a point.

    Args:
        latitude: Degrees north of the equator, -90 to 90.
        longitude: Degrees east of Greenwich, -180 to 180.
        within: Maximum distance, in ``unit``.
        unit: ``"kilometers"``, ``"miles"``, ``"degrees"`` or ``"radians"``.

    Raises:
        InvalidArgumentError: The coordinates or the distance are out of range, or the unit is
            unknown.
    """
    if not within >= 0:  # and no NaN
        raise InvalidArgumentError(f"within must be 0 or more, not {within}")
    if unit not in _LIMITS:
        raise InvalidArgumentError(f"unit must be one of {', '.join(_LIMITS)}, not {unit!r}")
    limit = v2.GeoLimit(type=_LIMITS[unit], value=within)
    geo = v2.Geo(geo_point=geo_point(latitude, longitude), geo_limit=limit)
    return _annotated(v2.Data(geo=geo))


def in_box(first: tuple[float, float], second: tuple[float, float]) -> v2.Filter:
    """Filter by a rectangle on the map.

    Args:
        first: One corner: ``(latitude, longitude)`` in degrees.
        second: The opposite corner. Of the two boxes with these corners the narrow one is meant:
            longitudes 170 and -170 are 20 degrees apart, across the 180th meridian.

    Raises:
        InvalidArgumentError: The coordinates are out of range.
    """
    corners = [v2.GeoBoxedPoint(geo_point=place(corner)) for corner in (first, second)]
    return _annotated(v2.Data(geo=v2.Geo(geo_box=corners)))


def is_input(input_id: str) -> v2.Filter:
    """Filter by the id of an input.

    Args:
        input_id: Id of the input.

    Raises:
        InvalidArgumentError: The id is empty, which would match every input.
    """
    return v2.Filter(input=v2.Input(id=_given(input_id, "id of the input")))


def in_dataset(dataset_id: str) -> v2.Filter:
    """Filter by a dataset.

    Args:
        dataset_id: Id of the dataset that the inputs are in.

    Raises:
        InvalidArgumentError: The id is empty.
    """
    return v2.Filter(input=v2.Input(dataset_ids=[_given(dataset_id, "id of the dataset")]))


def has_status(code: v2.StatusCode.ValueType) -> v2.Filter:
    """Filter by the status of inputs.

    Args:
        code: The status, e.g. ``v2.StatusCode.INPUT_SUCCESS``.

    Raises:
        InvalidArgumentError: It is 0, which would match every input.
    """
    if not code:
        raise InvalidArgumentError("the status is 0")
    return v2.Filter(input=v2.Input(status=v2.Status(code=code)))


def is_kind(kind: Literal["image", "video", "audio", "text"]) -> v2.Filter:
    """Filter by the kind of inputs.

    Args:
        kind: ``"image"``, ``"video"``, ``"audio"`` or ``"text"``.

    Raises:
        InvalidArgumentError: The kind is unknown.
    """
    if kind not in ("image", "video", "audio", "text"):
        raise InvalidArgumentError(f"kind must be image, video, audio or text, not {kind!r}")
    data = v2.Data()
    getattr(data, kind).SetInParent()
    return v2.Filter(input=v2.Input(data=data))


def has_text(words: str) -> v2.Filter:
    """Match text inputs that contain words, in upper or lower case.

    Raises:
        InvalidArgumentError: There are no words.
    """
    raw = _given(words, "text")
    return v2.Filter(input=v2.Input(data=v2.Data(text=v2.Text(raw=raw))))


def has_url(url: str) -> v2.Filter:
    """Filter by the URL that images were added from.

    Args:
        url: The URL.

    Raises:
        InvalidArgumentError: The URL is empty, which would match every image.
    """
    return v2.Filter(input=v2.Input(data=v2.Data(image=v2.Image(url=_given(url, "URL")))))


def updated(since: date | None = None, until: date | None = None) -> v2.Filter:
    """Filter by the time of the last change.

    Args:
        since: Start of the time range, a datetime or a date (its midnight); UTC without a
            timezone. None sets no start.
        until: End of the time range. None sets no end.

    Raises:
        TypeError: A bound is of another type.
    """
    span = v2.TimeRange()
    if since is not None:
        span.start_time.CopyFrom(wellknown.timestamp(_moment(since)))
    if until is not None:
        span.end_time.CopyFrom(wellknown.timestamp(_moment(until)))
    return v2.Filter(last_updated_time_range=span)


def by_concept(concept_id: str, *, value: float = 1.0) -> v2.Rank:
    """Rank by the probability of a concept.

    Args:
        concept_id: Id of the concept.
        value: 1 ranks by the presence of the concept, 0 by its absence.

    Raises:
        InvalidArgumentError: The id is empty.
    """
    return _ranked(v2.Data(concepts=[_concept(concept_id, value)]))


def like_image(source: ImageSource) -> v2.Rank:
    """Rank by visual similarity to an image.

    Args:
        source: The image, as taken by ``clarigrpc.image``.
    """
    return _ranked(image(source).data)


def like_text(words: str) -> v2.Rank:
    """Rank by similarity of meaning to a text.

    Args:
        words: The text, for example a description of the images that are wanted.

    Raises:
        InvalidArgumentError: The text is empty.
    """
    return _ranked(text(_given(words, "text")).data)


def like_input(input_id: str) -> v2.Rank:
    """Rank by visual similarity to the image of an input of the app.

    Args:
        input_id: Id of the input.

    Raises:
        InvalidArgumentError: The id is empty.
    """
    return v2.Rank(annotation=v2.Annotation(input_id=_given(input_id, "id of the input")))


def like_embedding(vector: Sequence[float]) -> v2.Rank:
    """Rank by distance of embeddings from a vector.

    Args:
        vector: Numbers, as many as the embeddings have.

    Raises:
        InvalidArgumentError: The vector is empty, or holds NaN or infinity.
        TypeError: It is not a sequence of numbers.
    """
    try:
        numbers = [float(number) for number in vector]
    except (TypeError, ValueError) as error:
        raise TypeError(f"the vector is not a sequence of numbers: {error}") from error
    if not all(map(math.isfinite, numbers)):
        raise InvalidArgumentError("the vector holds NaN or infinity")
    if not numbers:
        raise InvalidArgumentError("the vector is empty")
    embedding = v2.Embedding(vector=numbers, num_dimensions=len(numbers))
    return _ranked(v2.Data(embeddings=[embedding]))


def negate(condition: ConditionT) -> ConditionT:
    """Negate a condition: a filter matches what it did not match, a rank prefers what is least
    similar.

    Args:
        condition: A filter or a rank. It is not changed.

    Returns:
        The negated condition.

    Raises:
        TypeError: It is neither a filter nor a rank.
    """
    _check_condition(condition)
    result = copy.deepcopy(condition)
    result.negate = not condition.negate
    return result


def any_of(*filters: v2.Filter) -> v2.Filter:
    """Match what any of the filters matches: the service takes the parts of one filter so.

    Args:
        filters: Filters of different kinds, or several concepts. They are not changed.

    Raises:
        InvalidArgumentError: The service cannot say it in one filter: two of the same kind other
            than concepts, a negated filter, a range of time, or no filter at all.
        TypeError: A condition is no filter.
    """
    if not filters:
        raise InvalidArgumentError("any_of() takes at least one filter")
    merged = v2.Filter()
    for each in filters:
        if not isinstance(each, v2.Filter):
            raise TypeError(f"any_of() takes filters, not {type(each).__name__}")
        if each.negate:
            raise InvalidArgumentError("any_of() takes no negated filter; negate its result")
        if each.HasField("last_updated_time_range"):
            raise InvalidArgumentError(
                "any_of() takes no range of time: it counts for all parts of a filter"
            )
        _check_apart(merged, each)
        merged.MergeFrom(each)
    return merged


def _check_apart(first: Any, second: Any) -> None:
    """Refuse two parts that would become one when they are merged."""
    there = {field.name: value for field, value in first.ListFields()}
    for field, value in second.ListFields():
        if field.name not in there or field.name in _MANY:
            continue
        if field.name not in _INSIDE:
            raise InvalidArgumentError(f"any_of() takes only one condition on {field.name}")
        _check_apart(there[field.name], value)


def search(
    *conditions: Condition,
    id: str = "",
    name: str = "",
    language: str = "",
    min_value: float = 0.0,
    metric: v2.Search.Metric.ValueType = v2.Search.METRIC_NOT_SET,
) -> v2.Search:
    """Make a search message of conditions, for datasets, annotation filters and saved searches.

    Args:
        conditions: Filters and ranks, in any order.
        id: Id of the search if it is saved. Empty: the service generates one.
        name: Name of the search if it is saved.
        language: Language code for concepts given by name. Empty uses the app's default language.
        min_value: Lowest score of a hit, 0 to 1.
        metric: Distance between embeddings: ``v2.Search.COSINE_DISTANCE`` or
            ``EUCLIDEAN_DISTANCE``. Default: the app's.

    Raises:
        TypeError: A condition is neither a filter nor a rank.
    """
    result = v2.Search(id=id, name=name, min_value=min_value, metric=metric)
    result.query.language = language
    for condition in conditions:
        _check_condition(condition)
        if isinstance(condition, v2.Filter):
            result.query.filters.append(condition)
        else:
            result.query.ranks.append(condition)
    return result


def _concept(concept_id: str, value: float) -> v2.Concept:
    return v2.Concept(id=_given(concept_id, "id of the concept"), value=value)


def _given(value: str, what: str) -> str:
    """What a condition names; an empty one, as of a variable that is not set, is no condition.

    Raises:
        InvalidArgumentError: It is empty.
        TypeError: It is no string.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"the {what} has to be a string, not {type(value).__name__}")
    if not value:
        raise InvalidArgumentError(f"the {what} is empty")
    return value


def _check_condition(condition: object) -> None:
    if not isinstance(condition, v2.Filter | v2.Rank):
        raise TypeError(
            "expected a v2.Filter or v2.Rank (made by a function of clarigrpc.query), "
            f"not {type(condition).__name__}"
        )


def _annotated(data: v2.Data) -> v2.Filter:
    return v2.Filter(annotation=v2.Annotation(data=data))


def _ranked(data: v2.Data) -> v2.Rank:
    return v2.Rank(annotation=v2.Annotation(data=data))


def _moment(bound: date) -> datetime:
    """A bound of a time range as a datetime."""
    if isinstance(bound, date) and not isinstance(bound, datetime):
        return datetime.combine(bound, time())
    return bound
