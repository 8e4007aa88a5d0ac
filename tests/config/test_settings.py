"""Settings: where they come from, what is refused, and that secrets stay secret."""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import AsyncClient, Client, ClientCredentials, errors
from clarigrpc._config.addresses import Target, parse_base
from clarigrpc.errors import ConfigurationError

SECRET = "s3cr3t-0123456789abcdef"
OTHER = "0th3r-fedcba9876543210"
BOTH = pytest.mark.parametrize("make", [Client, AsyncClient])


def key_of(client: Any) -> Any:
    """The metadata pair that a client identifies itself with."""
    (pair,) = client.settings.credentials.static
    return pair


def write_config(home: Path, text: str) -> Path:
    path = home / ".config" / "clarifai" / "config"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
CONTEXTS = f"""
current_context: default
contexts:
  default:
    CLARIFAI_PAT: {SECRET}
    CLARIFAI_USER_ID: user-of-file
    CLARIFAI_APP_ID: app-of-file
    CLARIFAI_API_BASE: http://127.0.0.1:1
  nested:
    env:
      CLARIFAI_API_KEY: {OTHER}
      CLARIFAI_USER_ID: user-of-nested
    created: today
  lower:
    pat: {OTHER}
    user_id: user-of-lower
  forwarding:
    CLARIFAI_PAT: ENVVAR
    CLARIFAI_USER_ID: user-of-forwarding
  numbers:
    CLARIFAI_PAT: {SECRET}
    CLARIFAI_USER_ID: 12345
  null-values:
    CLARIFAI_PAT: {SECRET}
    CLARIFAI_USER_ID: null
"""


@BOTH
def test_argument_wins_over_environment_over_file(
    make: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, CONTEXTS)
    client = make()
    assert key_of(client) == ("authorization", f"Key {SECRET}")
    assert client.settings.user_id == "user-of-file"
    assert client.settings.app_id == "app-of-file"
    assert client.settings.target == Target("127.0.0.1", 1, tls=False)

    monkeypatch.setenv("CLARIFAI_PAT", OTHER)
    monkeypatch.setenv("CLARIFAI_USER_ID", "user-of-environment")
    monkeypatch.setenv("CLARIFAI_API_BASE", "http://127.0.0.1:2")
    client = make()
    assert key_of(client) == ("authorization", f"Key {OTHER}")
    assert client.settings.user_id == "user-of-environment"
    assert client.settings.app_id == ""  # the one of the file is another user's
    assert client.settings.target.port == 2

    client = make(pat="argument-0123456789", user_id="u", app_id="a", base="http://127.0.0.1:3")
    assert key_of(client) == ("authorization", "Key argument-0123456789")
    assert (client.settings.user_id, client.settings.app_id) == ("u", "a")
    assert client.settings.target.port == 3


@BOTH
@pytest.mark.parametrize(
    ("argument", "variable", "pair"),
    [
        ("pat", "CLARIFAI_PAT", ("authorization", f"Key {SECRET}")),
        ("api_key", "CLARIFAI_API_KEY", ("authorization", f"Key {SECRET}")),
        ("session_token", "CLARIFAI_SESSION_TOKEN", ("x-clarifai-session-token", SECRET)),
    ],
)
def test_credentials(
    make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    variable: str,
    pair: tuple[str, str],
) -> None:
    assert key_of(make(**{argument: SECRET})) == pair
    assert key_of(make(**{argument: f" {SECRET}\n"})) == pair  # read from a file, say
    monkeypatch.setenv(variable, SECRET)
    assert key_of(make()) == pair


def test_a_kind_of_credential_wins_by_its_level_not_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLARIFAI_PAT", OTHER)
    assert key_of(Client(session_token=SECRET)) == ("x-clarifai-session-token", SECRET)


