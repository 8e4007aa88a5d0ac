"""Random JSON, queries and heads to every REST address: each is answered with a status."""

from __future__ import annotations

import copy
import json
import random
import socket
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._transports import transcoding
from clarigrpc._transports.transcoding import Binding
from clarigrpc.v2._index import METHODS
from tests.fuzz.explore import Case, explore
from tests.fuzz.world import ENDLESS, TIMEOUT, World
from tests.strategies import messages

Code = v2.StatusCode

_STATUSES = {200, 202, 400, 401, 402, 403, 404, 405, 409, 413, 429, 499, 501, 503}

_HUGE = st.sampled_from([2**31, -(2**63), 2**64, 10**400, 1e308, -0.0, 1e-320, "1" * 5000])
_TEXTS = st.text(max_size=8) | st.sampled_from(
    ["\x00", "1" * 5000, "\ud7ff\ue000", "📷" * 300, "../..", "%"]
)
_SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | _HUGE | _TEXTS
_TREES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
_DEEP = st.integers(50, 3000).flatmap(
    lambda depth: st.sampled_from(['{"a":' * depth + "1" + "}" * depth, "[" * depth + "]" * depth])
)


def test_random_json_to_every_address(world: World) -> None:
    cases = [_case(world, method) for method in METHODS]
    explore(cases, share=0.25, examples=2, after=world.renew_after)
    world.still_works()


def _case(world: World, method: str) -> Case:
    request_name, _, many, *_ = METHODS[method]
    request = messages(getattr(v2, request_name), depth=3, hostile=True)

    def check(
        drawn: tuple[Binding, Any, int, list[Any], list[str], str | bytes | None],
    ) -> None:
        binding, message, number, trees, words, raw = drawn
        world.aim(message, number)
        dice = random.Random(number)
        tree = _spoil(transcoding.to_json(message), trees, dice)
        path = "".join(
            f"/{segment}"
            if isinstance(segment, str)
            else f"/{quote(_value(message, segment) or dice.choice(words), safe='')}"
            for segment in binding.segments
        )
        body: str | bytes | None = None
        query = ""
        if raw is not None:
            body = raw
        elif binding.has_body:
            # Where the method takes a stream of requests, each line is one.
            body = "\n".join([json.dumps(tree)] * (dice.randint(0, 3) if many else 1))
        if not binding.has_body or dice.random() < 0.1:
            query = "?" + urlencode([(k, _text(v)) for k, v in tree.items()], errors="replace")
        _ask(world, binding.verb, path + query, body, endless=method in ENDLESS)

    drawn = st.tuples(
        st.sampled_from(transcoding.bindings(method)),
        request,
        st.integers(0, 2**32),
        st.lists(_TREES, max_size=2),
        st.lists(_TEXTS.filter(bool), min_size=1, max_size=2),
        st.none() | st.none() | st.none() | _DEEP | st.binary(max_size=64),
    )
    return Case(method, drawn, check)


def _ask(
    world: World, verb: str, target: str, body: str | bytes | None, *, endless: bool = False
) -> None:
    what = f"{verb} {target[:2000]}\n{body[:4000] if body else ''!r}"
    with world.web.stream(verb, target, content=body) as answer:
        by_line = answer.headers["content-type"] == "application/x-ndjson"
        content = next(answer.iter_lines()) + "\n" if by_line and endless else read(answer)
    world.check(what)
    assert answer.status_code in _STATUSES, f"{answer.status_code} {content[:1000]}\n{what}"
    assert "Traceback" not in content, what
    if by_line:
        for line in content.split("\n")[:-1]:
            assert set(json.loads(line)) == {"result"}, what
    else:
        assert answer.headers["content-type"] == "application/json", what
        code = json.loads(content)["status"]["code"]
        assert code not in (Code.ZERO, Code.INTERNAL_UNCATEGORIZED), f"{content}\n{what}"


def read(answer: httpx.Response) -> str:
    """The whole body."""
    answer.read()
    return answer.text


def _value(message: Any, path: tuple[str, ...]) -> str:
    for name in path:
        message = getattr(message, name)
    text: str = message
    return "" if text in (".", "..") else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _spoil(tree: Any, trees: list[Any], dice: random.Random) -> Any:
    """The tree with some of its nodes replaced by others."""
    spoilt = copy.deepcopy(tree)
    for wrong in trees:
        node: Any = spoilt
        while True:
            key = _key(node, dice)
            if key is None:
                break
            below = node[key]
            if not isinstance(below, dict | list) or not below or dice.random() < 0.4:
                node[key] = wrong
                break
            node = below
    return spoilt


def _key(node: Any, dice: random.Random) -> Any:
    if isinstance(node, dict) and node:
        return dice.choice(sorted(node))
    return dice.randrange(len(node)) if isinstance(node, list) and node else None


_HEADS = st.lists(
    st.sampled_from(
        [
            b"GET /v2/inputs HTTP/1.1\r\n",
            b"POST /v2/inputs HTTP/1.1\r\n",
            b"POST /v2/inputs HTTP/1.0\r\n",
            b"GET http://elsewhere/v2/inputs HTTP/1.1\r\n",
            b"GET * HTTP/1.1\r\n",
            b"CONNECT /v2/inputs HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"host: x\r\n",
            b"content-length: 5\r\n",
            b"content-length: -1\r\n",
            b"content-length: 99999999999999999999\r\n",
            b"transfer-encoding: chunked\r\n",
            b"transfer-encoding: nonsense\r\n",
            b"connection: close\r\n",
            b"expect: 100-continue\r\n",
            b"upgrade: h2c\r\n",
            b"authorization: Key \xff\xfe\r\n",
            b"grpc-timeout: 0n\r\n",
            b"grpc-timeout: 99999999H\r\n",
            b"\r\n",
            b"5\r\n{}   \r\n0\r\n\r\n",
            b"zz\r\n",
            b"{}",
            b"\x00" * 40,
        ]
    )
    | st.binary(max_size=40),
    max_size=8,
)


def test_malformed_http(world: World) -> None:
    parts = urlsplit(world.server.rest_base or "")

    def check(pieces: list[bytes]) -> None:
        with socket.create_connection((parts.hostname or "", parts.port or 0), TIMEOUT) as sock:
            sock.sendall(b"".join(pieces))
            sock.shutdown(socket.SHUT_WR)
            answer = bytearray()
            try:
                while chunk := sock.recv(65536):
                    answer += chunk
            except ConnectionResetError:
                pass
        world.check(pieces)
        assert b"Traceback" not in answer, pieces
        assert b"HTTP/1.1 500" not in answer, (pieces, answer)

    explore([Case("HTTP/1.1", _HEADS, check)], share=0.05, examples=60)
    world.still_works()
