"""``clarigrpc serve`` as a process."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clarigrpc import Client, ClientCredentials, errors, image, v2
from tests.cli.conftest import COMMAND, Run, one_line
from tests.waiting import until

LAST = "export CLARIFAI_APP_ID"


class Serving:
    """A running ``clarigrpc serve``; ``facts`` are its KEY=VALUE lines."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, str] = {}
        assert self.process.stdout is not None
        for line in self.process.stdout:
            name, _, value = line.rstrip("\n").partition("=")
            self.facts[name] = value
            if name == LAST:
                break

    def client(self) -> Client:
        return Client(
            base=self.facts["GRPC_BASE"],
            pat=self.facts["PAT"],
            user_id=self.facts["USER_ID"],
            app_id=self.facts["APP_ID"],
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and stderr."""
        self.process.send_signal(number)
        err = self.process.communicate(timeout=20)[1]
        return self.process.returncode, err


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    running = Serving(*arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal(number: signal.Signals, photo: Path) -> None:
    with serving() as server:
        with server.client() as client:
            model = client.model("color-recognition", user_id="clarifai", app_id="main")
            assert model.predict(image(photo)).data.colors[0].w3c.name == "Red"
        assert server.stop(number) == (0, "clarigrpc: serving, press Ctrl-C to stop\n")


def test_prints_what_clients_need() -> None:
    with serving("--pat", "a-token-of-my-own") as server:
        facts = server.facts
        assert facts["PAT"] == "a-token-of-my-own"
        assert facts["GRPC_BASE"].startswith("http://127.0.0.1:")
        assert "REST_BASE" not in facts
        exports = {n.removeprefix("export "): v for n, v in facts.items() if " " in n}
        assert exports == {
            "CLARIFAI_GRPC_BASE": facts["GRPC_BASE"],
            "CLARIFAI_API_BASE": facts["GRPC_BASE"],
            "CLARIFAI_PAT": facts["PAT"],
            "CLARIFAI_USER_ID": facts["USER_ID"],
            "CLARIFAI_APP_ID": facts["APP_ID"],
        }


CONFIG = """
users:
  - id: alice
    pat: alice-secret
    apps:
      - id: shop
        keys: [{id: narrow, scopes: [Concepts_Get]}, {id: wide}]
        applications: [{id: shop-client, secret: shop-client-secret}]
"""


def test_prints_the_credentials_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text(CONFIG)
    with serving("--config", str(config), "--rest-port", "0") as server:
        facts = server.facts
        expected = {
            "USER_ID": "alice",
            "APP_ID": "shop",
            "PAT": "alice-secret",
            "API_KEY": "wide",
            "CLIENT_ID": "shop-client",
            "CLIENT_SECRET": "shop-client-secret",
        }
        assert {name: facts[name] for name in expected} == expected
        token = facts["SESSION_TOKEN"]
        with Client(base=facts["GRPC_BASE"], session_token=token) as client:
            assert client.v2.GetApp(v2.GetAppRequest()).app.id == "shop"
        with server.client() as client:
            assert client.v2.GetApp(v2.GetAppRequest()).app.id == "shop"
    with serving("--config", str(config), "--pat", "of-my-own") as server:
        assert server.facts["PAT"] == "of-my-own"


def test_rest_front() -> None:
    with serving("--rest-port", "0") as server:
        facts = server.facts
        assert facts["REST_BASE"] != facts["GRPC_BASE"]
        with Client(base=facts["REST_BASE"], transport="rest", pat=facts["PAT"]) as client:
            # Without a user, those that are public.
            assert "color-recognition" in {model.id for model in client.models.list()}


def test_the_key_of_the_default_app() -> None:
    with serving() as server:
        facts = server.facts
        # A key says itself which user and which app are meant.
        with Client(base=facts["GRPC_BASE"], api_key=facts["API_KEY"]) as client:
            assert client.v2.GetApp(v2.GetAppRequest()).app.id == facts["APP_ID"]


def test_folders_that_data_sources_may_name(tmp_path: Path, photo: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "one.png").write_bytes(photo.read_bytes())
    request = v2.PostInputsDataSourcesRequest()
    request.data_sources.add().url.url = f"{root.as_uri()}/"
    refused = pytest.raises(errors.InvalidArgumentError, match="not in a folder")
    with serving() as server, server.client() as client, refused:
        client.v2.PostInputsDataSources(request)
    with serving("--input-root", str(root)) as server, server.client() as client:
        client.v2.PostInputsDataSources(request)
        until(lambda: list(client.inputs.list()))


def test_credentials_of_the_first_api_generation() -> None:
    with serving("--rest-port", "0") as server:
        facts = server.facts
        oauth = ClientCredentials(
            facts["CLIENT_ID"], facts["CLIENT_SECRET"], token_url=facts["TOKEN_URL"]
        )
        with Client(base=facts["GRPC_BASE"], oauth=oauth) as client:
            assert list(client.inputs.list()) == []


def test_limits() -> None:
    options = ("--limit", "requests=1/hour", "--limit", "concurrent=2")
    with serving(*options) as server, server.client() as client:
        assert list(client.inputs.list()) == []
        with pytest.raises(errors.RateLimitError):
            list(client.inputs.list())


@pytest.mark.parametrize(
    ("limit", "explanation"),
    [
        ("speed=1", "limits: unknown speed; known are requests, inputs, concurrent"),
        ("requests", "a limit must have the form name=value, not 'requests'"),
    ],
)
def test_a_limit_that_is_none(process: Run, limit: str, explanation: str) -> None:
    result = process("serve", "--limit", limit)
    assert result.code == 1
    assert explanation in one_line(result.err)


def test_data_outlives_the_process(tmp_path: Path, photo: Path) -> None:
    folder = str(tmp_path / "data")
    with serving("--data", folder) as server:
        pat = server.facts["PAT"]
        with server.client() as client:
            client.inputs.create(image(photo, id="kept"))
        assert server.stop()[0] == 0
    with serving("--data", folder) as server:
        assert server.facts["PAT"] == pat
        with server.client() as client:
            assert client.inputs.get("kept").id == "kept"


def test_a_signal_as_soon_as_it_is_ready() -> None:
    with serving() as server:
        assert server.stop()[0] == 0


@pytest.mark.measures
def test_stops_within_the_grace_while_a_call_is_running() -> None:
    with serving() as server, server.client() as client:
        responses = client.v2.StreamModelOutputs(_never())
        started = time.monotonic()
        assert server.stop()[0] == 0
        assert time.monotonic() - started < 15
        with pytest.raises(errors.ApiError):
            next(iter(responses))


def _never() -> Iterator[v2.PostModelOutputsRequest]:
    time.sleep(30)
    yield from ()


def test_port_in_use(process: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = process("serve", "--port", str(port))
    assert result.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in one_line(result.err.splitlines(True)[-1])
    assert "Traceback" not in result.err


def test_folder_that_cannot_be_made(process: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = process("serve", "--data", str(tmp_path / "file" / "data"))
    assert result.code == 1
    assert str(tmp_path / "file" / "data") in one_line(result.err)


def test_an_empty_name_of_a_folder(cli: Run) -> None:
    result = cli("serve", "--data", "")
    assert result.code == 2
    assert "Invalid value for --data: the path is empty" in result.err


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_wrong_port(process: Run, port: str) -> None:
    result = process("serve", "--port", port)
    assert result.code == 2
    assert "--port" in result.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("clarigrpc.sqlite", b"garbage" * 1000),
        ("credentials.json", b"[1]"),
        ("credentials.json", b'{"pat": 5}'),
        ("uploads", b"of another program"),
    ],
)
def test_a_data_folder_that_cannot_be_used(
    cli: Run, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in one_line(cli("serve", "--data", str(tmp_path)).err)


def test_a_resource_of_the_configuration_that_is_refused(cli: Run, tmp_path: Path) -> None:
    config = tmp_path / "server.json"
    nodes = '[{"id": "n", "model": {"id": "none"}}]'
    workflow = f'{{"id": "w", "nodes": {nodes}}}'
    config.write_text(
        f'{{"users": [{{"id": "u", "apps": [{{"id": "a", "workflows": [{workflow}]}}]}}]}}'
    )
    assert "none" in one_line(cli("serve", "--config", str(config)).err)


_MODELS = """
from collections.abc import Iterator
import helper

def shout(words: str) -> str:
    return words.upper() + helper.MARK

class Talker:
    def speak(self, text: str) -> Iterator[str]:
        yield from text.split()

def _private(): ...
"""


def test_models_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("MARK = '!'\n")
    (tmp_path / "my-models.py").write_text(_MODELS)
    (tmp_path / "more.py").write_text("def a(x: int) -> int: return -x\nMODELS = {'negated': a}\n")
    files = ("--models", str(tmp_path / "my-models.py"), "--models", str(tmp_path / "more.py"))
    with serving(*files) as server:
        with server.client() as client:
            assert {model.id for model in client.models.list()} == {"shout", "Talker", "negated"}
            assert client.model("shout").call("predict", words="hi") == "HI!"
            assert list(client.model("Talker").call("speak", text="a b")) == ["a", "b"]
            assert client.model("negated").call("predict", x=3) == -3
        assert server.stop()[0] == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("1 +", "line 1: SyntaxError"),
        ("\n1 / 0", "line 2: ZeroDivisionError"),
        ("import no_such_module", "no_such_module"),
        ("raise SystemExit(3)", "ended the process"),
        ("x = 1", "no public function or class"),
        ("MODELS = {}", "no public function or class"),
        ("MODELS = [1]", "mapping"),
        ("MODELS = {'a': 1}", "no signature"),
        ("def a(*x: int) -> int: return 1", "x"),
    ],
)
def test_a_file_that_offers_no_models(cli: Run, tmp_path: Path, source: str, text: str) -> None:
    path = tmp_path / "models.py"
    path.write_text(source)
    result = cli("serve", "--models", str(path))
    assert (result.code, result.out) == (1, "")
    assert text in one_line(result.err)
