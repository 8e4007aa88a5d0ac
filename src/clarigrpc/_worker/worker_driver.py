"""What the drivers of a worker have in common: what they run, and how long they are patient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from clarigrpc._named_methods.values import MediaReader
from clarigrpc._worker.item_loop import ItemLoop
from clarigrpc._worker.worker_settings import WorkerSettings

SIGNAL_SECONDS = 0.5
"""A signal may interrupt a thread of gRPC; the main one, which handles it, has to look itself."""
ABORT_SECONDS = 2.0
"""So long methods may take to end once their items are aborted."""


class WorkerDriver(ABC):
    """Runs the loops of a worker.

    Args:
        client: Calls the service.
        loop: What the worker does.
        settings: Its settings.
        reader: Reads the texts and images of streams.
    """

    def __init__(
        self, client: Any, loop: ItemLoop, settings: WorkerSettings, reader: MediaReader
    ) -> None:
        self._client = client
        self._loop = loop
        self._settings = settings
        self._reader = reader
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the driver keeps its loops and calls in."""
