"""What streams of a model: ``stream``, ``generate``, ``methods`` and ``call``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Operations
from clarigrpc._resources.sync_async import operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.call import SUCCESS
from clarigrpc._rpc.encoding import PredictEncoder
from clarigrpc._rpc.plan import Plan, async_method, call, sync_method
from clarigrpc._streams.flow_control import DEFAULT_PATIENCE, DEFAULT_WINDOW, FlowControl
from clarigrpc._streams.predict_streams import (
    AsyncBidiSession,
    BidiSession,
    GenerateSession,
)
from clarigrpc._streams.response_stream import AsyncStream, Stream, StreamSession
from clarigrpc.media import PredictInput

if TYPE_CHECKING:
    from clarigrpc._named_methods.signatures import MethodCall


def outputs_of(response: v2.MultiOutputResponse, method: str, raising: bool) -> Iterator[v2.Output]:
    """The outputs of a response of a stream; ``raising``: until the first that failed."""
    for output in response.outputs:
        if raising and output.status.code != SUCCESS:
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
    def encoder(self) -> PredictEncoder:
        """The encoder of this handle's requests."""
        raise NotImplementedError

    def _flow_control(
        self, values: Any, window: int, drain_first: bool, patience: float
    ) -> tuple[FlowControl, _InputEncoder]:
        if isinstance(values, (str, bytes, bytearray, os.PathLike, v2.Input)):
            raise TypeError(
                f"stream() takes an iterable of inputs, not {type(values).__name__}; "
                "generate() takes one"
            )
        flow = FlowControl(None if drain_first else window, patience)
        return flow, _InputEncoder(self.encoder)

    def _output_reader(self, method: str, raise_on_partial: bool | None) -> Any:
        raising = self._client.raises_on_partial(raise_on_partial)
        return partial(outputs_of, method=method, raising=raising)

    def _generation(self, value: PredictInput) -> GenerateSession[v2.Output]:
        return GenerateSession(
            self.encoder.encode((value,)), self._output_reader("GenerateModelOutputs", True)
        )

    @operation
    def methods(self, *, timeout: float | None = None) -> Plan[dict[str, v2.MethodSignature]]:
        """The methods of the model with their signatures, which the model itself tells.

        They are asked for once a handle.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            Signatures by name, of methods to be called with ``call``.

        Raises:
            UnimplementedError: The model has no methods with named arguments.
        """
        from clarigrpc._named_methods import signatures

        if self._signatures is None:
            output = yield from self._output(signatures.signatures_input(), timeout)
            self._signatures = signatures.read_signatures(output, self.model_id)
        return dict(self._signatures)

    def _output(self, value: v2.Input, timeout: float | None) -> Plan[v2.Output]:
        response = yield from call(
            "PostModelOutputs",
            self.encoder.encode((value,)),
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
        return MethodCall(signature, arguments, lambda one: self.encoder.encode((one,)))

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
        """Predict a stream of inputs over one call, while it goes on in both directions.

        The call begins at once. One thread of gRPC's reads ``values``, so that a source that
        waits does not hold back outputs; it ends with the call, but no one can end it inside a
        source that never returns.

        A failure raises after the outputs that arrived before it. If the source fails, what was
        sent is still answered first. While nothing has been answered, a model that is being
        deployed is waited for, and what was sent is sent again (as far as it takes 64 MiB at
        most).

        Args:
            values: What ``predict`` takes, from any iterable.
            window: Most inputs that are sent and not answered; each response makes room for one.
            drain_first: For a server that reads everything before it answers: no window. The
                server has to hold all inputs; this side still sends no faster than it reads.
            patience: Seconds without an answer after which a full window is opened for good,
                with a warning in the log, as such a server would wait for ever. ``inf``: never.
            timeout: Seconds for the whole stream; None: the client's ``stream_timeout``.
            raise_on_partial: Whether an input that failed ends the stream with its error, or is
                an output with its status. None: as the client was told.

        Returns:
            An iterator of ``v2.Output`` in the order of the values. Leave its ``with`` block,
            ``cancel`` it or drop it to end the call.

        Raises:
            ApiError: From the iterator; the class of it that fits, see ``errors``.
            UnimplementedError: From the iterator, over REST, which has no client streams.
        """
        flow, encoder = self._flow_control(values, window, drain_first, patience)
        read = self._output_reader("StreamModelOutputs", raise_on_partial)
        session = BidiSession(values, flow, encoder, read, finish=True)
        return self._stream("StreamModelOutputs", session, timeout)

    def generate(self, value: PredictInput, *, timeout: float | None = None) -> Stream[v2.Output]:
        """Outputs of one input while the model makes them, each as soon as it is there.

        The call begins at once; outputs are read on the caller's thread, without another. A
        model that is being deployed is waited for.

        Args:
            value: What ``predict`` takes.
            timeout: Seconds for all of it; None: the client's ``stream_timeout``.

        Returns:
            An iterator of ``v2.Output``. Leave its ``with`` block, ``cancel`` it or drop it to
            end the call.

        Raises:
            ApiError: From the iterator, after the outputs that arrived.
        """
        return self._stream("GenerateModelOutputs", self._generation(value), timeout)

    def call(self, method: str, /, *, _timeout: float | None = None, **arguments: Any) -> Any:
        """Call a method of the model by name.

        The arguments are checked against the signature that the model tells (``methods``):
        servers ignore what they do not know. The page "Predicting" of the
        documentation has a table of the types.

        Args:
            method: Its name.
            _timeout: Seconds. None uses the client's setting. With an underscore because the method
                may have an argument ``timeout``.
            arguments: By name. A streamed argument takes an iterable.

        Returns:
            The result; for a method that streams its results, an iterator of them as of
            ``generate`` and ``stream``.

        Raises:
            TypeError: An argument is unknown, missing or of a wrong type.
            InvalidArgumentError: The model has no such method.
        """
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
        """As ``Model.stream``; ``values`` may be asynchronous, and is read by a task then."""
        flow, encoder = self._flow_control(values, window, drain_first, patience)
        read = self._output_reader("StreamModelOutputs", raise_on_partial)
        session = AsyncBidiSession(values, flow, encoder, read, finish=True)
        return self._stream("StreamModelOutputs", session, timeout)

    def generate(
        self, value: PredictInput, *, timeout: float | None = None
    ) -> AsyncStream[v2.Output]:
        """As ``Model.generate``."""
        return self._stream("GenerateModelOutputs", self._generation(value), timeout)

    def call(
        self, method: str, /, *, _timeout: float | None = None, **arguments: Any
    ) -> AsyncMethodCall:
        """As ``Model.call``: await the result, or iterate over the results.

        ``await model.call("shout", text="hey")``,
        ``async for word in model.call("speak", text="hey")``.
        """
        return AsyncMethodCall(self, method, arguments, _timeout)

    async def _call(self, method: str, arguments: Mapping[str, Any], timeout: float | None) -> Any:
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

    async def __aiter__(self) -> AsyncIterator[Any]:
        results = await self
        if not isinstance(results, AsyncStream):
            raise TypeError(f"{self._method}() has one result: await it")
        async with results:
            async for result in results:
                yield result
