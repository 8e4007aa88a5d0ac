"""A handle on one model: predict with it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack, overload

from clarigrpc import errors, v2, wellknown
from clarigrpc._progress_bar import bar_name
from clarigrpc._resources.base import Paging, chunks
from clarigrpc._resources.file_uploads import ModelUploadOperations
from clarigrpc._resources.model_streams import AsyncModelStreams, ModelStreams, StreamOperations
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation, predicting
from clarigrpc._rpc.call import SUCCESS
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc._rpc.encoding import PredictEncoder, sent_ids
from clarigrpc._rpc.plan import ItemPlan, Plan, async_method, call, sync_method
from clarigrpc.media import PredictInput

if TYPE_CHECKING:
    from clarigrpc._bulk.coalescing import AsyncCoalescer, CoalesceLimits, Coalescer
    from clarigrpc._bulk.input_sources import DeferredInput
    from clarigrpc._bulk.predict_engine import PredictBatch, PredictResult
    from clarigrpc._bulk.predict_run import PredictRun
    from clarigrpc._rpc.sync_channel import Cancellation

# One input, or a mistake, in the order of their frequency: none of these is a sequence of inputs.
_SINGLE = (v2.Input, bytes, bytearray, memoryview, str)


class ModelOperations(ModelUploadOperations, StreamOperations):
    """A model by its id. Made by ``client.model(...)``; nothing is sent until it is used."""

    def __init__(
        self,
        client: ClientInterface,
        model_id: str,
        *,
        user_id: str = "",
        app_id: str = "",
        version_id: str = "",
        output_config: v2.OutputConfig | None = None,
        coalesce: CoalesceLimits | None = None,
    ) -> None:
        if not model_id or not isinstance(model_id, str):
            raise errors.InvalidArgumentError("client.model() needs the id of a model")
        if "/" in model_id:  # as on the command line, or the address of its page
            raise errors.InvalidArgumentError(
                f"{model_id!r} is not the id of a model; use client.model(id, user_id=, app_id=)"
            )
        if version_id and not isinstance(version_id, str):
            raise TypeError(f"version_id has to be a string, not {type(version_id).__name__}")
        super().__init__(client, user_id, app_id)
        self.model_id = model_id
        self.version_id = version_id
        self.output_config = output_config
        self._post: Any = client.unary("PostModelOutputs", encoded=True)
        self._coalesce = coalesce

    def __repr__(self) -> str:
        version = f", version_id={self.version_id!r}" if self.version_id else ""
        return f"{type(self).__name__}({self.model_id!r}{version})"

    @cached_property
    def _encoder(self) -> PredictEncoder:
        """The encoder of this handle's requests."""
        return PredictEncoder(self._constant())

    def _constant(self) -> v2.PostModelOutputsRequest:
        """The request without inputs."""
        request = v2.PostModelOutputsRequest(model_id=self.model_id, version_id=self.version_id)
        request.user_app_id.MergeFrom(self._user_app_id or self._client.user_app_id)
        if self.output_config is not None:
            request.model.model_version.output_info.output_config.CopyFrom(
                wellknown.convert(self.output_config)
            )
        return request

    @staticmethod
    def _single(response: Any) -> v2.Output:
        outputs = response.outputs
        if not outputs:
            raise errors.InternalError(
                "the service answered without an output", method="PostModelOutputs"
            )
        output: v2.Output = outputs[0]
        status = output.status
        if status.code != SUCCESS:
            from clarigrpc._rpc import statuses

            failure = statuses.from_item(
                status, method="PostModelOutputs", request_id=response.status.req_id
            )
            if failure is not None:
                raise failure
        return output

    def _predict_list(
        self,
        values: Sequence[Any],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[v2.Output]]:
        if not values:
            raise errors.InvalidArgumentError("predict() needs at least one input")
        from clarigrpc._bulk.output_matching import in_order

        outputs: list[v2.Output] = []
        failed: v2.Status | None = None
        for chunk in chunks(list(values)):
            encoded = self._encoder.batch(chunk)
            for error in encoded.errors.values():
                raise error
            response = yield from call(
                "PostModelOutputs",
                self._encoder.request(encoded.items, encoded.ids),
                timeout=timeout,
                raise_on_partial=False,
            )
            outputs.extend(in_order(sent_ids(encoded.ids), response))
            if failed is None and response.status.code != SUCCESS:
                failed = response.status
        if failed is None and {output.status.code for output in outputs} == {SUCCESS}:
            return outputs
        if self._client.raises_on_partial(raise_on_partial):
            from clarigrpc._rpc import statuses

            # A service may say SUCCESS, and leave it to the outputs to say that they failed.
            whole = failed or v2.Status(code=v2.StatusCode.MIXED_STATUS)
            merged = v2.MultiOutputResponse(status=whole, outputs=outputs)
            failure = statuses.from_response(
                merged, method="PostModelOutputs", request_id=whole.req_id, item_field="outputs"
            )
            if failure is not None and (failed is not None or failure.failed):
                raise failure
        return outputs

    @operation
    def get(self, *, timeout: float | None = None) -> Plan[v2.Model]:
        """Fetch the model, with the version of this handle or its latest one.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            The model.

        Raises:
            NotFoundError: The model or the version does not exist or is not visible to you.
        """
        response: v2.SingleModelResponse = yield from self._invoke(
            "GetModel", timeout, model_id=self.model_id, version_id=self.version_id
        )
        return response.model

    @operation
    def ready(self, *, timeout: float | None = None) -> Plan[bool]:
        """Ask whether the model answers now, or is still being trained, built or deployed.

        The state of its version is fetched. If that is good, the model is asked for its methods,
        an input without content, which is not repeated while it is being deployed. A model that
        the service starts on demand is started by this.

        Args:
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            True if it answers; False if it may do so later: predictions wait for it.

        Raises:
            NotFoundError: The model or the version does not exist or is not visible to you.
            ApiError: Its training or its build failed; the subclass and ``details`` say why.
        """
        from clarigrpc._named_methods.signatures import signatures_input
        from clarigrpc._rpc import statuses

        found = yield from ModelOperations.get.plan(self, timeout=timeout)
        status = found.model_version.status
        if not found.model_version.id or status.code == v2.StatusCode.MODEL_UNTRAINED:
            return False
        if statuses.kind_of(status.code) in (
            statuses.StatusKind.PENDING,
            statuses.StatusKind.NOT_READY,
        ):
            return False
        failure = statuses.from_item(status, method="GetModel", request_id="")
        if status.code and failure is not None:
            raise failure
        request = self._encoder.encode((signatures_input(),))
        try:
            yield from call("PostModelOutputs", request, timeout=timeout, retry=False)
        except errors.NotReadyError:
            return False
        except (
            errors.InvalidArgumentError,
            errors.PartialFailureError,
            errors.UnimplementedError,
        ):
            pass  # it answers: that it wants another input
        return True

    @iteration
    def versions(self, **options: Unpack[Paging]) -> ItemPlan[v2.ModelVersion]:
        """List the versions of the model, newest first.

        Args:
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        fields = {"model_id": self.model_id, **options}
        return self._pages("ListModelVersions", "model_versions", fields)

    @predicting
    def predict_many(
        self,
        values: Iterable[PredictInput | DeferredInput]
        | AsyncIterable[PredictInput | DeferredInput],
        *,
        batch_size: int | None = None,
        in_flight: int | None = None,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool = False,
    ) -> PredictRun[PredictResult]:
        """Predict any number of inputs, in batches, with several requests in flight.

        A failed input does not fail the others: its batch is split until it is alone. An outage,
        throttling and a model that is not ready are waited for. Memory is bounded, however long the
        source. Leave the loop to stop.

        Give the paths of images themselves: ``predict_many(Path("photos").iterdir())``. A file that
        cannot be read is then its own failed result, whereas a generator of ``image(path)`` ends
        with the first one. A function without arguments is called when its turn comes, and fails
        alone as well: ``partial(image, path, max_side=1024)``, of which some run ahead, in threads.
        Outputs are matched to inputs by ``output.input.id``; inputs without an id are sent with a
        number as theirs.

        Args:
            values: What ``predict`` takes, or functions that make it, from any iterable; an
                ``AsyncModel`` also takes an asynchronous one. It is read only as far ahead as
                requests are in flight. An error that it raises comes after the results of the
                inputs before it.
            batch_size: Maximum inputs per request, 1 to 128; a request also holds at most 16 MiB of
                inputs, or one larger input. None adapts to the server.
            in_flight: Maximum concurrent requests. None adapts to the server, up to 100.
            ordered: Whether results come in the order of the inputs (default) or as they are ready.
            timeout: Seconds for each request, and for waiting while the service answers nothing.
                None uses the client's setting.
            progress: Whether to show a progress bar if stderr is a terminal (extra ``cli``).
                Default False.

        Returns:
            An iterator of results, each with ``index`` and either ``output`` or ``error``.

        Raises:
            InvalidArgumentError: ``batch_size`` or ``in_flight`` is out of range.
        """
        return self._run(
            values,
            batches=False,
            batch_size=batch_size,
            in_flight=in_flight,
            ordered=ordered,
            timeout=timeout,
            name=bar_name(progress, self.model_id),
        )

    @predicting
    def predict_batches(
        self,
        values: Iterable[PredictInput | DeferredInput]
        | AsyncIterable[PredictInput | DeferredInput],
        *,
        batch_size: int | None = None,
        in_flight: int | None = None,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool = False,
    ) -> PredictRun[PredictBatch]:
        """Predict any number of inputs, as ``predict_many`` does, and return results by the batch.

        For callers who go on with many outputs at once: ``output_embeddings(batch.outputs)`` of
        ``clarigrpc.arrays`` is an array with a row for each of ``batch.indexes``.

        Args:
            values: What ``predict`` takes, or functions that make it, from any iterable; an
                ``AsyncModel`` also takes an asynchronous one.
            batch_size: Maximum inputs per request, 1 to 128; a request also holds at most 16 MiB of
                inputs, or one larger input. None adapts to the server.
            in_flight: Maximum concurrent requests. None adapts to the server, up to 100.
            ordered: Whether batches come in the order of the inputs (default) or as they are ready.
            timeout: Seconds for each request, and for waiting while the service answers nothing.
                None uses the client's setting.
            progress: Whether to show a progress bar if stderr is a terminal (extra ``cli``).
                Default False.

        Returns:
            An iterator of batches, each with the ``outputs`` of some inputs, their ``indexes``, and
            the ``errors`` of those that failed. A batch has the results of one request; those of
            inputs that were sent again come in smaller ones.

        Raises:
            InvalidArgumentError: ``batch_size`` or ``in_flight`` is out of range.
        """
        return self._run(
            values,
            batches=True,
            batch_size=batch_size,
            in_flight=in_flight,
            ordered=ordered,
            timeout=timeout,
            name=bar_name(progress, self.model_id),
        )

    def _run(self, values: Any, **options: Any) -> PredictRun[Any]:
        from clarigrpc._bulk.predict_run import PredictRun

        return PredictRun(self._client, self._encoder, values, **options)


class Model(ModelStreams, ModelOperations, Sync):
    """A model to predict with. Threads can share it."""

    def __init__(self, client: ClientInterface, model_id: str, **options: Any) -> None:
        super().__init__(client, model_id, **options)
        self._coalescer: Coalescer | None = None
        if self._coalesce is not None:
            from clarigrpc._bulk.coalescing import Coalescer

            self._coalescer = Coalescer(self._encoder, self._coalesce, self._send)
            client.close_with(self._coalescer)

    def _send(
        self, payload: bytes, timeout: float | None, cancellation: Cancellation | None = None
    ) -> Any:
        return self._post.with_call(
            payload, timeout, raise_on_partial=False, cancellation=cancellation
        )[0]

    _predict_values = sync_method(ModelOperations._predict_list)

    # One input first: without the types of protobuf, a message could pass for a sequence.
    @overload
    def predict(
        self,
        value: PredictInput,
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> v2.Output: ...

    @overload
    def predict(
        self,
        value: Sequence[PredictInput],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> list[v2.Output]: ...

    def predict(
        self,
        value: PredictInput | Sequence[PredictInput],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> v2.Output | list[v2.Output]:
        """Predict one input, or a list of inputs.

        Args:
            value: An input (``image(...)``, ``text(...)``, a ``v2.Input``), the bytes of an image,
                or a list of these (sent in requests of 128).
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Only for a list: whether a failed input raises an error. False returns
                its output with the others, with its status. None uses the client's setting.

        Returns:
            The output, or the outputs in the order of the inputs. Those of a list are matched by
            ``output.input.id``; inputs without an id are sent with a number as theirs.

        Raises:
            PartialFailureError: Some inputs of a list failed; the error holds the outputs of the
                others.
            InternalError: The outputs are not those of the inputs.
            ApiError: The prediction failed; the subclass says how (see ``errors``).
            InvalidArgumentError: The list is empty.
            TypeError: A value is not an input.
        """
        if not isinstance(value, _SINGLE) and isinstance(value, Sequence):
            return self._predict_values(value, timeout=timeout, raise_on_partial=raise_on_partial)
        if self._coalescer is not None:
            output: v2.Output = self._coalescer.predict(
                value,
                self._client.settings.timeout if timeout is None else timeout,
            )
            return output
        payload = self._encoder.encode((value,))
        return self._single(self._post(payload, timeout=timeout, raise_on_partial=False))


class AsyncModel(AsyncModelStreams, ModelOperations, Async):
    """A model to predict with, on the client's event loop."""

    def __init__(self, client: ClientInterface, model_id: str, **options: Any) -> None:
        super().__init__(client, model_id, **options)
        self._coalescer: AsyncCoalescer | None = None
        if self._coalesce is not None:
            from clarigrpc._bulk.coalescing import AsyncCoalescer

            self._coalescer = AsyncCoalescer(self._encoder, self._coalesce, self._send)
            client.close_with(self._coalescer)

    def _send(self, payload: bytes, timeout: float | None) -> Any:
        return self._post(payload, timeout=timeout, raise_on_partial=False)

    _predict_values = async_method(ModelOperations._predict_list)

    # One input first: without the types of protobuf, a message could pass for a sequence.
    @overload
    async def predict(
        self,
        value: PredictInput,
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> v2.Output: ...

    @overload
    async def predict(
        self,
        value: Sequence[PredictInput],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> list[v2.Output]: ...

    async def predict(
        self,
        value: PredictInput | Sequence[PredictInput],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> v2.Output | list[v2.Output]:
        """Predict one input, or a list of inputs.

        Args:
            value: An input (``image(...)``, ``text(...)``, a ``v2.Input``), the bytes of an image,
                or a list of these (sent in requests of 128).
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Only for a list: whether a failed input raises an error. False returns
                its output with the others, with its status. None uses the client's setting.

        Returns:
            The output, or the outputs in the order of the inputs. Those of a list are matched by
            ``output.input.id``; inputs without an id are sent with a number as theirs.

        Raises:
            PartialFailureError: Some inputs of a list failed; the error holds the outputs of the
                others.
            InternalError: The outputs are not those of the inputs.
            ApiError: The prediction failed; the subclass says how (see ``errors``).
            InvalidArgumentError: The list is empty.
            TypeError: A value is not an input.
        """
        if not isinstance(value, _SINGLE) and isinstance(value, Sequence):
            return await self._predict_values(
                value, timeout=timeout, raise_on_partial=raise_on_partial
            )
        if self._coalescer is not None:
            output: v2.Output = await self._coalescer.predict(
                value,
                self._client.settings.timeout if timeout is None else timeout,
            )
            return output
        payload = self._encoder.encode((value,))
        return self._single(await self._post(payload, timeout=timeout, raise_on_partial=False))
