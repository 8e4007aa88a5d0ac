"""The answer to an item: which methods run, and the responses that come of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name
from clarigrpc._named_methods.annotations import MethodInputError
from clarigrpc._named_methods.method_failures import error_text
from clarigrpc._named_methods.method_loop import CallerGoneError
from clarigrpc._named_methods.python_methods import (
    CallingStyle,
    MethodRun,
    ModelMethod,
    PythonMethods,
)
from clarigrpc._named_methods.values import MediaReader
from clarigrpc._worker.item_call import ItemAbortedError, ItemCall
from clarigrpc._worker.item_steps import (
    NextRequest,
    NextResult,
    RunBatch,
    RunFunction,
    StartMethod,
    WorkerPlan,
)
from clarigrpc.v2 import StatusCode

logger = logging.getLogger("clarigrpc")

Send = Callable[[v2.MultiOutputResponse], WorkerPlan[None]]
"""Hands one response to the service."""

_STREAMED = (
    v2.RunnerMethodType.STREAMING_UNARY,
    v2.RunnerMethodType.STREAMING_STREAMING,
)


class UnreadableUrlError(ValueError):
    """An input is a URL, and the worker was not told how to fetch it."""


class UrlReader(MediaReader):
    """Reads texts and images; those that are URLs by a function.

    Args:
        fetch: Returns the content behind a URL. None refuses URLs.
    """

    def __init__(self, fetch: Callable[[str], bytes] | None) -> None:
        self._fetch = fetch
        self.blocks = fetch is not None

    def text(self, data: v2.Data) -> str:
        if data.text.url and not data.text.raw:
            return self._get(data.text.url).decode()
        return super().text(data)

    def image(self, data: v2.Data) -> Any:
        if data.image.url and not data.image.base64:
            data = v2.Data(image=v2.Image(base64=self._get(data.image.url)))
        return super().image(data)

    def _get(self, url: str) -> bytes:
        if self._fetch is None:
            raise UnreadableUrlError(
                "this runner fetches no URLs; send the content, or start the runner with fetch="
            )
        return self._fetch(url)


class ItemAnswer:
    """Answers items with the methods of a model.

    Args:
        methods: Those of the model.
        reader: Reads texts and images.
    """

    def __init__(self, methods: PythonMethods, reader: MediaReader) -> None:
        self._methods = methods
        self._reader = reader

    def respond(self, call: ItemCall, send: Send) -> WorkerPlan[None]:
        """Run the item of a call, and send what comes of it as it is made.

        Raises:
            ItemAbortedError: The item was aborted.
        """
        try:
            yield from self._respond(call, send)
        except ItemAbortedError:
            raise
        except Exception as error:  # an item that cannot be served must not end the others
            logger.exception("an item could not be served")
            yield from send(_refusal(StatusCode.RUNNER_PROCESSING_FAILED, error_text(error)))

    def _respond(self, call: ItemCall, send: Send) -> WorkerPlan[None]:
        item = call.item
        assert item is not None
        style = item.processing_info.runner_method_type
        if not item.HasField("post_model_outputs_request"):
            kind = item.WhichOneof("request") or "nothing"
            yield from send(
                _refusal(
                    StatusCode.RUNNER_INVALID_REQUEST, f"this runner serves predictions, not {kind}"
                )
            )
        elif style in _STREAMED:
            yield from self._stream(call, send)
        elif style == v2.RunnerMethodType.UNARY_STREAMING:
            yield from self._generate(call, item.post_model_outputs_request, send)
        else:
            yield from self._predict(call, item.post_model_outputs_request, send)

    def _predict(
        self, call: ItemCall, request: v2.PostModelOutputsRequest, send: Send
    ) -> WorkerPlan[None]:
        response = v2.MultiOutputResponse()
        batches: dict[int, tuple[ModelMethod, list[v2.Output], list[dict[str, Any]]]] = {}
        for given in request.inputs:
            output = _output_for(response, given)
            run = yield from self._prepare(given.data, output, "predict")
            if run is None:
                continue
            if run.method is not None and run.method.batched:
                _, outputs, rows = batches.setdefault(id(run.method), (run.method, [], []))
                outputs.append(output)
                rows.append(run.arguments)
                continue
            results = yield StartMethod(run, call)
            yield from self._step(call, results, output)
        for method, outputs, rows in batches.values():
            answers: Sequence[Any] = yield RunBatch(method, rows, call)
            for output, answer in zip(outputs, answers, strict=True):
                if isinstance(answer, Exception):
                    _fail(output, answer)
                else:
                    _succeed(output, answer)
        response.status.CopyFrom(_overall(response))
        yield from send(response)

    def _generate(
        self, call: ItemCall, request: v2.PostModelOutputsRequest, send: Send
    ) -> WorkerPlan[None]:
        """A response for every step that any input makes; those that are done stay empty."""
        running: dict[int, Any] = {}
        ended = [v2.Output() for _ in request.inputs]
        failures = False
        for index, given in enumerate(request.inputs):
            run = yield from self._prepare(given.data, ended[index], "generate")
            if run is None:
                failures = True
            else:
                running[index] = yield StartMethod(run, call)
        while running or failures:
            response, news, failures = v2.MultiOutputResponse(), failures, False
            for index, given in enumerate(request.inputs):
                output = _output_for(response, given)
                if index not in running:
                    output.status.CopyFrom(ended[index].status)
                    continue
                if (yield from self._step(call, running[index], output)):
                    news = True
                    continue
                del running[index]
                ended[index].status.CopyFrom(output.status)
                news = news or output.status.code != StatusCode.SUCCESS
            if news:
                response.status.CopyFrom(_overall(response))
                yield from send(response)

    def _stream(self, call: ItemCall, send: Send) -> WorkerPlan[None]:
        first = call.inputs[0] if call.inputs else None
        output = v2.Output()
        if first is not None and len(first.inputs) == 1:
            data = first.inputs[0].data
            try:
                duplex = self._methods.takes_stream(data)
            except MethodInputError as error:
                _fail(output, error)
                yield from send(_single(output, first.inputs[0]))
                return
            if duplex:
                yield from self._converse(call, data, first.inputs[0], send)
                return
        while (request := (yield NextRequest(call))) is not None:
            yield from self._generate(call, request, send)

    def _converse(
        self, call: ItemCall, data: v2.Data, given: v2.Input, send: Send
    ) -> WorkerPlan[None]:
        output = v2.Output()
        run = yield from self._prepare(data, output, "stream")
        if run is None:
            yield from send(_single(output, given))
            return
        results = yield StartMethod(run, call, streamed=True)
        going = True
        while going:
            output = v2.Output()
            going = yield from self._step(call, results, output)
            if going or output.status.code != StatusCode.SUCCESS:
                yield from send(_single(output, given))

    def _prepare(
        self, data: v2.Data, output: v2.Output, style: CallingStyle
    ) -> WorkerPlan[MethodRun | None]:
        """The method to run; None, and why in the output, where there is none."""
        output.status.code = StatusCode.SUCCESS
        try:
            prepare = partial(self._methods.prepare, data, style, self._reader)
            run: MethodRun = (yield RunFunction(prepare)) if self._reader.blocks else prepare()
        except Exception as error:  # noqa: BLE001 - of readers of foreign bytes, or of ``fetch``
            _fail(output, error)
            return None
        return run

    def _step(self, call: ItemCall, results: Any, output: v2.Output) -> WorkerPlan[bool]:
        """Put the next result, or why there is none, into the output; True where there is one."""
        try:
            data: v2.Data | None = yield NextResult(results, call)
        except (ItemAbortedError, CallerGoneError) as error:
            raise ItemAbortedError(call.abort or str(error)) from None
        except Exception as error:  # noqa: BLE001 - a model may be anybody's function
            _fail(output, error)
            return False
        if call.abort is not None:
            raise ItemAbortedError(call.abort)
        if data is None:
            output.status.code = StatusCode.SUCCESS
            return False
        _succeed(output, data)
        return True


def _output_for(response: v2.MultiOutputResponse, given: v2.Input) -> v2.Output:
    output = response.outputs.add()
    output.input.id = given.id
    return output


def _single(output: v2.Output, given: v2.Input) -> v2.MultiOutputResponse:
    response = v2.MultiOutputResponse(outputs=[output])
    response.outputs[0].input.id = given.id
    response.status.CopyFrom(_overall(response))
    return response


def _succeed(output: v2.Output, data: v2.Data) -> None:
    output.data.CopyFrom(data)
    output.status.code = StatusCode.SUCCESS


def _fail(output: v2.Output, error: Exception) -> None:
    if isinstance(error, MethodInputError):
        code, details = StatusCode.INPUT_INVALID_ARGUMENT, str(error)
    else:
        logger.error("a method of the model failed", exc_info=error)
        code, details = StatusCode.MODEL_PREDICTION_FAILED, error_text(error)
    output.status.CopyFrom(_status(code, details))


def _status(code: StatusCode.ValueType, details: str = "") -> v2.Status:
    return v2.Status(
        code=code, description=code_name(code).replace("_", " ").capitalize(), details=details
    )


def _overall(response: v2.MultiOutputResponse) -> v2.Status:
    """SUCCESS, or MIXED_STATUS where some failed, or FAILURE where all did."""
    count = len(response.outputs)
    bad = sum(output.status.code != StatusCode.SUCCESS for output in response.outputs)
    if not bad:
        return _status(StatusCode.SUCCESS)
    if bad < count:
        return _status(StatusCode.MIXED_STATUS, f"{bad} of {count} inputs failed")
    return _status(StatusCode.FAILURE, "all inputs failed; see the status of each output")


def _refusal(code: StatusCode.ValueType, details: str) -> v2.MultiOutputResponse:
    return v2.MultiOutputResponse(status=_status(code, details))