def test_bases_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client(pat=SECRET).settings.target == Target("api.clarifai.com", 443, tls=True)
    monkeypatch.setenv("CLARIFAI_API_BASE", "https://api.example")
    assert Client(pat=SECRET).settings.target.host == "api.example"
    monkeypatch.setenv("CLARIFAI_GRPC_BASE", "grpc.example:7443")
    assert Client(pat=SECRET).settings.target == Target("grpc.example", 7443, tls=True)


@pytest.mark.parametrize(
    ("context", "key", "user_id"),
    [
        (None, SECRET, "user-of-file"),
        ("default", SECRET, "user-of-file"),
        ("nested", OTHER, "user-of-nested"),
        ("lower", OTHER, "user-of-lower"),
        ("numbers", SECRET, "12345"),
        ("null-values", SECRET, ""),
    ],
)
def test_contexts(home: Path, context: str | None, key: str, user_id: str) -> None:
    write_config(home, CONTEXTS)
    client = Client(context=context)
    assert key_of(client) == ("authorization", f"Key {key}")
    assert client.settings.user_id == user_id


def test_a_config_file_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.yaml"
    path.write_text(CONTEXTS)
    assert Client(config_file=path).settings.user_id == "user-of-file"
    assert Client(config_file=str(path), context="lower").settings.user_id == "user-of-lower"


def test_envvar_means_that_the_environment_has_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, CONTEXTS)
    with pytest.raises(ConfigurationError, match="CLARIFAI_PAT"):
        Client(context="forwarding")
    monkeypatch.setenv("CLARIFAI_PAT", SECRET)
    client = Client(context="forwarding")
    assert key_of(client) == ("authorization", f"Key {SECRET}")
    assert client.settings.user_id == "user-of-forwarding"


SOURCES = st.fixed_dictionaries(
    {},
    optional={
        "CLARIFAI_GRPC_BASE": st.just("http://127.0.0.1:{}"),
        "CLARIFAI_API_BASE": st.just("http://127.0.0.1:{}"),
        "CLARIFAI_USER_ID": st.just("user-{}"),
        "CLARIFAI_APP_ID": st.just("app-{}"),
        "CLARIFAI_PAT": st.just("pat-{}"),
    },
)


