"""A local server with a model that only a runner can run, and workers of both kinds for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clarigrpc import AsyncClient, Client, v2
from clarigrpc.local import LocalServer
from clarigrpc.runner import AsyncRunnerWorker, RunnerWorker
from tests.both import ClientKind

MODEL = "toolbox"


def make_model(client: Client) -> None:
    """A model of the client's app that is served by runners."""
    client.models.create(v2.Model(id=MODEL))
    version = v2.ModelVersion()
    version.pretrained_model_config.local_dev = True
    client.models.versions(MODEL).create(version)


class AsyncInThread:
    """An asynchronous worker on an event loop of its own, with the methods of the sync one."""

    def __init__(self, settings: dict[str, Any], model: Any, options: dict[str, Any]) -> None:
        self._runner = asyncio.Runner()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._loop: Any = self._runner.get_loop()
        self._thread.start()
        self.client: AsyncClient = self._run(self._client(settings))
        self.worker = AsyncRunnerWorker(self.client, model, **options)

    def _serve(self) -> None:
        with self._runner:
            self._runner.get_loop().run_forever()

    async def _client(self, settings: dict[str, Any]) -> AsyncClient:
        return AsyncClient(**settings)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def start(self) -> None:
        self._run(self.worker.start())

    def stop(self, grace: float | None = None) -> None:
        self._run(self.worker.stop(grace))

    def close(self) -> None:
        self._run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


Work = Callable[..., Any]
"""Starts a worker: (model, base=, **options of RunnerWorker)."""


@contextlib.contextmanager
def workers(kind: ClientKind, server: LocalServer, app_id: str = "") -> Iterator[Work]:
    """Starts workers of one kind, which end with the block."""
    with contextlib.ExitStack() as stack:

        def start(model: Any, **options: Any) -> RunnerWorker:
            settings: dict[str, Any] = {
                "base": options.pop("base", server.base),
                "pat": server.pat,
                "user_id": server.user_id,
                "app_id": server.app_id,
            }
            if "max_message_bytes" in options:
                settings["max_message_bytes"] = options.pop("max_message_bytes")
            options = {"runner_id": "r", "model_id": MODEL, "grace": 10.0, **options}
            if kind == "sync":
                client = stack.enter_context(Client(**settings))
                worker = RunnerWorker(client, model, **options)
                stack.callback(worker.stop)
                worker.start()
                return worker
            made = AsyncInThread(settings, model, options)
            stack.callback(made.close)
            stack.callback(made.stop)
            made.start()
            return made  # type: ignore[return-value]

        yield start


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        with running.client() as client:
            make_model(client)
        yield running


@pytest.fixture(scope="module")
def caller(server: LocalServer) -> Iterator[Client]:
    with server.client(timeout=40, stream_timeout=40) as client:
        yield client
