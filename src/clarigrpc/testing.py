"""pytest fixtures with a local V2 server for the tests of a project.

pytest finds them wherever clarigrpc is installed. A server starts when a test first needs one; each
process of pytest-xdist has its own. ::

    def test_colors(clarifai_client):
        output = clarifai_client.model("color-recognition", ...).predict(image("cat.jpg"))

========================= ======== ==========================================================
Fixture                   Scope    What it is
========================= ======== ==========================================================
``clarifai_options``      session  Options of ``LocalServer``; define it in ``conftest.py``
``clarifai_local``        session  The server
``clarifai_app``          function An app of its own on the server, a ``LocalApp``
``clarifai_client``       function A ``Client`` of that app
``clarifai_async_client`` function An ``AsyncClient`` of that app
``clarifai_env``          function That app, which ``Client()`` without arguments uses
``clarifai_server``       function A server of its own, for tests that change its default app
========================= ======== ==========================================================
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from clarigrpc import AsyncClient, Client
    from clarigrpc.local import LocalServer, RecordedCall

__all__ = [
    "LocalApp",
    "clarifai_app",
    "clarifai_client",
    "clarifai_env",
    "clarifai_local",
    "clarifai_options",
    "clarifai_server",
]

_KEPT_CALLS = 1000
_RESOURCE_FILES = ("app.yaml", "app.yml", "app.json")
_INPUTS_KEY = "inputs"


class LocalApp:
    """An app on a local server.

    Attributes:
        server: The server, whose ``faults`` and ``stub()`` concern all of its apps.
        app_id: Id of the app. Its owner is the server's default user.
    """

    def __init__(self, server: LocalServer, app_id: str) -> None:
        self.server = server
        self.app_id = app_id

    def __repr__(self) -> str:
        return f"LocalApp({self.app_id!r} on {self.server.base})"

    @property
    def user_id(self) -> str:
        """Id of its owner."""
        return self.server.user_id

    def client(self, **settings: Any) -> Client:
        """A client of this app.

        Args:
            **settings: Options of ``Client``, which override these.
        """
        return self.server.client(**{"app_id": self.app_id, **settings})

    def async_client(self, **settings: Any) -> AsyncClient:
        """Like ``client``, but an ``AsyncClient``."""
        return self.server.async_client(**{"app_id": self.app_id, **settings})

    def environment(self) -> dict[str, str]:
        """Environment variables with which ``Client()`` uses this app."""
        return self.server.environment(app_id=self.app_id)

    def calls(
        self,
        method: str,
        *,
        matching: Callable[[Any], bool] | None = None,
        **fields: Any,
    ) -> list[RecordedCall]:
        """The latest calls of a method with this app in their ``user_app_id``.

        Args:
            method: Name of the method.
            matching: A function that takes the first request and returns whether it is wanted.
            **fields: Values of fields of the first request, as for ``LocalServer.calls``.
        """
        fields["user_app_id"] = {"app_id": self.app_id, **fields.get("user_app_id", {})}
        return self.server.calls(method, matching=matching, **fields)

    def seed(self, source: str | Path | Mapping[str, Any], *, timeout: float = 60.0) -> None:
        """Add resources and inputs, and wait until the inputs are processed.

        Args:
            source: A YAML or JSON file with lists of ``concepts``, ``datasets``, ``models``,
                ``workflows`` and ``keys``, as an app in the configuration of a local server has
                them; and ``inputs``, the path (from the file's folder) of a folder, a CSV or a
                JSON Lines file to upload. Or its content as a mapping. Or a folder: its
                ``app.yaml`` where it has one, else its files are the inputs.
            timeout: Seconds to wait for the inputs.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not in that form, or a resource or an input is refused.
            WaitError: An input cannot be processed.
        """
        content, folder = _content(source)
        inputs = content.pop(_INPUTS_KEY, None)
        self.server.seed(content, app_id=self.app_id)
        if inputs is None:
            return
        with self.client() as client:
            report = client.inputs.upload(folder / str(inputs), timeout=timeout)
            if report.failed_inputs:
                first = report.failed_inputs[0]
                raise ValueError(
                    f"{len(report.failed_inputs)} inputs were not added; the first is "
                    f"{first.source or first.id}: {first.status.description} "
                    f"{first.status.details}".rstrip()
                )
            client.inputs.wait(report.added_ids, timeout=timeout)


def _content(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """What a source of seeds has, and the folder that its paths begin at."""
    if isinstance(source, Mapping):
        return dict(source), Path()
    path = Path(source)
    if path.is_dir():
        found = next((path / name for name in _RESOURCE_FILES if (path / name).is_file()), None)
        if found is None:
            return {_INPUTS_KEY: "."}, path
        path = found
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}  # JSON is YAML
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must be an object with lists of resources")  # noqa: TRY004
    return dict(content), path.parent


@pytest.fixture(scope="session")
def clarifai_options() -> dict[str, Any]:
    """Options of ``LocalServer`` for the fixtures; a project defines its own in ``conftest.py``."""
    return {}


def _new_server(options: Mapping[str, Any]) -> LocalServer:
    from clarigrpc.local import LocalServer

    return LocalServer(**{"record_calls": _KEPT_CALLS, **options})


@pytest.fixture(scope="session")
def clarifai_local(clarifai_options: dict[str, Any]) -> Iterator[LocalServer]:
    """A running LocalServer for the whole test session; its data is lost at the end."""
    with _new_server(clarifai_options) as server:
        yield server


@pytest.fixture
def clarifai_server(clarifai_options: dict[str, Any]) -> Iterator[LocalServer]:
    """A running LocalServer for one test. To start it takes about a tenth of a second."""
    with _new_server(clarifai_options) as server:
        yield server


@pytest.fixture
def clarifai_app(clarifai_local: LocalServer) -> Iterator[LocalApp]:
    """An app for one test, empty at its start. At its end the server has no faults any more."""
    app = LocalApp(clarifai_local, f"test-{uuid4().hex[:12]}")
    clarifai_local.seed({}, app_id=app.app_id)
    yield app
    clarifai_local.faults.clear()


@pytest.fixture
def clarifai_client(clarifai_app: LocalApp) -> Iterator[Client]:
    """A Client of an app for one test."""
    with clarifai_app.client() as client:
        yield client


async def _async_client(plugin: object, clarifai_app: LocalApp) -> AsyncIterator[AsyncClient]:
    """An AsyncClient of an app for one test. Needs pytest-asyncio or anyio."""
    async with clarifai_app.async_client() as client:
        yield client


def pytest_configure(config: pytest.Config) -> None:
    """Adds the fixture that is a coroutine.

    pytest-asyncio wants a decorator of its own on it, which is not to be imported where that is not
    used; to anyio it is a fixture like others.
    """
    fixture: Any = pytest.fixture
    if config.pluginmanager.has_plugin("asyncio"):
        import pytest_asyncio

        fixture = pytest_asyncio.fixture
    fixtures = type("AsyncFixtures", (), {"clarifai_async_client": fixture(_async_client)})
    config.pluginmanager.register(fixtures(), "clarigrpc async fixtures")


@pytest.fixture
def clarifai_env(clarifai_app: LocalApp, monkeypatch: pytest.MonkeyPatch) -> LocalApp:
    """An app for one test, which a ``Client()`` without arguments uses."""
    for name in list(os.environ):
        if name.startswith("CLARIFAI_"):
            monkeypatch.delenv(name)
    for name, value in clarifai_app.environment().items():
        monkeypatch.setenv(name, value)
    return clarifai_app