@settings(database=None, deadline=None, max_examples=150)
@given(environment=SOURCES, context=SOURCES, delegated=st.booleans(), named=st.booleans())
def test_one_source_for_address_user_and_credential(
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    context: dict[str, str],
    delegated: bool,
    named: bool,
) -> None:
    """Whatever the environment (1) and a context (2) hold, what is used comes from one of them."""
    context = {name: value.format(2) for name, value in context.items()}
    if delegated:
        context["CLARIFAI_PAT"] = "ENVVAR"
    file = yaml.safe_dump({"current_context": "c", "contexts": {"c": context}})
    path = write_config(tmp_path_factory.mktemp("home"), file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clarigrpc._config.context_file.CONFIG_PATH", str(path))
        for name, value in environment.items():
            patch.setenv(name, value.format(1))
        try:
            client = Client(context="c" if named else None)
        except ConfigurationError:
            # One of them has no credential, and nobody else lends it one.
            assert not ("CLARIFAI_PAT" in environment and context.get("CLARIFAI_PAT"))
            assert delegated or not (named and "CLARIFAI_PAT" in context)
            return
    (_, key), found = key_of(client), client.settings
    used = {found.user_id[-1:], str(found.target.port)[-1:] if found.target.port < 9 else ""} - {""}
    if delegated and key == "Key pat-1":
        assert len(used) < 2  # the context's, if it says that the credential is elsewhere
    else:
        assert used <= {key[-1]}
    if named:
        assert "1" not in used
        assert found.app_id in ("", "app-2")


def test_a_context_that_is_named_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(home, CONTEXTS)
    monkeypatch.setenv("CLARIFAI_PAT", "pat-of-environment")
    monkeypatch.setenv("CLARIFAI_USER_ID", "user-of-environment")
    monkeypatch.setenv("CLARIFAI_APP_ID", "app-of-environment")
    monkeypatch.setenv("CLARIFAI_API_BASE", "http://127.0.0.1:2")
    client = Client(context="lower")
    assert key_of(client) == ("authorization", f"Key {OTHER}")
    assert (client.settings.user_id, client.settings.app_id) == ("user-of-lower", "")
    assert client.settings.target.url == "https://api.clarifai.com:443"
    assert Client(context="lower", user_id="u").settings.user_id == "u"
    # The address is also used with what the caller gives besides.
    assert Client(context="default", pat="p").settings.target.port == 1
    complete = {"pat": SECRET, "user_id": "u", "app_id": "a", "base": "http://127.0.0.1:1"}
    for besides in ({}, complete):
        raises("no context 'typo'", context="typo", **besides)


def test_why_the_current_context_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(home, CONTEXTS)
    monkeypatch.setenv("CLARIFAI_API_BASE", "http://127.0.0.1:2")
    raises("CLARIFAI_API_BASE is set there, so that the current context of .* is not used")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no contexts"),
        ("just text", "no contexts"),
        ("contexts: []", "no contexts"),
        ("contexts: {a: {CLARIFAI_PAT: x}}", "no context None; it has: a"),
        ("current_context: b\ncontexts: {a: {CLARIFAI_PAT: x}}", "no context 'b'; it has: a"),
        ("current_context: a\ncontexts: {a: text}", "no context 'a'"),
        ("contexts: {a: [", "cannot be read"),
        ("contexts: \tx", "cannot be read"),
    ],
)
def test_broken_config_files(home: Path, text: str, says: str) -> None:
    path = write_config(home, text)
    with pytest.raises(ConfigurationError) as caught:
        Client()
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_broken_config_file_is_not_quoted(home: Path) -> None:
    write_config(home, f"contexts: {{default: {{CLARIFAI_PAT: {SECRET}, [}}}}")
    with pytest.raises(ConfigurationError) as caught:
        Client()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_config_file_is_not_read_when_the_rest_says_it_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, "broken: [")
    base = "http://127.0.0.1:1"
    assert Client(pat=SECRET, user_id="u", app_id="a", base=base).settings.user_id == "u"


@pytest.mark.parametrize("given", [{"context": "x"}, {"config_file": "/nonexistent/config"}])
def test_a_config_file_that_was_asked_for_has_to_be_there(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="no config file at"):
        Client(**given)  # type: ignore[arg-type]


def raises(says: str, **given: Any) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ConfigurationError, match=says) as caught:
            make(**given)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_credential() -> None:
    raises(r"pat=.*CLARIFAI_PAT")


@pytest.mark.parametrize(
    "given",
    [
        {"pat": SECRET, "api_key": SECRET},
        {"pat": SECRET, "session_token": SECRET},
        {"pat": SECRET, "auth": list},
        {"pat": SECRET, "oauth": ClientCredentials("i", SECRET)},
        {"pat": SECRET, "api_key": SECRET, "session_token": SECRET},
    ],
)
def test_two_credentials(given: dict[str, Any]) -> None:
    raises("more than one credential.*exactly one", **given)


def test_two_credentials_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARIFAI_PAT", SECRET)
    monkeypatch.setenv("CLARIFAI_SESSION_TOKEN", SECRET)
    raises("environment.*CLARIFAI_PAT, CLARIFAI_SESSION_TOKEN")
    assert Client(api_key=OTHER)  # an argument settles it


@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_empty_credentials(value: str) -> None:
    raises(r"pat \(argument\) is empty", pat=value)


@pytest.mark.parametrize("value", [f"{SECRET}\n2", f"{SECRET} x", f"{SECRET}é", f"{SECRET}\x00"])
def test_credentials_that_are_none(value: str) -> None:
    raises("characters that no credential has", pat=value)


def test_credentials_of_a_wrong_type() -> None:
    raises("has to be a string, not int", pat=5)
    raises("auth has to be a callable, not str", auth="text")


