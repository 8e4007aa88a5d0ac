"""What the server measured of the predictions that it served, as time series."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from clarigrpc import v2
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

KEPT_PREDICTIONS = 20_000
"""The newest ones, of all users together."""

_MAX_POINTS = 10_000
_USUAL_POINTS = 300
_RESOLUTION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_USUAL_RESOLUTIONS = ("1s", "10s", "1m", "5m", "1h", "1d")

_Label: TypeAlias = v2.MetricLabel.ValueType
_Type: TypeAlias = v2.MetricType.ValueType
_Operator: TypeAlias = v2.MetricAggregate.Operator.ValueType


class ServedPrediction(NamedTuple):
    """A call that predicts.

    Attributes:
        at: When it ended, in seconds since 1970.
        user_id: Owner of the model.
        app_id: App of the model.
        model_id: The model.
        version_id: Its version.
        http_status: What the response has over HTTP.
        seconds: How long it took.
        first_seconds: How long its first response took; None where there is one response only.
    """

    at: float
    user_id: str
    app_id: str
    model_id: str
    version_id: str
    http_status: int
    seconds: float
    first_seconds: float | None = None


_METRIC_LABELS: Mapping[_Label, Callable[[ServedPrediction], str]] = {
    v2.MetricLabel.APP_ID: lambda one: one.app_id,
    v2.MetricLabel.MODEL_ID: lambda one: one.model_id,
    v2.MetricLabel.MODEL_VERSION_ID: lambda one: one.version_id,
    v2.MetricLabel.HTTP_STATUS: lambda one: str(one.http_status),
}
_MEASURES: Mapping[_Type, Callable[[ServedPrediction], float | None]] = {
    v2.MetricType.MODEL_REQUEST_COUNT: lambda one: 1.0,
    v2.MetricType.MODEL_E2E_LATENCY: lambda one: one.seconds,
    v2.MetricType.MODEL_TTFT: lambda one: one.first_seconds,
}
"""What is measured: counts, and times in seconds."""

_OPERATORS: Mapping[_Operator, Callable[[Sequence[float]], float]] = {
    v2.MetricAggregate.AVG: lambda values: float(np.mean(values)),
    v2.MetricAggregate.SUM: lambda values: float(np.sum(values)),
    v2.MetricAggregate.MAX: max,
    v2.MetricAggregate.MIN: min,
    v2.MetricAggregate.P50: lambda values: float(np.percentile(values, 50)),
    v2.MetricAggregate.P95: lambda values: float(np.percentile(values, 95)),
    v2.MetricAggregate.P99: lambda values: float(np.percentile(values, 99)),
    v2.MetricAggregate.COUNT: len,
}


class PredictionMetrics:
    """The newest predictions. They are lost when the server ends."""

    def __init__(self) -> None:
        # Appending to it takes no lock: calls may end in a finalizer.
        self._served: deque[ServedPrediction] = deque(maxlen=KEPT_PREDICTIONS)

    def add(self, one: ServedPrediction) -> None:
        """Keeps a prediction."""
        self._served.append(one)

    def of(self, user_id: str) -> list[ServedPrediction]:
        """Those by the models of a user."""
        return [one for one in self._served.copy() if one.user_id == user_id]


def labels(
    found: Iterable[ServedPrediction], types: Iterable[_Type]
) -> Iterable[v2.MetricTypeLabels]:
    """The labels of each type that is measured, with their values; of all types for none."""
    served = list(found)
    for kind in types or _MEASURES:
        made = v2.MetricTypeLabels(metric_type=kind)
        if measure := _MEASURES.get(kind):
            measured = [one for one in served if measure(one) is not None]
            for label, value_of in _METRIC_LABELS.items():
                made.labels.add(label=label, values=sorted({value_of(one) for one in measured}))
        yield made


def answer(
    found: Iterable[ServedPrediction], query: v2.MetricSearchQuery
) -> v2.MetricsQueryResponse:
    """The time series that a query asks for; none of a type that is not measured.

    A series has a point for each stretch of time in which there was something. A count is first
    made for all labels apart, and then folded; other values are folded as they are, without an
    aggregate to their mean.

    Raises:
        ServiceError: CONN_INVALID_REQUEST (11102) for a query that cannot be.
    """
    begin, end, resolution = _bounds(query)
    response = v2.MetricsQueryResponse(resolution=resolution)
    matrix = response.data.matrix_data
    measure = _MEASURES.get(query.metric_type)
    if measure is None:
        return response
    is_wanted = _filter(query.filters)
    step = _seconds(resolution)
    folded = query.aggregate.operator != v2.MetricAggregate.OPERATOR_NOT_SET
    apart = list(dict.fromkeys(query.aggregate.labels)) if folded else list(_METRIC_LABELS)
    _check_labels(apart)
    counted = query.metric_type == v2.MetricType.MODEL_REQUEST_COUNT
    # Series -> stretch of time -> what is folded there, by all labels for counts.
    series: dict[tuple[str, ...], dict[int, dict[tuple[str, ...], list[float]]]] = {}
    for one in found:
        value = measure(one)
        if value is None or not begin <= one.at < end or not is_wanted(one):
            continue
        name = tuple(_METRIC_LABELS[label](one) for label in apart)
        part = tuple(value_of(one) for value_of in _METRIC_LABELS.values()) if counted else ()
        stretch = series.setdefault(name, {}).setdefault(int((one.at - begin) // step), {})
        stretch.setdefault(part, []).append(value)
    fold = _OPERATORS[query.aggregate.operator if folded else v2.MetricAggregate.AVG]
    for name, stretches in sorted(series.items()):
        made = matrix.series.add()
        for label, text in zip(apart, name, strict=True):
            made.labels.add(name=label, value=text)
        for number, parts in sorted(stretches.items()):
            values = [sum(part) for part in parts.values()] if counted else parts[()]
            point = made.value.add(value=fold(values))
            point.timestamp.FromNanoseconds(int((begin + number * step) * 1e9))
    return response


def _refused(details: str) -> ServiceError:
    return ServiceError(StatusCode.CONN_INVALID_REQUEST, details)


def _bounds(query: v2.MetricSearchQuery) -> tuple[float, float, str]:
    """Begin and end in seconds since 1970, and the distance between points."""
    if query.metric_type == v2.MetricType.METRIC_TYPE_NOT_SET:
        raise _refused("query.metric_type is missing")
    if not (query.HasField("start_time") and query.HasField("end_time")):
        raise _refused("query.start_time and query.end_time are needed")
    begin, end = (stamp.ToNanoseconds() / 1e9 for stamp in (query.start_time, query.end_time))
    if begin >= end:
        raise _refused("query.start_time must be before query.end_time")
    resolution = query.resolution or next(
        (one for one in _USUAL_RESOLUTIONS if (end - begin) / _seconds(one) <= _USUAL_POINTS),
        _USUAL_RESOLUTIONS[-1],
    )
    if (end - begin) / _seconds(resolution) > _MAX_POINTS:
        raise _refused(f"query.resolution makes more than {_MAX_POINTS} points of this time")
    return begin, end, resolution


def _seconds(resolution: str) -> int:
    parts = _RESOLUTION.fullmatch(resolution)
    if parts is None:
        raise _refused(f"query.resolution must be like 30s, 5m, 1h or 1d, not {resolution!r}")
    return int(parts[1]) * _UNITS[parts[2]]


def _check_labels(names: Iterable[_Label]) -> None:
    unknown = [name for name in names if name not in _METRIC_LABELS]
    if unknown:
        known = ", ".join(map(v2.MetricLabel.Name, _METRIC_LABELS))
        raise _refused(f"predictions have the labels {known} only")


def _filter(filters: Iterable[v2.MetricFilter]) -> Callable[[ServedPrediction], bool]:
    _check_labels(one.label for one in filters)
    accepted = []
    for one in filters:
        kind = one.WhichOneof("value")
        if kind is None:
            raise _refused("a filter needs equals or in")
        values = {one.equals} if kind == "equals" else set(getattr(getattr(one, "in"), "in"))
        accepted.append((_METRIC_LABELS[one.label], values))
    return lambda served: all(value_of(served) in values for value_of, values in accepted)
