"""Every method of V2 over HTTP/JSON, as a client calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clarigrpc import errors
from clarigrpc._contract import methods
from clarigrpc._transports import transcoding
from clarigrpc.local.fronts.rest_front import RestFront
from tests.backend import Backend
from tests.conftest import Connect
from tests.transports.test_transcoding import WITHOUT_ADDRESS


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Backend, RestFront]]:
    backend = Backend()
    front = RestFront(backend)
    front.start()
    yield backend, front
    front.close()


def filled(method: str) -> Any:
    """A request with what an address of the method needs."""
    request = methods.lookup(method).request_class()()
    router = transcoding.router()
    binding = next(
        (b for b in transcoding.bindings(method) if router.match(b.verb, b.template) is b),
        transcoding.bindings(method)[0],
    )
    for variable in binding.variables:
        target: Any = request
        for name in variable[:-1]:
            target = getattr(target, name)
        setattr(target, variable[-1], f"an-{variable[-1].replace('_', '-')}")
    return request


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
async def test_every_method_goes_over_rest_or_says_that_it_needs_grpc(
    connect: Connect, served: tuple[Backend, RestFront]
) -> None:
    backend, front = served
    both = connect(front.base, transport="rest", timeout=60, retry=None)
    assert len(methods.names()) == 304
    for method in methods.names():
        row, request = methods.lookup(method), filled(method)
        backend.reset()
        if row.request_streaming:
            with pytest.raises(errors.UnimplementedError, match=f"{method}.*use gRPC"):
                await both.collect(both.open(method, iter([request])))
        elif method in WITHOUT_ADDRESS:
            with pytest.raises(errors.InvalidArgumentError, match=f"{method}.*use gRPC"):
                await both.call(method, request)
        elif row.response_streaming:
            assert await both.collect(both.open(method, request)) == []
        else:
            assert isinstance(await both.call(method, request), row.response_class())
        arrived = [(type(seen), call.method) for seen, call in backend.calls]
        needs_grpc = row.request_streaming or method in WITHOUT_ADDRESS
        assert arrived == ([] if needs_grpc else [(row.request_class(), method)])