MALFORMED = [
    "",
    "   ",
    "ftp://host",
    "grpc://host:1",
    "unix:",
    "http://",
    "https://",
    "http://:80",
    "://host",
    "http://host:port",
    "http://host:99999",
    "http://host:-1",
    "http://host:0",
    "host:0",
    "http://host/v2",
    "https://host?x=1",
    "https://host#x",
    "http://ho st",
    "http://[::1",
    "http://::1",
    "http://[zz]:1",
    "host name",
    "-host",
    "host-",
    "a..b",
    "http://host\nX",
    "http://user@host",
    f"http://user:{SECRET}@host",
    "http://höst",
    "http://host\t1",
]


@pytest.mark.parametrize("base", MALFORMED)
def test_malformed_bases(base: str) -> None:
    with pytest.raises(ConfigurationError, match="base") as caught:
        parse_base(base)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    if base.strip():
        raises("base", pat=OTHER, base=base)


@pytest.mark.parametrize(
    ("base", "target", "address"),
    [
        ("api.clarifai.com", Target("api.clarifai.com", 443, True), "api.clarifai.com:443"),
        ("https://api.clarifai.com/", Target("api.clarifai.com", 443, True), None),
        ("HTTPS://API.clarifai.com", Target("api.clarifai.com", 443, True), None),
        ("localhost:8080", Target("localhost", 8080, True), None),
        ("http://localhost:8080", Target("localhost", 8080, False), "localhost:8080"),
        ("http://10.0.0.1", Target("10.0.0.1", 80, False), "10.0.0.1:80"),
        ("http://[::1]:50051", Target("::1", 50051, False), "[::1]:50051"),
        ("[::1]:50051", Target("::1", 50051, True), "[::1]:50051"),
        (" http://my_host-1:5 ", Target("my_host-1", 5, False), "my_host-1:5"),
    ],
)
def test_bases(base: str, target: Target, address: str | None) -> None:
    assert parse_base(base) == target
    assert address is None or target.address == address
    assert parse_base(target.url) == target


