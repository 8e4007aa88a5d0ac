"""Time series of what the server measured of predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.engine.prediction_metrics import ServedPrediction, answer
from tests.local.both_fronts import front as front
from tests.local.conftest import PUBLIC, Raw, ok

Code = v2.StatusCode
Type = v2.MetricType
Label = v2.MetricLabel
Operator = v2.MetricAggregate

USER = "clarifai"


@pytest.fixture(scope="module")
def served() -> Iterator[Raw]:
    """A server whose default user has the public models, after some predictions by them."""
    config = {"users": [{"id": USER, "pat": "a-pat", "apps": [{"id": "main"}]}]}
    with (
        LocalServer(config=config, rest_port=0) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = Raw(server, v2.V2Stub(channel))
        for model, texts in (("text-sentiment", ["good", "bad"]), ("text-stream", ["one two"])):
            request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id=model)
            for text in texts:
                request.inputs.add().data.text.raw = text
            ok(raw("PostModelOutputs", request))
            ok(raw("PostModelOutputs", request))
        generated = raw.stub.GenerateModelOutputs(request, metadata=raw.metadata, timeout=20)
        assert len(list(generated)) > 1
        request.inputs.add()  # without data
        assert raw("PostModelOutputs", request).status.code == Code.MIXED_STATUS
        yield raw


def query(kind: Type.ValueType, **fields: object) -> v2.PostMetricsQueryRequest:
    made = v2.MetricSearchQuery(metric_type=kind, **fields)  # type: ignore[arg-type]
    made.start_time.FromSeconds(int(time.time()) - 3000)
    made.end_time.FromSeconds(int(time.time()) + 600)
    return v2.PostMetricsQueryRequest(query=made)


def series(response: v2.MetricsQueryResponse) -> dict[tuple[str, ...], list[float]]:
    return {
        tuple(label.value for label in one.labels): [point.value for point in one.value]
        for one in response.data.matrix_data.series
    }


def test_requests_are_counted(served: Raw) -> None:
    request = query(Type.MODEL_REQUEST_COUNT, resolution="1h")
    request.query.aggregate.operator = Operator.SUM
    request.query.aggregate.labels.append(Label.MODEL_ID)
    response = ok(served("PostMetricsQuery", request))
    assert response.resolution == "1h"
    assert series(response) == {("text-sentiment",): [2], ("text-stream",): [4]}
    request.query.filters.add(label=Label.MODEL_ID, equals="text-sentiment")
    del request.query.aggregate.labels[:]
    assert series(ok(served("PostMetricsQuery", request))) == {(): [2]}
    request.query.ClearField("aggregate")
    ((labels, values),) = series(ok(served("PostMetricsQuery", request))).items()
    assert labels[:2] == ("main", "text-sentiment")
    assert labels[3] == "200"
    assert values == [2]


def test_times_are_in_seconds(served: Raw) -> None:
    for kind, count in ((Type.MODEL_E2E_LATENCY, 6), (Type.MODEL_TTFT, 1)):
        request = query(kind, resolution="1d")
        request.query.aggregate.operator = Operator.COUNT
        assert series(ok(served("PostMetricsQuery", request))) == {(): [count]}
        request.query.aggregate.operator = Operator.MAX
        (most,) = series(ok(served("PostMetricsQuery", request)))[()]
        request.query.aggregate.operator = Operator.MIN
        (least,) = series(ok(served("PostMetricsQuery", request)))[()]
        assert 0 < least <= most < 60


def test_what_is_not_measured_is_empty(served: Raw) -> None:
    response = ok(served("PostMetricsQuery", query(Type.NODEPOOL_GPU_UTILIZATION)))
    assert not response.data.matrix_data.series
    assert response.resolution == "1m"


def test_labels_have_the_values_that_were_seen(served: Raw) -> None:
    request = v2.ListMetricLabelsRequest(metric_types=[Type.MODEL_TTFT, Type.NODEPOOL_NODE_COUNT])
    first, none = ok(served("ListMetricLabels", request)).metric_type_labels
    assert {one.label: list(one.values) for one in first.labels}[Label.MODEL_ID] == ["text-stream"]
    assert not none.labels
    every = ok(served("ListMetricLabels", v2.ListMetricLabelsRequest())).metric_type_labels
    assert len(every) == 3


def _without(name: str) -> Callable[[v2.MetricSearchQuery], None]:
    return lambda made: made.ClearField(name)  # type: ignore[arg-type]


def _resolved(text: str) -> Callable[[v2.MetricSearchQuery], None]:
    return lambda made: setattr(made, "resolution", text)


@pytest.mark.parametrize(
    "spoil",
    [
        _without("metric_type"),
        _without("start_time"),
        _without("end_time"),
        lambda made: made.start_time.CopyFrom(made.end_time),
        _resolved("5"),
        _resolved("0m"),
        _resolved("1.5h"),
        lambda made: (made.start_time.FromSeconds(0), _resolved("1s")(made)),
        lambda made: made.filters.add(label=Label.MODEL_ID),
        lambda made: made.filters.add(label=Label.NODEPOOL_ID, equals="x"),
        lambda made: made.aggregate.MergeFrom(
            v2.MetricAggregate(operator=Operator.SUM, labels=[Label.COMPUTE_CLUSTER_ID])
        ),
    ],
)
def test_queries_that_cannot_be(
    served: Raw, spoil: Callable[[v2.MetricSearchQuery], object]
) -> None:
    request = query(Type.MODEL_REQUEST_COUNT)
    spoil(request.query)
    response = served("PostMetricsQuery", request)
    assert response.status.code == Code.CONN_INVALID_REQUEST
    assert response.status.details


def test_metrics_are_their_users_own(raw: Raw) -> None:
    request = query(Type.MODEL_REQUEST_COUNT)
    request.user_app_id.user_id = "clarifai"
    assert raw("PostMetricsQuery", request).status.code == Code.CONN_INSUFFICIENT_SCOPES


_SERVED = st.builds(
    ServedPrediction,
    at=st.floats(0, 1000),
    user_id=st.just("u"),
    app_id=st.sampled_from("ab"),
    model_id=st.sampled_from("mn"),
    version_id=st.just("v"),
    http_status=st.sampled_from([200, 400]),
    seconds=st.floats(0, 10),
    first_seconds=st.none() | st.floats(0, 10),
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(_SERVED, max_size=30),
    st.sets(st.sampled_from([Label.APP_ID, Label.MODEL_ID, Label.HTTP_STATUS])),
    st.integers(1, 600),
    st.floats(0, 900),
)
def test_a_sum_of_counts_is_the_number_of_predictions(
    found: Sequence[ServedPrediction], labels: set[Label.ValueType], step: int, begin: float
) -> None:
    made = v2.MetricSearchQuery(metric_type=Type.MODEL_REQUEST_COUNT, resolution=f"{step}s")
    made.start_time.FromSeconds(int(begin))
    made.end_time.FromSeconds(950)
    made.aggregate.operator = Operator.SUM
    made.aggregate.labels.extend(labels)
    response = answer(found, made)
    inside = [one for one in found if int(begin) <= one.at < 950]
    assert sum(sum(values) for values in series(response).values()) == len(inside)
    for one in response.data.matrix_data.series:
        stamps = [point.timestamp.ToSeconds() for point in one.value]
        assert stamps == sorted(set(stamps))
        assert all((stamp - int(begin)) % step == 0 for stamp in stamps)
