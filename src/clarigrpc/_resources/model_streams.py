"""Streams and named methods of a model: ``stream``, ``generate``, ``methods`` and ``call``."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Operations
from clarigrpc._resources.sync_async import Opening, operation, streaming
from clarigrpc._rpc.call import SUCCESS
from clarigrpc._rpc.encoding import PredictEncoder
from clarigrpc._rpc.plan import Plan, async_method, call, sync_method
from clarigrpc._streams.flow_control import DEFAULT_PATIENCE, DEFAULT_WINDOW, FlowControl
from clarigrpc.media import PredictInput, refuse_single

if TYPE_CHECKING:  # imported by the first stream
    from clarigrpc._named_methods.signatures import MethodCall
    from clarigrpc._streams.response_stream import AsyncStream, Stream, StreamSession


_NO_CONTENT = (v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, v2.StatusCode.INPUT_INVALID_ARGUMENT)


def outputs_of(response: v2.MultiOutputResponse, method: str, raising: bool) -> Iterator[v2.Output]:
    """The outputs of a response of a stream; ``raising``: until the first that failed."""
    for output in response.outputs:
        if raising and output.status.code != SUCCESS:
            from clarigrpc._rpc import statuses

            failure = statuses.from_item(
                output.status, method=method, request_id=response.status.req_id
            )
            if failure is not None:
                raise failure
        yield output


class _InputEncoder:
    """A request for each input."""

    def __init__(self, encoder: PredictEncoder) -> None:
        self._encoder = encoder

    def encode(self, value: Any) -> bytes:
        return self._encoder.encode((value,))

    def empty(self) -> None:
        return None


class StreamOperations(Operations):
    """The part of it that does not wait."""

    model_id: str
    _signatures: Mapping[str, v2.MethodSignature] | None = None

    @property
    def _encoder(self) -> PredictEncoder:
        """The encoder of this handle's requests."""
        raise NotImplementedError

    def _flow_control(
        self, values: Any, window: int, drain_first: bool, patience: float
    ) -> tuple[FlowControl, _InputEncoder]:
        refuse_single(values, "stream", "generate() takes one")
        flow = FlowControl(None if drain_first else window, patience)
        return flow, _InputEncoder(self._encoder)

    def _output_reader(self, method: str, raise_on_partial: bool | None) -> Any:
        raising = self._client.raises_on_partial(raise_on_partial)
        return partial(outputs_of, method=method, raising=raising)

    # The text of what each client has an implementation of its own for.

    def stream(
        self,
        values: Iterable[PredictInput],
        *,
        window: int = DEFAULT_WINDOW,
        drain_first: bool = False,
        patience: float = DEFAULT_PATIENCE,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Any:
        """Predict a stream of inputs over one call, in both directions at once.

        The call starts at once. A thread of gRPC reads ``values``, or a task an asynchronous one: a
        slow source does not hold back outputs. The thread ends with the call, unless the source
        never returns.

        A failure is raised after the outputs that arrived before it. If the source raises an error,
        the inputs before it are answered first. Until the first output arrives, a model that is
        being deployed is waited for, and inputs already sent are sent again (up to 64 MiB).

        Args:
            values: What ``predict`` takes, from any iterable; an ``AsyncModel`` also takes an
                asynchronous one.
            window: Maximum unanswered inputs; each response makes room for one. Default 32.
            drain_first: Whether the server reads all inputs before it answers. True sends without a
                window, as fast as the server reads; the server has to hold all inputs. Default
                False.
            patience: Seconds without a response after which a full window is opened for good, with
                a warning in the log, since the server may read all inputs before it answers.
                ``inf`` never opens it. Default 10.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.
            raise_on_partial: Whether a failed input ends the stream with its error. False yields
                its output with its status. None uses the client's setting.

        Returns:
            An iterator of outputs in the order of the inputs. To end the call, leave its ``with``
            block, call its ``cancel`` or drop it.

        Raises:
            ApiError: The call failed; the subclass says how (see ``errors``). Raised by the
                iterator.
            UnimplementedError: The transport is REST, which has no client streams. Raised by the
                iterator.
            TypeError: ``values`` is a single input.
        """
        raise NotImplementedError

    def call(self, method: str, /, *, _timeout: float | None = None, **arguments: Any) -> Any:
        """Call a method of the model by name.

        Arguments are checked against the signature that the model reports (see ``methods``),
        because servers ignore unknown ones. The page "Predicting" of the documentation has a table
        of the types.

        With an ``AsyncModel``, ``await model.call("shout", text="hey")`` returns a result, and
        ``async for word in model.call("speak", text="hey")`` iterates over a stream of results.

        Args:
            method: Name of the method.
            _timeout: Seconds. None uses the client's setting. The name has an underscore because
                the method may have an argument ``timeout``.
            arguments: Arguments by name. A streamed argument takes an iterable.

        Returns:
            The result, or an iterator of results if the method streams them, like that of
            ``generate``.

        Raises:
            TypeError: An argument is unknown, missing or of the wrong type.
            InvalidArgumentError: The model has no such method.
            UnimplementedError: The model has no methods with named arguments.
        """
        raise NotImplementedError

    @streaming
    def generate(self, value: PredictInput, *, timeout: float | None = None) -> Opening[v2.Output]:
        """Generate the outputs of one input: get each as soon as the model has made it.

        The call starts at once. A model that is being deployed is waited for.

        Args:
            value: What ``predict`` takes, but no list.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.

        Returns:
            An iterator of outputs. To end the call, leave its ``with`` block, call its ``cancel``
            or drop it.

        Raises:
            ApiError: The call failed; the subclass says how (see ``errors``). Raised by the
                iterator, after the outputs that arrived before.
        """
        from clarigrpc._streams.predict_streams import GenerateSession

        session = GenerateSession(
            self._encoder.encode((value,)), self._output_reader("GenerateModelOutputs", True)
        )
        return Opening("GenerateModelOutputs", session, timeout, encoded=True)

    @operation
    def methods(self, *, timeout: float | None = None) -> Plan[dict[str, v2.MethodSignature]]:
        """Fetch the signatures of the model's methods, as the model itself reports them.

        They are requested once per handle.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            Signatures by the names of the methods, which ``call`` calls.

        Raises:
            UnimplementedError: The model has no methods with named arguments.
        """
        from clarigrpc._named_methods import signatures

        if self._signatures is None:
            try:
                output = yield from self._output(signatures.signatures_input(), timeout)
            except errors.InvalidArgumentError as error:
                # It takes the question for an input, and that has no content.
                if error.code not in _NO_CONTENT:
                    raise
                raise signatures.without_methods(self.model_id) from error
            self._signatures = signatures.read_signatures(output, self.model_id)
        return dict(self._signatures)

    def _output(self, value: v2.Input, timeout: float | None) -> Plan[v2.Output]:
        response = yield from call(
            "PostModelOutputs",
            self._encoder.encode((value,)),
            timeout=timeout,
            raise_on_partial=False,
        )
        for output in outputs_of(response, "PostModelOutputs", raising=True):
            return output
        raise errors.InternalError(
            "the service answered without an output", method="PostModelOutputs"
        )

    def _prepare(
        self, method: str, arguments: Mapping[str, Any], timeout: float | None
    ) -> Plan[MethodCall]:
        from clarigrpc._named_methods.signatures import MethodCall, find

        known = yield from StreamOperations.methods.plan(self, timeout=timeout)
        signature = find(known, method, self.model_id)
        return MethodCall(signature, arguments, lambda one: self._encoder.encode((one,)))

    def _ask(self, prepared: MethodCall, timeout: float | None) -> Plan[Any]:
        response = yield from call(
            "PostModelOutputs", prepared.request(), timeout=timeout, raise_on_partial=False
        )
        for output in outputs_of(response, "PostModelOutputs", raising=True):
            return prepared.result(output)
        raise _no_result("PostModelOutputs")

    def _results(self, prepared: MethodCall, method: str) -> Any:
        outputs = self._output_reader(method, True)
        return lambda response: prepared.results(outputs(response))


def _no_result(method: str) -> errors.InternalError:
    return errors.InternalError("the service answered without an output", method=method)


class ModelStreams(StreamOperations):
    """What streams of a model, blocking."""

    _prepared = sync_method(StreamOperations._prepare)
    _asked = sync_method(StreamOperations._ask)

    def _stream(
        self, method: str, session: StreamSession[Any], timeout: float | None
    ) -> Stream[Any]:
        from clarigrpc._streams.response_stream import Stream

        return Stream(self._unary(method, encoded=True), session, timeout)

    def stream(
        self,
        values: Iterable[PredictInput],
        *,
        window: int = DEFAULT_WINDOW,
        drain_first: bool = False,
        patience: float = DEFAULT_PATIENCE,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Stream[v2.Output]:
        from clarigrpc._streams.predict_streams import BidiSession

        flow, encoder = self._flow_control(values, window, drain_first, patience)
        read = self._output_reader("StreamModelOutputs", raise_on_partial)
        session = BidiSession(values, flow, encoder, read, finish=True)
        return self._stream("StreamModelOutputs", session, timeout)

    def call(self, method: str, /, *, _timeout: float | None = None, **arguments: Any) -> Any:
        from clarigrpc._streams.predict_streams import BidiSession, GenerateSession

        prepared = self._prepared(method, arguments, _timeout)
        results: Stream[Any]
        if prepared.values is not None:
            read = self._results(prepared, "StreamModelOutputs")
            session = BidiSession(prepared.values, FlowControl(None), prepared, read, finish=False)
            results = self._stream("StreamModelOutputs", session, _timeout)
        elif prepared.streams:
            read = self._results(prepared, "GenerateModelOutputs")
            generation = GenerateSession(prepared.request(), read)
            results = self._stream("GenerateModelOutputs", generation, _timeout)
        else:
            return self._asked(prepared, _timeout)
        if prepared.streams:
            return results
        found = list(results)
        if not found:
            raise _no_result("StreamModelOutputs")
        return found[-1]


class AsyncModelStreams(StreamOperations):
    """What streams of a model, on the client's event loop."""

    _prepared = async_method(StreamOperations._prepare)
    _asked = async_method(StreamOperations._ask)

    def _stream(
        self, method: str, session: StreamSession[Any], timeout: float | None
    ) -> AsyncStream[Any]:
        from clarigrpc._streams.response_stream import AsyncStream

        return AsyncStream(self._unary(method, encoded=True), session, timeout)

    def stream(
        self,
        values: AsyncIterable[PredictInput] | Iterable[PredictInput],
        *,
        window: int = DEFAULT_WINDOW,
        drain_first: bool = False,
        patience: float = DEFAULT_PATIENCE,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> AsyncStream[v2.Output]:
        from clarigrpc._streams.predict_streams import AsyncBidiSession

        flow, encoder = self._flow_control(values, window, drain_first, patience)
        read = self._output_reader("StreamModelOutputs", raise_on_partial)
        session = AsyncBidiSession(values, flow, encoder, read, finish=True)
        return self._stream("StreamModelOutputs", session, timeout)

    def call(
        self, method: str, /, *, _timeout: float | None = None, **arguments: Any
    ) -> AsyncMethodCall:
        return AsyncMethodCall(self, method, arguments, _timeout)

    async def _call(self, method: str, arguments: Mapping[str, Any], timeout: float | None) -> Any:
        from clarigrpc._streams.predict_streams import AsyncBidiSession, GenerateSession

        prepared = await self._prepared(method, arguments, timeout)
        results: AsyncStream[Any]
        if prepared.values is not None:
            read = self._results(prepared, "StreamModelOutputs")
            session = AsyncBidiSession(
                prepared.values, FlowControl(None), prepared, read, finish=False
            )
            results = self._stream("StreamModelOutputs", session, timeout)
        elif prepared.streams:
            read = self._results(prepared, "GenerateModelOutputs")
            generation = GenerateSession(prepared.request(), read)
            results = self._stream("GenerateModelOutputs", generation, timeout)
        else:
            return await self._asked(prepared, timeout)
        if prepared.streams:
            return results
        found = [result async for result in results]
        if not found:
            raise _no_result("StreamModelOutputs")
        return found[-1]


@named_in("clarigrpc.types")
class AsyncMethodCall:
    """A call that begins when it is awaited, or iterated over where the method streams."""

    def __init__(
        self,
        model: AsyncModelStreams,
        method: str,
        arguments: Mapping[str, Any],
        timeout: float | None,
    ) -> None:
        self._model = model
        self._method = method
        self._arguments = arguments
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, Any]:
        return self._model._call(self._method, self._arguments, self._timeout).__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return _MethodResults(self, self._method)


class _MethodResults(AsyncIterator[Any]):
    """The results of a method that streams; the call begins with the first one."""

    def __init__(self, call: AsyncMethodCall, method: str) -> None:
        self._call = call
        self._method = method
        self._results: AsyncStream[Any] | None = None

    async def __anext__(self) -> Any:
        if self._results is None:
            from clarigrpc._streams.response_stream import AsyncStream

            results = await self._call
            if not isinstance(results, AsyncStream):
                raise TypeError(f"{self._method}() has one result: await it")
            self._results = results
        return await anext(self._results)
