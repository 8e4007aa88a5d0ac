"""The options of a client: what is refused, and that each is written once."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from clarigrpc import AsyncClient, Client, ClientCredentials, RetryPolicy
from clarigrpc._config.client_options import ClientOptions
from clarigrpc._config.timeouts import MAX_TIMEOUT
from clarigrpc.errors import ConfigurationError

PAT = "pat-of-the-tests-0123456789"
BASE = "http://127.0.0.1:1"
BOTH = pytest.mark.parametrize("make", [Client, AsyncClient])
OPTIONS = {option.name: option for option in dataclasses.fields(ClientOptions)}

WRONG: dict[str, tuple[Any, ...]] = {
    "pat": (5, b"secret", ["secret"], True),
    "api_key": (5, b"secret", object()),
    "session_token": (5, b"secret", object()),
    "oauth": ("id:secret", {"client_id": "i"}, 3),
    "auth": ("Key secret", [("authorization", "Key secret")], 3),
    "user_id": (5, b"user", ["user"]),
    "app_id": (5, b"app", ["app"]),
    "base": (5, b"http://127.0.0.1:1", [5], {"http://127.0.0.1:1"}, [["http://127.0.0.1:1"]]),
    "timeout": ("3", None, True, [3], 3j),
    "stream_timeout": ("3", None, False, [3]),
    "transport": (5, None, "http", ["grpc"], True),
    "allow_plaintext": (1, "yes", None, 0),
    "max_message_bytes": ("1", 1.5, None, True),
    "root_certificates": (5, ["roots.pem"], True),
    "client_key": (5, ["key.pem"], True),
    "client_certificate": (5, ["cert.pem"], True),
    "retry": (3, True, 0, "no", {"max_attempts": 3}, RetryPolicy),
    "raise_on_partial": (1, "yes", None, 0),
    "connections": ("2", 2.0, None, True),
    "wait_for_ready": (1, "yes", None),
    "hedge": (True, "0.9", [0.9]),
    "metadata": ("a", {"a": "b"}, [("a",)], [("a", 1)], [(1, "a")], ["ab"], None, 5),
    "interceptors": (5, "x", object(), [object()], [Client], None),
    "context": (5, b"default"),
    "config_file": (5, ["config"], True),
}


def test_there_are_wrong_values_for_every_option() -> None:
    assert list(WRONG) == list(OPTIONS)


@BOTH
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_type_is_refused_at_once(make: Callable[..., Any], name: str, value: Any) -> None:
    given = {} if name in ("pat", "api_key", "session_token", "oauth", "auth") else {"pat": PAT}
    with pytest.raises(ConfigurationError) as caught:
        make(**{"base": BASE, **given, name: value})
    text = str(caught.value)
    assert text.startswith(f"{name} has to be ")
    assert "secret" not in text
    assert type(value).__name__ in text or repr(value) in text


@BOTH
def test_an_option_that_does_not_exist_is_a_type_error(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=f"{make.__name__}.. has no option 'tiemout'.*'timeout'"):
        make(pat=PAT, tiemout=3)
    with pytest.raises(TypeError, match=f"{make.__name__}.. has no option 'zzz'$"):
        make(pat=PAT, zzz=3)
    with pytest.raises(TypeError, match=f"{make.__name__}.. takes its options by name"):
        make(PAT)


@BOTH
def test_numbers_of_every_kind_are_numbers(make: Callable[..., Any]) -> None:
    numpy = pytest.importorskip("numpy")
    client = make(
        pat=PAT, base=BASE, timeout=numpy.float32(3), connections=numpy.int64(2), stream_timeout=9
    )
    assert (client.settings.timeout, client.settings.connections) == (3, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": "3"},
        {"max_attempts": 2.5},
        {"max_attempts": True},
        {"initial_backoff": "1"},
        {"max_backoff": None},
        {"multiplier": "2"},
        {"max_retry_after": "60"},
        {"budget": "0.1"},
        {"budget_reserve": None},
        {"max_retry_after": math.nan},
        {"wait_until_ready": 1},
    ],
)
def test_a_retry_policy_of_wrong_types(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} .*RetryPolicy has to be"):
        RetryPolicy(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"client_id": 5}, {"client_secret": b"s"}, {"token_url": 5}, {"leeway": "1"}]
)
def test_client_credentials_of_wrong_types(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="of ClientCredentials has to be"):
        ClientCredentials(**{"client_id": "i", "client_secret": "s", **wrong})


@BOTH
def test_the_signature_and_the_text_are_those_of_the_options(make: Any) -> None:
    assert list(inspect.signature(make).parameters.values()) == list(
        inspect.signature(ClientOptions).parameters.values()
    )
    assert make.__init__.__doc__ == ClientOptions.__doc__


def test_every_option_is_documented_in_order() -> None:
    text = inspect.getdoc(ClientOptions) or ""
    arguments = text.partition("Args:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\w+): \S", arguments, re.MULTILINE) == list(OPTIONS)


def test_texts_of_public_classes_are_literals() -> None:
    """An editor reads the source: an f-string, or an assignment, shows nothing."""
    source = Path(inspect.getfile(Client)).read_text()
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    assert {"Client", "AsyncClient"} <= {one.name for one in classes}
    for one in classes:
        assert ast.get_docstring(one), one.name


@BOTH
def test_the_longest_timeout(make: Callable[..., Any]) -> None:
    settings = make(pat=PAT, base=BASE, timeout=MAX_TIMEOUT, stream_timeout=MAX_TIMEOUT).settings
    assert settings.timeout == settings.stream_timeout == 365 * 24 * 3600


class _Sync(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        raise NotImplementedError


class _Async(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("make", "interceptor", "says"),
    [(Client, _Async(), "Client takes"), (AsyncClient, _Sync(), "AsyncClient takes")],
)
def test_interceptors_of_the_other_kind(
    make: Callable[..., Any], interceptor: Any, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"interceptors: {says}"):
        make(pat=PAT, interceptors=[interceptor])
