"""The background work on inputs: fetch, decode, delete."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from clarigrpc import v2
from clarigrpc.local.byte_budget import BudgetFullError
from clarigrpc.local.engine.background_tasks import DATABASE_PAUSE_SECONDS
from clarigrpc.local.engine.faults import Faults
from clarigrpc.local.engine.input_embeddings import Embeddings
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.media import media_content
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.models.image_embedding import Vector
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.download_files import Downloads
from clarigrpc.local.store.resource_store import (
    BYTES_PER_READ,
    Row,
    Store,
    StoredCollection,
    StoreError,
)
from clarigrpc.v2 import StatusCode

_INPUTS_PER_ROUND = 64

_logger = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """What was found out about an input, and what its vector is made of."""

    item: v2.Input
    vector: Vector | str | None = None


class InputProcessor:
    """One thread that takes pending inputs to their final state and deletes doomed ones.

    What is to be done stands in the store, not in a queue: a restart goes on where the last
    process stopped, and any number of inputs may wait.

    Args:
        store: Where the inputs are.
        fetcher: Downloads URLs.
        faults: Which inputs were told to fail.
        embeddings: Gets the vectors of the inputs.
        downloads: Has files that were made of the inputs, and go with them.
        fetchers: Downloads at the same time.
    """

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        faults: Faults,
        embeddings: Embeddings,
        downloads: Downloads,
        *,
        fetchers: int = 8,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._faults = faults
        self._embeddings = embeddings
        self._downloads = downloads
        self._work = threading.Event()
        self._closing = False
        self._pool = ThreadPoolExecutor(fetchers, thread_name_prefix="clarigrpc-local-fetch")
        self._thread = threading.Thread(
            target=self._run, name="clarigrpc-local-inputs", daemon=True
        )
        self._work.set()
        store.when_cleared(self.wake)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something to do."""
        self._work.set()

    def close(self) -> None:
        """Stops after what is in work."""
        self._closing = True
        self._work.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        pause: float | None = None
        while not self._closing:
            self._work.wait(pause)
            self._work.clear()
            try:
                while not self._closing and (self._delete() or self._process()):
                    pass
                pause = None
            except StoreError as error:
                if pause is None:
                    _logger.warning("work on inputs is tried again: %s", error)
                pause = DATABASE_PAUSE_SECONDS
            except Exception:
                # The thread must outlive one bad row; the inputs stay pending.
                _logger.exception("work on inputs failed")

    def _delete(self) -> bool:
        deleted = self._store.delete_doomed(_INPUTS_PER_ROUND) > 0
        self._downloads.sweep()
        return deleted

    def _process(self) -> bool:
        waiting = self._store.waiting(INPUT_KIND, StatusCode.INPUT_PENDING, _INPUTS_PER_ROUND)
        # Only downloads wait, so only they go to the pool.
        looked: list[tuple[StoredCollection, Row, Future[_Seen | None]]] = []
        size = 0
        for where, seq, _ in waiting:
            row = self._store.by_seq(seq)
            if row is None or row.status != StatusCode.INPUT_PENDING:  # changed meanwhile
                continue
            size += len(row.body)
            if looked and size > BYTES_PER_READ:
                break
            item = self._store.message(v2.Input, row)
            if item is None:
                self._store.set_status(row.seq, StatusCode.INPUT_FAILED)
                continue
            if media_content.url_of(item.data):
                seen = self._pool.submit(self._look, row, item)
            else:
                seen = _done(self._look(row, item))
            looked.append((where, row, seen))
        results = [(where, row, future.result()) for where, row, future in looked]
        while results:
            with self._store.transaction():
                while results and not self._store.crowded:
                    where, row, found = results.pop()
                    if found is not None:
                        self._finish(where, row.seq, found)
        return bool(waiting)

    def _look(self, row: Row, item: v2.Input) -> _Seen | None:
        """Gives the input its final status and what was found out about its content.

        None where there is no memory to look at it; then it waits for the next round.
        """
        vector: Vector | str | None = None
        try:
            self._faults.fail_input(item.id, StatusCode.INPUT_FAILED)
            kind = media_content.kind_of(item.data)
            content = self._store.content(row.seq)
            if content is None:
                content = media_content.content_of(item.data, self._fetcher)
            with media_content.inspect(content, kind, item.data, self._fetcher.budget) as image:
                if image is not None:
                    vector = self._embeddings.of_image(image)
                elif kind == "text":
                    vector = content.decode()
        except ServiceError as error:
            # One code for every failure of processing; the details tell them apart.
            item.status.CopyFrom(make_status(StatusCode.INPUT_FAILED, str(error)))
        except BudgetFullError:
            return None
        except StoreError:
            raise
        except Exception:
            _logger.exception("processing of input %s failed", item.id)
            item.status.CopyFrom(
                make_status(StatusCode.INPUT_FAILED, "internal error; see the server's log")
            )
        else:
            item.status.CopyFrom(make_status(StatusCode.INPUT_SUCCESS))
        return _Seen(item, vector)

    def _finish(self, where: StoredCollection, seq: int, found: _Seen) -> None:
        seen = found.item
        row = self._store.by_seq(seq)
        if row is None:  # deleted meanwhile
            return
        # A patch may have changed the input since it was read: only what was found out is new.
        item = v2.Input.FromString(row.body)
        item.status.CopyFrom(seen.status)
        for kind in media_content.MEDIA_KINDS:
            name = f"{kind}_info"
            if item.data.HasField(kind) and getattr(seen.data, kind).HasField(name):
                info = getattr(getattr(seen.data, kind), name)
                getattr(getattr(item.data, kind), name).CopyFrom(info)
        item.modified_at.GetCurrentTime()
        self._store.update(seq, item.SerializeToString(), item.status.code)
        if found.vector is not None:
            app = where.app
            self._embeddings.add(app, item.id, found.vector)


def _done(seen: _Seen | None) -> Future[_Seen | None]:
    future: Future[_Seen | None] = Future()
    future.set_result(seen)
    return future
