"""Fixtures for tests of the client: a scripted server, and clients of both kinds."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import settings

from tests.both import Both, ClientKind
from tests.scripted import ScriptedServer

Connect = Callable[..., Both]
PAT = "pat-of-the-tests-0123456789"

# The same random examples in every run, so that a run says something about the change it tests;
# `make test-random` draws new ones. No deadline for an example: that would measure the machine.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("fixed")


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start, as it does from a terminal.

    A shell starts what runs in its background with the signal ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if sys.version_info < (3, 12):
    # Python collects garbage inside of its JSON parser there. Some tests have it read what is
    # nested to the limit, where the finalizers of whatever came before would have no stack left.
    @pytest.fixture(autouse=True, scope="session")
    def no_finalizers_without_stack() -> Iterator[None]:
        real = json.JSONDecoder.raw_decode

        def raw_decode(self: json.JSONDecoder, s: str, idx: int = 0) -> Any:
            enabled = gc.isenabled()
            gc.disable()
            try:
                return real(self, s, idx)
            finally:
                if enabled:
                    gc.enable()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json.JSONDecoder, "raw_decode", raw_decode)
            yield


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape what UTF-8 cannot encode: pytest-xdist ends the whole run for one such log line."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_encodable, value))
    return value


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the credentials of whoever runs it."""
    for name in list(os.environ):
        if name.startswith("CLARIFAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(
        "clarigrpc._config.context_file.CONFIG_PATH", "/nonexistent/clarifai/config"
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own; the config file is looked for in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("clarigrpc._config.context_file.CONFIG_PATH", "~/.config/clarifai/config")
    return tmp_path


@pytest.fixture(params=["sync", "async"])
def client_kind(request: pytest.FixtureRequest) -> ClientKind:
    """Which client is tested."""
    found: ClientKind = request.param
    return found


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers as the test says, and fails the test on anything else."""
    with ScriptedServer() as server:
        yield server
        server.check()


@pytest_asyncio.fixture
async def connect(client_kind: ClientKind) -> AsyncIterator[Connect]:
    """Makes clients of either kind; they are closed at the end."""
    made: list[Both] = []

    def make(base: str, **settings: Any) -> Both:
        if not settings.keys() & {"pat", "api_key", "session_token", "oauth", "auth"}:
            settings["pat"] = PAT
        made.append(Both(client_kind, base=base, **settings))
        return made[-1]

    yield make
    for both in made:
        await both.close()


@pytest_asyncio.fixture
async def both(connect: Connect, scripted: ScriptedServer) -> Both:
    """A client of either kind, connected to the scripted server."""
    return connect(scripted.base, timeout=10, stream_timeout=20)
