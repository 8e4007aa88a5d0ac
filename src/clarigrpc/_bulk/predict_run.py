"""One ``predict_many`` or ``predict_batches``: its engine, its source and its requests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Iterable, Sized
from typing import Any

from clarigrpc._bulk.adaptive import keep, recall
from clarigrpc._bulk.drivers import BulkRun
from clarigrpc._bulk.engine import BulkBatch, ResultT
from clarigrpc._bulk.predict_engine import PREDICT_MODEL, PredictEngine, PredictKind
from clarigrpc._progress_bar import open_bar
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc._rpc.encoding import PredictEncoder
from clarigrpc._rpc.retry import deadline_after
from clarigrpc.media import refuse_single


class PredictRun(BulkRun[ResultT]):
    """A run that a driver runs.

    Args:
        client: Sends the requests.
        encoder: Encodes them.
        values: What to predict.
        kind: What is predicted with.
        batches: Whether a result is that of a batch, not of one input.
        batch_size, in_flight, ordered, timeout: As of ``predict_many``.
        name: Shown beside a progress bar. Empty shows none.
    """

    def __init__(
        self,
        client: ClientInterface,
        encoder: PredictEncoder,
        values: Iterable[Any] | AsyncIterable[Any],
        *,
        batches: bool,
        batch_size: int | None,
        in_flight: int | None,
        ordered: bool,
        timeout: float | None,
        name: str = "",
        kind: PredictKind = PREDICT_MODEL,
    ) -> None:
        settings = client.settings
        timeout = settings.timeout if timeout is None else timeout
        deadline_after(timeout, 0.0)  # an invalid one fails at once, not at each input
        self._kept_limits, self._model = client.kept_limits, (kind.method, encoder.constant)
        self._adapts = batch_size is None and in_flight is None
        now = time.monotonic()
        self._engine = PredictEngine(
            encoder,
            batch_size=batch_size,
            in_flight=in_flight,
            ordered=ordered,
            max_bytes=settings.max_message_bytes,
            timeout=timeout,
            policy=settings.retry,
            limits=recall(self._kept_limits, self._model, now) if self._adapts else None,
            batches=batches,
            kind=kind,
        )
        self._called = "predict_batches" if batches else "predict_many"
        refuse_single(values, self._called, "put a single one in a list")
        super().__init__(self._engine, values)
        self._post: Any = client.unary(kind.method, encoded=True)
        total = len(values) if isinstance(values, Sized) else None
        self._bar = open_bar(name, total) if name else None
        # Raised after the results of the values that the source gave before.
        self._source_error: BaseException | None = None

    @property
    def called(self) -> str:
        return self._called

    def request(self, batch: BulkBatch) -> tuple[Any, Any, float]:
        return self._post, self._engine.request(batch), self._engine.timeout

    def source_failed(self, error: BaseException) -> None:
        error.add_note(
            f"predict_many: raised by the source after {self.engine.taken} values, which ends it. "
            "Give it the paths themselves, predict_many(paths), or inputs that are made without an "
            "error: what cannot be read is then a failed result among the others."
        )
        self._source_error = error
        self._engine.exhausted()

    def show_progress(self) -> None:
        if self._bar is not None:
            self._bar.update(self._engine.settled, self._engine.failures)

    def check(self) -> None:
        if self._source_error is not None:
            raise self._source_error

    def end(self, error: BaseException | None) -> None:
        if self._adapts:
            keep(self._kept_limits, self._model, self._engine.limits, time.monotonic())
        if self._bar is not None:
            self._bar.close()
