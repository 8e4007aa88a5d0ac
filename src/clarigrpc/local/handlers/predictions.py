"""Predictions: all at once, generated piece by piece, and over a stream in both directions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._named_methods.method_failures import error_text
from clarigrpc.local import json_values
from clarigrpc.local.byte_budget import BudgetFullError
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.prediction_metrics import ServedPrediction
from clarigrpc.local.engine.remote_models import remote_runtime, selected_deployment
from clarigrpc.local.engine.runner_queues import UnavailableRunnerError
from clarigrpc.local.models.model_runtime import PredictOptions, combined, data_of, unknown_concepts
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.served_call import close_iterator
from clarigrpc.local.service_errors import ServiceError, http_status, make_status, overall
from clarigrpc.v2 import StatusCode

_logger = logging.getLogger(__name__)


class _ReadyModel:
    """The model version that a request names, ready to run."""

    def __init__(self, context: Context, request: v2.PostModelOutputsRequest) -> None:
        _name_deployed(context, request)
        app = context.readable(request.user_app_id)
        entry = context.model(app, request.model_id)
        version = entry.version(request.version_id)
        if version is None:
            raise ServiceError(
                StatusCode.MODEL_INVALID_REQUEST, f"model {entry.model.id!r} has no version"
            )
        context.state.faults.deploying(version.id)
        runtime = context.state.catalog.runtime(entry, version)
        self.runtime = runtime or remote_runtime(context, request, app, entry.model.id, version)
        config = combined(
            version.output_info.output_config,
            request.model.output_info.output_config,  # the older place
            request.model.model_version.output_info.output_config,
        )
        self.unknown = unknown_concepts(config, version.output_info.data.concepts)
        if self.unknown and len(self.unknown) == len(config.select_concepts):
            raise ServiceError(
                StatusCode.MODEL_INVALID_ARGUMENT, _unknown_details(entry.model.id, self.unknown)
            )
        self.options = PredictOptions(
            fetcher=context.state.fetcher,
            output_config=config,
            is_active=context.call.is_active,
        )
        # Ids alone: descriptions and parameters are for GetModel.
        self.model = v2.Model(
            id=entry.model.id,
            user_id=entry.model.user_id,
            app_id=entry.model.app_id,
            model_version=v2.ModelVersion(id=version.id),
        )


def _name_deployed(context: Context, request: v2.PostModelOutputsRequest) -> None:
    """Names the model of the deployment that a request without a model selects."""
    if request.model_id:
        return
    deployment = selected_deployment(context, request.runner_selector)
    if deployment is not None:
        model = deployment.worker.model
        request.model_id, request.version_id = model.id, model.model_version.id
        request.user_app_id.user_id = model.user_id or deployment.user_id
        request.user_app_id.app_id = model.app_id


def _unknown_details(model_id: str, unknown: Sequence[str]) -> str:
    return f"model {model_id!r} has no concepts {', '.join(map(repr, unknown))}"


def post_model_outputs(
    context: Context, request: v2.PostModelOutputsRequest
) -> v2.MultiOutputResponse:
    begun = time.perf_counter()
    ready = _ReadyModel(context, request)
    _prepare(request)
    response = v2.MultiOutputResponse()
    work = ready.runtime.predict_each([item.data for item in request.inputs], ready.options)
    for item, predict in zip(request.inputs, work, strict=True):
        output = _named(response.outputs.add(), ready, item)
        _fill(context, output, predict)
    response.status.CopyFrom(_overall(ready, response))
    _measured(context, ready, response.status.code, begun)
    return response


def _measured(
    context: Context, ready: _ReadyModel, code: int, begun: float, first: float | None = None
) -> None:
    """Keeps how long a call took, from clock readings of its begin and its first response."""
    model = ready.model
    served = ServedPrediction(
        at=time.time(),
        user_id=model.user_id,
        app_id=model.app_id,
        model_id=model.id,
        version_id=model.model_version.id,
        http_status=http_status(code),
        seconds=time.perf_counter() - begun,
        first_seconds=None if first is None else first - begun,
    )
    context.state.predictions.add(served)


def _measured_stream(
    context: Context,
    ready: _ReadyModel,
    begun: float,
    responses: Iterator[v2.MultiOutputResponse],
) -> Iterator[v2.MultiOutputResponse]:
    """The responses; when they end, however that is, the call is measured."""
    first: float | None = None
    code: int = StatusCode.SUCCESS
    try:
        for response in responses:
            first = first or time.perf_counter()
            code = response.status.code
            yield response
    except ServiceError as error:
        code = error.code
        raise
    finally:
        close_iterator(responses)
        _measured(context, ready, code, begun, first)


def _overall(ready: _ReadyModel, response: v2.MultiOutputResponse) -> v2.Status:
    """The status of a response.

    That of its input where a single one could not be fetched; MIXED_STATUS where the model does
    not have all of the concepts that were selected.
    """
    if len(response.outputs) == 1:
        only = response.outputs[0].status
        if only.code == StatusCode.INPUT_DOWNLOAD_FAILED:
            return only
    status = overall(output.status for output in response.outputs)
    if ready.unknown and status.code == StatusCode.SUCCESS:
        return make_status(StatusCode.MIXED_STATUS, _unknown_details(ready.model.id, ready.unknown))
    return status


def generate_model_outputs(
    context: Context, request: v2.PostModelOutputsRequest
) -> Iterator[v2.MultiOutputResponse]:
    begun = time.perf_counter()
    ready = _ReadyModel(context, request)
    _prepare(request)
    yield from _measured_stream(context, ready, begun, _generated(context, ready, request))


def stream_model_outputs(
    context: Context, requests: Iterator[v2.PostModelOutputsRequest]
) -> Iterator[v2.MultiOutputResponse]:
    if context.state.faults.drain_first:
        requests = iter(list(requests))
    first = next(requests, None)
    if first is None:
        return
    # The first request names the model, for all.
    begun = time.perf_counter()
    ready = _ReadyModel(context, first)
    _prepare(first)
    yield from _measured_stream(context, ready, begun, _streamed(context, ready, first, requests))


def _streamed(
    context: Context,
    ready: _ReadyModel,
    first: v2.PostModelOutputsRequest,
    requests: Iterator[v2.PostModelOutputsRequest],
) -> Iterator[v2.MultiOutputResponse]:
    if len(first.inputs) == 1 and ready.runtime.is_duplex(first.inputs[0].data):
        yield from _conversed(context, ready, first, requests)
        return
    for request in chain([first], requests):
        _prepare(request)
        yield from _generated(context, ready, request)


def _generated(
    context: Context, ready: _ReadyModel, request: v2.PostModelOutputsRequest
) -> Iterator[v2.MultiOutputResponse]:
    """A response for every step that any input makes; those that are done stay empty."""
    pieces = [ready.runtime.generate(item.data, ready.options) for item in request.inputs]
    failures: dict[int, v2.Status] = {}
    running = set(range(len(pieces)))
    try:
        while running and context.call.is_active():
            response = v2.MultiOutputResponse()
            news = False
            for index, item in enumerate(request.inputs):
                output = _named(response.outputs.add(), ready, item)
                if index not in running:
                    output.status.CopyFrom(failures.get(index, make_status(StatusCode.SUCCESS)))
                    continue
                step = partial(next, pieces[index], None)
                if _fill(context, output, step):
                    news = True
                    continue
                running.discard(index)
                if output.status.code != StatusCode.SUCCESS:
                    failures[index] = output.status
                    news = True
            if news:
                response.status.CopyFrom(_overall(ready, response))
                yield response
    finally:
        # A client that stops early stops the model, too.
        for piece in pieces:
            close_iterator(piece)


def _conversed(
    context: Context,
    ready: _ReadyModel,
    first: v2.PostModelOutputsRequest,
    requests: Iterator[v2.PostModelOutputsRequest],
) -> Iterator[v2.MultiOutputResponse]:
    newest = first.inputs[0]

    def data() -> Iterator[v2.Data]:
        nonlocal newest
        yield newest.data
        for request in requests:
            _prepare(request, most=1)
            newest = request.inputs[0]
            yield newest.data

    results = ready.runtime.converse(data(), ready.options)
    try:
        while context.call.is_active():
            response = v2.MultiOutputResponse()
            output = response.outputs.add()
            going = _fill(context, output, partial(next, results, None))
            if not going and output.status.code == StatusCode.SUCCESS:
                return
            _named(output, ready, newest)
            response.status.CopyFrom(overall([output.status]))
            yield response
            if not going:
                return
    finally:
        close_iterator(results)


def _named(output: v2.Output, ready: _ReadyModel, item: v2.Input) -> v2.Output:
    """Says which model answered and which input it answered; the bytes are not echoed."""
    output.id = new_id()
    output.created_at.GetCurrentTime()
    output.model.CopyFrom(ready.model)
    output.input.id = item.id
    for kind in ("image", "video", "audio", "text"):
        url = getattr(item.data, kind).url
        if url:
            getattr(output.input.data, kind).url = url
    return output


def _fill(
    context: Context, output: v2.Output, work: Callable[[], v2.Data | v2.Output | None]
) -> bool:
    """Puts a result, or why there is none, into the output; True where there is data."""
    data = None
    try:
        context.state.faults.fail_input(output.input.id, StatusCode.MODEL_PREDICTION_FAILED)
        made = work()
        data = None if made is None else data_of(made)
        if data is not None:
            json_values.check_output(data)
    except (BudgetFullError, UnavailableRunnerError):
        raise  # concerns the call
    except ServiceError as error:
        output.status.CopyFrom(error.status())
        return False
    except Exception as error:
        # A model may be anybody's function: what it raises is its input's failure.
        _logger.exception("model %s failed", output.model.id)
        status = make_status(StatusCode.MODEL_PREDICTION_FAILED, error_text(error))
        output.status.CopyFrom(status)
        return False
    output.status.CopyFrom(make_status(StatusCode.SUCCESS))
    if data is None:
        return False
    output.data.CopyFrom(data)
    if isinstance(made, v2.Output):
        output.prompt_tokens = made.prompt_tokens
        output.completion_tokens = made.completion_tokens
        output.cached_tokens = made.cached_tokens
    return True


def _prepare(request: v2.PostModelOutputsRequest, most: int = MAX_ITEMS) -> None:
    """Checks the number of inputs, and gives those without an id one to be known by."""
    count = len(request.inputs)
    if count == 0:
        raise ServiceError(StatusCode.PREDICT_INVALID_REQUEST, "the request has no inputs")
    if count > most:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            f"the request has {count} inputs; the maximum is {most}",
        )
    for item in request.inputs:
        item.id = item.id or new_id()


UNARY: dict[str, Callable[[Context, Any], Message]] = {"PostModelOutputs": post_model_outputs}
SERVER_STREAM: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    "GenerateModelOutputs": generate_model_outputs
}
DUPLEX: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    "StreamModelOutputs": stream_model_outputs
}
