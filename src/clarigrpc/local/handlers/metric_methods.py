"""Queries over what the server measured of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine import prediction_metrics
from clarigrpc.local.engine.context import Context
from clarigrpc.local.service_errors import make_status
from clarigrpc.v2 import StatusCode


def query_metrics(context: Context, request: v2.PostMetricsQueryRequest) -> v2.MetricsQueryResponse:
    user_id = context.user(request.user_app_id)
    response = prediction_metrics.answer(context.state.predictions.of(user_id), request.query)
    response.status.CopyFrom(make_status(StatusCode.SUCCESS))
    return response


def list_metric_labels(
    context: Context, request: v2.ListMetricLabelsRequest
) -> v2.MultiMetricLabelsResponse:
    user_id = context.user(request.user_app_id)
    found = prediction_metrics.labels(
        context.state.predictions.of(user_id), list(request.metric_types)
    )
    return v2.MultiMetricLabelsResponse(
        status=make_status(StatusCode.SUCCESS), metric_type_labels=found
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostMetricsQuery": query_metrics,
    "ListMetricLabels": list_metric_labels,
}
