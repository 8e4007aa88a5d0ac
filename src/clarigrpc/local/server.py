"""The local server, put together: settings, the service, its fronts, start and end."""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from clarigrpc._public_names import named_in
from clarigrpc.local.accounts.default_credentials import DefaultCredentials
from clarigrpc.local.accounts.oauth_applications import TOKEN_SECONDS
from clarigrpc.local.engine.builtin_models import user_models
from clarigrpc.local.engine.faults import Faults
from clarigrpc.local.fronts.grpc_front import GrpcFront
from clarigrpc.local.fronts.listen_address import UNIX_PREFIX, host_and_port
from clarigrpc.local.media.object_stores import SCHEMES
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.service.call_recorder import CallRecorder, RecordedCall
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.local.service.seeding import Seed, SeededCredentials
from clarigrpc.local.service.stub_answers import StubAnswers
from clarigrpc.local.service.user_limits import Limits
from clarigrpc.local.user_app import UserApp

if TYPE_CHECKING:
    from clarigrpc import AsyncClient, Client
    from clarigrpc.local.fronts.hosted_front import HostedFront
    from clarigrpc.local.fronts.rest_front import RestFront

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LAST_PORT = 65535


@named_in("clarigrpc.local")
class LocalServer:
    """A local V2 server that runs in this process.

    Args:
        data_dir: Folder for all data and credentials, used again at the next start. None keeps
            them in memory, and they are lost when the server is closed.
        port: Port for gRPC; 0 takes a free port.
        rest_port: Port for HTTP/JSON, and for metrics of the calls in the format of Prometheus at
            ``/metrics``; 0 takes a free port. None serves gRPC only.
        host: Address to listen on. There is no TLS: use a loopback address, or ``unix:/path`` for a
            Unix domain socket (gRPC only), which all may use that may reach the path.
        models: Python functions, classes or objects to serve as models of the default app, by
            model id. Each public method is a method of the model with named arguments. A method
            that returns an iterator streams its results; one that takes an iterator receives a
            stream. The types come from the annotations, see the page "Predicting" of the
            documentation. The methods are called from several threads; asynchronous ones run on
            one event loop a model.
        faults: Failures to inject. They can be changed while the server runs, as ``faults``.
        workers: Number of threads that serve gRPC calls. An open stream occupies one. With fewer
            than 4, no call may follow logs.
        pat: Personal access token of the default user. None uses the one in ``config`` or stored
            in ``data_dir``, or a random one; the same holds for the next four.
        api_key: API key of the default app.
        session_token: Session token of the default user.
        client_id: Client id of the default app's OAuth2 application (first API generation).
        client_secret: Client secret of that application.
        token_seconds: Lifetime of the access tokens that applications get, in seconds.
        user_id: Default user. None uses the first user of ``config``, or ``local-user``.
        app_id: Default app. None uses the first app of ``config``, or ``local-app``.
        build_seconds: Time that an uploaded model version is in state MODEL_BUILDING, in seconds.
        allow_private_urls: Allow inputs whose URL has a private address. By default only loopback
            addresses are allowed, and only while ``host`` is one.
        limits: Limits for each user. None uses those of ``config``, or no limits.
        config: Users, apps, keys, models and other resources to create at the start: a YAML or
            JSON file, or its content as a mapping. Resources that exist in ``data_dir`` are left
            as they are. The format is described on the page "The local server" of the
            documentation.
        input_roots: Folders that data sources with ``file:`` URLs may read; none by default.
        object_stores: Address of your own object store for a scheme of data sources (``s3``,
            ``gs`` or ``azure``), such as ``{"s3": "http://127.0.0.1:9000"}``. The public
            addresses by default. Needs the extra ``object-stores``.
        public_models: Serve the models, workflows and concepts of user ``clarifai``, app ``main``.
            False leaves only the two embedding models there that trainings work on.
        cors: Origins whose web pages may call the REST front, such as ``http://localhost:3000``;
            ``*`` allows all. None by default.
        record_calls: Number of the latest calls to keep for ``calls``, with their requests; 0 keeps
            none.

    Attributes:
        base: Base address for gRPC, such as ``http://127.0.0.1:1234``; empty until the start.
        rest_base: Base address for HTTP/JSON; None without ``rest_port`` and until the start.
        host: Address that it listens on.

    Raises:
        OSError: ``config`` or the credentials in ``data_dir`` cannot be read, or ``data_dir``
            cannot be created.
        ValueError: ``config`` is not valid, ``credentials.json`` in ``data_dir`` is damaged,
            ``data_dir`` is an empty string, or a port is not 0 to 65535.
        TypeError: One of ``models`` cannot be served, for example because of its annotations, or
            an argument is of another type.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        port: int = 0,
        rest_port: int | None = None,
        host: str = "127.0.0.1",
        models: Mapping[str, Any] | None = None,
        faults: Faults | None = None,
        workers: int = 64,
        *,
        pat: str | None = None,
        api_key: str | None = None,
        session_token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        token_seconds: int = TOKEN_SECONDS,
        user_id: str | None = None,
        app_id: str | None = None,
        build_seconds: float = 0.2,
        allow_private_urls: bool = False,
        limits: Limits | None = None,
        config: str | Path | Mapping[str, Any] | None = None,
        input_roots: Sequence[str | Path] = (),
        object_stores: Mapping[str, str] | None = None,
        cors: Sequence[str] = (),
        public_models: bool = True,
        record_calls: int = 0,
    ) -> None:
        for name, number in (("port", port), ("rest_port", rest_port)):
            # gRPC takes the lowest 16 bits of a larger number.
            if number is not None and not 0 <= operator.index(number) <= _LAST_PORT:
                raise ValueError(f"{name} has to be 0 to {_LAST_PORT}, not {number}")
        if record_calls < 0:
            raise ValueError(f"record_calls has to be 0 or more, not {record_calls}")
        if models is not None and not isinstance(models, Mapping):
            raise TypeError(f"models has to map ids to models, not {type(models).__name__}")
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits has to be a Limits, not {type(limits).__name__}")
        texts = {
            "pat": pat,
            "api_key": api_key,
            "session_token": session_token,
            "client_id": client_id,
            "client_secret": client_secret,
            "user_id": user_id,
            "app_id": app_id,
        }
        for name, text in texts.items():
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{name} has to be a string, not {type(text).__name__}")
        seed = Seed.load(config) if config is not None else None
        first = seed.first() if seed is not None else None
        user_id = user_id or (first.user_id if first else "local-user")
        app_id = app_id or (first.app_id if first else "local-app")
        self._seed = seed
        given = seed.credentials_of(UserApp(user_id, app_id)) if seed else SeededCredentials()
        self._input_roots = tuple(Path(root) for root in input_roots)
        self._object_stores = _object_stores(object_stores or {})
        self._faults = faults if faults is not None else Faults()
        self.host = host
        self.base: str = ""
        self.rest_base: str | None = None
        if data_dir is not None and not os.fspath(data_dir):
            raise ValueError("data_dir is an empty path; '.' is the current folder, None is none")
        self._data_dir = Path(data_dir) if data_dir is not None else None
        if self._data_dir is not None:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        self._cors = _origins(cors)
        self._is_unix = host.startswith(UNIX_PREFIX)
        if self._is_unix and rest_port is not None:
            raise ValueError(
                "HTTP/JSON (rest_port) is not served on a Unix domain socket; use an IP address as "
                "host, or gRPC alone"
            )
        if host.startswith("/"):
            raise ValueError(f"host {host!r} is a path; write it as unix:{host}")
        if self._is_unix and not host.removeprefix(UNIX_PREFIX).startswith("/"):
            raise ValueError(f"host {host!r} has no absolute path; write it as unix:/path")
        self._port = port
        self._rest_port = rest_port
        self._workers = workers
        self._build_seconds = build_seconds
        self._allow_private_urls = allow_private_urls
        self._token_seconds = token_seconds
        self._has_public_models = public_models
        self._limits = limits or (seed.limits if seed is not None else None)
        self._credentials = DefaultCredentials(
            user_id,
            app_id,
            pat=pat or given.pat,
            api_key=api_key or given.api_key,
            session_token=session_token,
            client_id=client_id or given.client_id,
            client_secret=client_secret or given.client_secret,
            path=self._data_dir / "credentials.json" if self._data_dir else None,
        )
        # Here and not at start, so that a function that cannot be a model shows where it is given.
        self._entries = user_models(UserApp(user_id, app_id), models or {})
        self._recorder = CallRecorder(record_calls)
        self._service: V2Service | None = None
        self._grpc: GrpcFront | None = None
        self._rest: RestFront | None = None
        self._hosted: HostedFront | None = None

    @property
    def faults(self) -> Faults:
        """The injected failures. Change them here; another object cannot take their place."""
        return self._faults

    @property
    def pat(self) -> str:
        """Personal access token of the default user."""
        return self._credentials.pat

    @property
    def api_key(self) -> str:
        """API key of the default app."""
        return self._credentials.api_key

    @property
    def session_token(self) -> str:
        """Session token of the default user."""
        return self._credentials.session_token

    @property
    def client_id(self) -> str:
        """Client id of the default app's OAuth2 application (first API generation)."""
        return self._credentials.client_id

    @property
    def client_secret(self) -> str:
        """Client secret of the default app's OAuth2 application."""
        return self._credentials.client_secret

    @property
    def token_url(self) -> str | None:
        """URL to exchange client id and secret for an access token; None without ``rest_port``."""
        return f"{self.rest_base}/v1/token/" if self.rest_base else None

    @property
    def user_id(self) -> str:
        """Id of the default user."""
        return self._credentials.user_id

    @property
    def app_id(self) -> str:
        """Id of the default app."""
        return self._credentials.app_id

    @property
    def port(self) -> int:
        """Port for gRPC; 0 until the start if a free one is to be taken."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port`` for gRPC, or ``unix:/path``."""
        return host_and_port(self.host, self._port)

    def __repr__(self) -> str:
        return f"LocalServer({self.base or 'not started'})"

    def start(self) -> Self:
        """Starts the server, and returns it.

        Raises:
            OSError: A port is in use, or ``data_dir`` is in use by another server, damaged, or
                has files of another program.
            RuntimeError: The server is already running.
            ValueError: A resource of ``config`` is refused.
        """
        if self._service is not None:
            raise RuntimeError("the server is already running")
        loopback = self.host in ("127.0.0.1", "::1", "localhost") or self._is_unix
        self._service = self._service_class()(
            self._credentials,
            data_dir=self._data_dir,
            entries=self._entries,
            faults=self._faults,
            fetcher=Fetcher(
                allow_loopback=loopback or self._allow_private_urls,
                allow_private=self._allow_private_urls,
            ),
            build_seconds=self._build_seconds,
            seed=self._seed,
            input_roots=self._input_roots,
            object_stores=self._object_stores,
            limits=self._limits,
            token_seconds=self._token_seconds,
            has_public_models=self._has_public_models,
            recorder=self._recorder,
        )
        try:
            self._start_fronts(self._service)
        except BaseException:
            self.close(grace=0)
            raise
        return self

    def _service_class(self) -> type[V2Service]:
        """Measured where there is a front to show it."""
        if self._rest_port is None:
            return V2Service
        from clarigrpc.local.service.measured_service import MeasuredService

        return MeasuredService

    def _start_fronts(self, service: V2Service) -> None:
        self._grpc = GrpcFront(service, self.host, self._port, workers=self._workers)
        self._grpc.start()
        self._port, self.base = self._grpc.port, self._grpc.base
        if self._rest_port is not None:
            from clarigrpc.local.engine.hosted_media import HOSTED_PREFIX
            from clarigrpc.local.fronts import download_front, first_generation
            from clarigrpc.local.fronts.hosted_front import HostedFront
            from clarigrpc.local.fronts.rest_front import RestFront
            from clarigrpc.local.service.measured_service import METRICS_PATH, MeasuredService

            assert isinstance(service, MeasuredService)
            self._hosted = HostedFront(service.hosted)
            self._rest = RestFront(
                service,
                self.host,
                self._rest_port,
                budget=service.budget,
                mounts={
                    download_front.DOWNLOADS_PREFIX: download_front.DownloadFront(service.download),
                    HOSTED_PREFIX: self._hosted,
                    METRICS_PATH: service.metrics_app(),
                    first_generation.FIRST_GENERATION_PREFIX: first_generation.FirstGeneration(
                        service
                    ),
                },
                cors=self._cors,
            )
            self._rest.start()
            self._rest_port = int(self._rest.base.rpartition(":")[2])
            self.rest_base = self._rest.base
            service.state.downloads.base = self._rest.base

    def close(self, grace: float = 1.0) -> None:
        """Stops the server. Does nothing if it is not running.

        Args:
            grace: Seconds that running calls get to finish; new calls are refused.
        """
        if self._service is not None:
            self._service.end_waiting()
        # Both fronts refuse new calls at once, then both have their grace.
        if self._grpc is not None:
            self._grpc.refuse_calls(grace)
        if self._rest is not None:
            self._rest.close(grace)
            self._rest = None
        if self._hosted is not None:
            self._hosted.close()
            self._hosted = None
        if self._grpc is not None:
            self._grpc.close()
            self._grpc = None
        if self._service is not None:
            self._service.close()
            self._service = None

    def reset(self) -> None:
        """Gives the server the data that it had at its start, and takes away faults and calls.

        It restarts on the same ports with the same credentials; running calls are cancelled, and
        clients connect again. An app of its own for each test is faster.

        Raises:
            RuntimeError: The server keeps its data in ``data_dir``, or is not running.
        """
        if self._data_dir is not None:
            raise RuntimeError(f"the server keeps its data in {self._data_dir}")
        self._running()
        self.close(grace=0)
        self._faults.clear()
        self._recorder.forget()
        self.start()

    def calls(
        self,
        method: str | None = None,
        *,
        matching: Callable[[Any], bool] | None = None,
        **fields: Any,
    ) -> list[RecordedCall]:
        """The latest calls that the server received, in order.

        Args:
            method: Name of the method. None returns those of all methods.
            matching: A function that takes the first request and returns whether it is wanted.
            **fields: Values of fields that the first request has, ``model_id="m"``; for a message
                a mapping of those of its fields that count, ``user_app_id={"app_id": "a"}``.

        Raises:
            RuntimeError: The server records nothing: ``record_calls`` is 0.
            ValueError: There is no method, or no field, of that name.
        """
        if not self._recorder.limit:
            raise RuntimeError("start the server with LocalServer(record_calls=1000) to see calls")
        return self._recorder.calls(method, matching, fields)

    def stub(self) -> StubAnswers:
        """Lets a test answer the calls: a context manager, see ``StubAnswers``.

        While its block runs, the server answers what the test has said, without a look at
        credentials or data, and refuses what nobody expected.

        Raises:
            RuntimeError: The server is not running.
        """
        service = self._running()

        def put(answers: StubAnswers | None) -> None:
            service.stub = answers

        return StubAnswers(put)

    def seed(
        self, content: Mapping[str, Any], *, user_id: str | None = None, app_id: str | None = None
    ) -> None:
        """Adds keys, concepts, datasets, models and workflows to an app, where they are missing.

        Args:
            content: The lists of them, in the form of an app in ``config``.
            user_id: Owner of the app. None uses the default user.
            app_id: The app, which is created if it does not exist. None uses the default app.

        Raises:
            RuntimeError: The server is not running.
            ValueError: A resource is not in that form, or is refused.
        """
        app = {**content, "id": app_id or self.app_id}
        users = [{"id": user_id or self.user_id, "apps": [app]}]
        Seed({"users": users}).apply(self._running().state)

    def environment(self, *, app_id: str | None = None) -> dict[str, str]:
        """Environment variables with which ``Client()`` uses this server.

        Args:
            app_id: Id of the app. None uses the default app.
        """
        return {
            "CLARIFAI_API_BASE": self.base,
            "CLARIFAI_PAT": self.pat,
            "CLARIFAI_USER_ID": self.user_id,
            "CLARIFAI_APP_ID": app_id or self.app_id,
        }

    def _running(self) -> V2Service:
        if self._service is None:
            raise RuntimeError("the server is not running")
        return self._service

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def serve_until_signalled(
        self, grace: float = 5.0, *, ready: Callable[[], None] | None = None
    ) -> None:
        """Blocks until SIGTERM or SIGINT, then closes the server.

        Call it from the main thread of a process, on a server that runs.

        Args:
            grace: Seconds that running calls get to finish.
            ready: Called once the signals are handled.
        """
        _keep_freed_memory()
        # The handler runs within whatever the main thread does. An Event's lock, which it may hold
        # just then, would wait for itself; this queue is made for handlers.
        signals: SimpleQueue[int] = SimpleQueue()

        def on_signal(number: int, frame: FrameType | None) -> None:
            signals.put(number)

        before = {s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            if ready is not None:
                ready()
            # A signal may interrupt a thread of gRPC; this one, which handles it, has to look.
            while True:
                with contextlib.suppress(Empty):
                    signals.get(timeout=0.5)
                    break
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.close(grace)

    def client(self, **settings: Any) -> Client:
        """A client of this server, with the default user, app and personal access token.

        Args:
            **settings: Options of ``Client``, which override these.

        Raises:
            ValueError: ``transport="rest"`` on a server without ``rest_port``.
        """
        from clarigrpc import Client

        return Client(**self._client_settings(settings))

    def async_client(self, **settings: Any) -> AsyncClient:
        """Like ``client``, but an ``AsyncClient``."""
        from clarigrpc import AsyncClient

        return AsyncClient(**self._client_settings(settings))

    def _client_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        defaults = {"user_id": self.user_id, "app_id": self.app_id}
        if not {"pat", "api_key", "session_token", "oauth", "auth"} & settings.keys():
            defaults["pat"] = self.pat
        rest = settings.get("transport") == "rest"
        if rest and self.rest_base is None:
            raise ValueError(
                "transport='rest' needs a REST front: start the server with rest_port=0"
            )
        defaults["base"] = self.rest_base if rest and self.rest_base else self.base
        return defaults | settings


_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def _origins(given: Sequence[str]) -> tuple[str, ...]:
    """Origins as browsers send them: in lower case, without a path."""
    if isinstance(given, str):
        raise TypeError(f"cors must be a sequence of origins, not the str {given!r}")
    for origin in given:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"cors: {origin!r} is no origin; write it as http://localhost:3000, without a path"
            )
    return tuple(given)


def _object_stores(given: Mapping[str, str]) -> dict[str, str]:
    for scheme, address in given.items():
        if scheme not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise ValueError(f"object_stores: {scheme!r} is no scheme; there are {known}")
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"object_stores: {address!r} must begin with http:// or https://")
    return dict(given)


def _keep_freed_memory() -> None:
    """Lets glibc keep large blocks that were freed, instead of giving each back to the system.

    Every message of a megabyte costs hundreds of page faults otherwise: half of the throughput
    of uploads. It concerns the whole process, so only a process that is a server does it.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            mallopt(_M_TRIM_THRESHOLD, 256 << 20)
