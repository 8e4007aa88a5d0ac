"""What is sent again of calls that must not run twice, when a server goes away.

A server that counts says which requests it took. None may be taken twice, whatever gRPC's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from grpc import aio

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._rpc import grpc_failures
from tests.both import Both, ClientKind
from tests.faults import http2_server as http2
from tests.faults.http2_server import Ending, Http2Server

DONE = v2.MultiConceptResponse(
    status=v2.Status(code=v2.StatusCode.SUCCESS), concepts=[v2.Concept(id="c")]
)
TAKE = http2.take(DONE.SerializeToString())
WRITE = v2.PostConceptsRequest(concepts=[v2.Concept(id="c")])
GENERATE = v2.PostModelOutputsRequest(model_id="m")
QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)

GOAWAY_TEXT = "GOAWAY received; Error code: 0; Debug Text: bye"
EXCLUDED_TEXT = f"Stream removed ({GOAWAY_TEXT})"
KNOWN_TEXT = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 81)
"""Whether gRPC's text tells excluded calls from lost ones."""
PASSED_ON = (
    EXCLUDED_TEXT,
    GOAWAY_TEXT,
    "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))",
    "failed to connect to all addresses; last error: connection refused",
    "ipv4:127.0.0.1:1: subchannel lost all connections",
)
"""What a server can say of calls of its own."""
ROUNDS = 12
"""So many that gRPC tells of the end of the connection in time in some of them."""


async def write(
    client_kind: ClientKind,
    server: Http2Server,
    retry: RetryPolicy = QUICK,
    *,
    calls: int = 1,
    **options: Any,
) -> errors.ApiError | None:
    """Make calls that must not run twice, and only the last of which may fail; how it failed."""
    both = Both(
        client_kind,
        base=server.base,
        pat="p",
        user_id="u",
        app_id="a",
        retry=retry,
        timeout=20,
        **options,
    )
    try:
        for _ in range(calls - 1):
            await both.call("PostConcepts", WRITE)
        answer = await both.call("PostConcepts", WRITE)
    except errors.ApiError as error:
        return error
    finally:
        await both.close()
    assert answer.concepts[0].id == "c"
    return None


@pytest.mark.parametrize(
    "refusal", [http2.refuse, http2.refuse_and_close, http2.announce_then_refuse]
)
async def test_a_call_that_the_server_excluded_is_sent_again(
    client_kind: ClientKind, refusal: Ending
) -> None:
    done = 0
    for _ in range(ROUNDS):
        with Http2Server([refusal, TAKE]) as server:
            error = await write(client_kind, server)
        if error is None:
            done += 1
            assert (server.arrived, server.taken) == (2, 1)
        else:  # gRPC had not told yet that the connection ends
            assert isinstance(error, errors.UnavailableError)
            assert error.connection_lost
            assert not error.refused
            assert (server.arrived, server.taken) == (1, 0)
    assert (done > 0) is KNOWN_TEXT


@pytest.mark.parametrize(
    "ending",
    [
        http2.lose,
        http2.lose_announced,
        http2.lose_garbled,
        http2.reset,
        http2.reset_after_headers,
        *map(http2.pass_on, PASSED_ON),
    ],
)
async def test_what_the_server_may_have_taken_is_sent_once(
    client_kind: ClientKind, ending: Ending
) -> None:
    for _ in range(3):
        with Http2Server([ending, TAKE]) as server:
            error = await write(client_kind, server)
        assert isinstance(error, errors.UnavailableError)
        assert not error.refused
        assert not error.not_sent
        assert server.arrived == 1


@pytest.mark.parametrize("used", [0, 1, 2, 3])
@pytest.mark.parametrize("text", PASSED_ON)
async def test_other_connections_do_not_count(
    client_kind: ClientKind, text: str, used: int
) -> None:
    """Of several, those that were never used are idle, as lost ones are."""
    with Http2Server([TAKE] * used + [http2.pass_on(text), TAKE]) as server:
        error = await write(client_kind, server, connections=3, calls=used + 1)
    assert isinstance(error, errors.UnavailableError)
    assert not error.not_sent
    assert server.arrived == used + 1


async def test_one_of_several_connections_is_excluded(client_kind: ClientKind) -> None:
    """While the others are up."""
    done = 0
    for _ in range(ROUNDS):
        with Http2Server([TAKE] * 3 + [http2.refuse, TAKE]) as server:
            error = await write(client_kind, server, connections=3, calls=4)
        done += error is None
        assert (server.arrived, server.taken) == ((5, 4) if error is None else (4, 3))
    assert (done > 0) is KNOWN_TEXT


@pytest.mark.parametrize("options", [{}, {"connections": 3}], ids=["one", "three"])
@pytest.mark.parametrize("text", PASSED_ON)
async def test_a_stream_whose_server_passes_on_what_grpc_said(
    client_kind: ClientKind, text: str, options: dict[str, Any]
) -> None:
    """It counts as an attempt: the request was sent, also by a client that made no other call."""
    policy = RetryPolicy(max_attempts=3, initial_backoff=0.01, max_backoff=0.02)
    with Http2Server([http2.pass_on(text)] * 50) as server:
        both = Both(client_kind, base=server.base, pat="p", retry=policy, timeout=20, **options)
        try:
            with pytest.raises(errors.UnavailableError) as caught:
                await both.collect(both.open("GenerateModelOutputs", GENERATE))
        finally:
            await both.close()
    assert not caught.value.not_sent
    assert server.arrived == 3


async def test_refusals_count_as_attempts(client_kind: ClientKind) -> None:
    found = set()
    for _ in range(ROUNDS):
        retry = RetryPolicy(max_attempts=3, initial_backoff=0.01, max_backoff=0.02)
        with Http2Server([http2.refuse] * 10) as server:
            error = await write(client_kind, server, retry)
        assert isinstance(error, errors.UnavailableError)
        assert len(error.attempts) == server.arrived - 1
        assert all(attempt.refused for attempt in error.attempts)
        found.add(server.arrived)
    assert max(found) == (3 if KNOWN_TEXT else 1)


async def test_a_client_that_must_not_repeat_does_not(client_kind: ClientKind) -> None:
    with Http2Server([http2.refuse, TAKE]) as server:
        error = await write(client_kind, server, RetryPolicy(max_attempts=1))
    assert isinstance(error, errors.UnavailableError)
    assert (server.arrived, server.taken) == (1, 0)


def _failure(text: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> aio.AioRpcError:
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), text)


@pytest.mark.parametrize(
    ("text", "states"),
    [
        (EXCLUDED_TEXT, [False]),
        (GOAWAY_TEXT, []),  # up to grpcio 1.80, also of calls that are lost
        (f"Stream removed (Socket closed ({GOAWAY_TEXT}))", []),
        (f"Stream removed (Failed parsing HTTP/2 (x) ({GOAWAY_TEXT}))", []),
        (f"x {EXCLUDED_TEXT}", []),
        ("Stream removed (going away, in words of a later release)", []),
        ("", []),
    ],
)
def test_what_counts_as_refused(text: str, states: Sequence[bool | None]) -> None:
    every = (True, False, None)
    assert [one for one in every if grpc_failures.was_refused(_failure(text), connected=one)] == (
        list(states)
    )
    other = _failure(text, grpc.StatusCode.INTERNAL)
    assert not grpc_failures.was_refused(other, connected=False)