@settings(database=None, deadline=None, max_examples=300)
@given(
    st.text(max_size=30)
    | st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "http://", "https://", "x://"]),
        st.text(st.sampled_from("ab.-_:[]@/?#%0159 \t"), max_size=12),
        st.sampled_from(["", ":", ":80", ":99999", ":x", ":-5", ":٣"]),
        st.sampled_from(["", "/", "/x", "?", "#"]),
    )
)
def test_a_base_is_read_or_refused_clearly(base: str) -> None:
    try:
        target = parse_base(base)
    except ConfigurationError:
        return
    assert target.host
    assert 0 < target.port < 65536
    assert parse_base(target.url) == target


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("x.localhost", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("api.clarifai.com", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert Target(host, 1, tls=False).is_loopback is loopback


def test_no_plaintext_to_another_machine() -> None:
    raises("allow_plaintext=True", pat=SECRET, base="http://10.0.0.1:8080")
    raises("unencrypted to http://api.example:80", pat=SECRET, base="http://api.example")
    assert Client(pat=SECRET, base="http://10.0.0.1:8080", allow_plaintext=True)
    assert Client(pat=SECRET, base="http://127.0.0.1:8080")
    oauth = ClientCredentials("i", SECRET, token_url="http://tokens.example/t")
    raises("unencrypted to http://tokens.example:80", oauth=oauth)


@pytest.mark.parametrize("name", ["timeout", "stream_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, sys.maxsize, 1e308, 10**400])
def test_timeouts_that_cannot_be(name: str, value: float) -> None:
    raises(f"{name} has to be a number of seconds above 0, at most", pat=SECRET, **{name: value})


@pytest.mark.parametrize("value", [0, -1, 2**31])
def test_message_limits(value: int) -> None:
    raises("max_message_bytes has to be between", pat=SECRET, max_message_bytes=value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_certificates_among_other_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(f"# für\n{PEM.decode()}\nzwischen, ü\n{PEM.decode()}".encode(encoding))
    assert Client(pat=SECRET, root_certificates=path).settings.root_certificates == PEM * 2


@settings(database=None, deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=20).filter(lambda text: b"-" not in text), min_size=3))
def test_certificates_among_any_bytes(comments: list[bytes]) -> None:
    text = (b"\n" + PEM).join(comments)
    found = Client(pat=SECRET, root_certificates=text).settings.root_certificates
    assert found == PEM * (len(comments) - 1)


def test_damaged_certificates() -> None:
    for text in (PEM[:-20], PEM[20:], b"", PEM.replace(b"MIIB", b"M\xffB")):
        raises(
            "root_certificates: what .* (is not|has damaged) PEM", pat=OTHER, root_certificates=text
        )
    for options in ({"root_certificates": PEM}, {"client_key": PEM, "client_certificate": PEM}):
        client = Client(pat=SECRET, transport="rest", **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="is no valid PEM"):
            client.inputs.status()


def test_other_settings() -> None:
    raises("transport has to be 'grpc' or 'rest', not 'http'", pat=SECRET, transport="http")
    raises("go together", pat=SECRET, client_key=PEM)
    raises("go together", pat=SECRET, client_certificate=PEM)
    raises(
        "root_certificates: /nonexistent/roots.pem cannot be read",
        pat=SECRET,
        root_certificates="/nonexistent/roots.pem",
    )


def test_root_certificates_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(PEM)
    monkeypatch.setenv("CLARIFAI_ROOT_CERTIFICATES_PATH", str(path))
    assert Client(pat=SECRET).settings.root_certificates == PEM
    # Nothing is read for a connection without TLS.
    assert Client(pat=SECRET, base="http://127.0.0.1:1").settings.root_certificates is None
    monkeypatch.setenv("CLARIFAI_ROOT_CERTIFICATES_PATH", "/nonexistent/x")
    raises("root_certificates: /nonexistent/x", pat=SECRET)


UNLIKE = "zqxWvrtKmlYjwkqHzxvr"
"""A secret of which no three letters stand in any other text."""


def shows(text: str) -> bool:
    """Whether a text has a part of that secret."""
    return any(UNLIKE[start : start + 3] in text for start in range(len(UNLIKE) - 2))


@BOTH
def test_reprs_show_no_part_of_a_secret(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("pat", "api_key", "session_token"):
        client = make(**{name: UNLIKE})
        shown = [
            repr(client),
            str(client),
            repr(client.settings),
            repr(client.settings.credentials),
            repr(client.channel),
            f"{client.v2.GetModel!r}",
            caplog.text,
        ]
        assert f"{name}=<secret>" in repr(client)
        for text in shown:
            assert not shows(text)
    oauth = ClientCredentials("id-1", UNLIKE)
    for thing in (oauth, make(oauth=oauth)):
        assert not shows(repr(thing))
        assert "id-1" in repr(thing)


@BOTH
@pytest.mark.parametrize("given", [{"base": "ftp://x"}, {"timeout": "3"}, {"tiemout": 3}])
def test_tracebacks_with_local_variables_have_no_secret(
    make: Callable[..., Any], given: dict[str, Any]
) -> None:
    with pytest.raises((errors.ConfigurationError, TypeError)) as caught:
        make(pat=UNLIKE, **given)
    # Below this function, which has it in plain text itself.
    below = caught.value.__traceback__.tb_next if caught.value.__traceback__ else None
    found = traceback.TracebackException(
        type(caught.value), caught.value, below, capture_locals=True
    )
    assert "_config" in "".join(found.format())
    assert not shows("".join(found.format()))


@BOTH
def test_a_secret_of_the_environment_is_in_no_traceback(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLARIFAI_PAT", f"{SECRET} and more")
    with pytest.raises(errors.ConfigurationError, match="characters") as caught:
        make()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
