"""Random requests to every method: each is answered with a status, never with a crash."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import text_format
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._descriptor_pool import POOL
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.v2._index import METHODS
from tests.fuzz.explore import Case, explore
from tests.fuzz.world import World
from tests.strategies import messages

Code = v2.StatusCode


def test_random_requests_to_every_method(world: World) -> None:
    methods = sorted(filter(V2Service.implements, METHODS))
    explore(
        [_case(world, method) for method in methods],
        share=0.45,
        examples=2,
        after=world.renew_after,
    )
    world.still_works()


def _case(world: World, method: str) -> Case:
    request_name, _, many, *_ = METHODS[method]
    request = messages(getattr(v2, request_name), hostile=True)

    def check(drawn: tuple[list[Any], int]) -> None:
        requests, number = drawn
        for each in requests:
            world.aim(each, number)
        text = "\n".join(f"{method}: {_text(each)}" for each in requests)
        try:
            responses = world.call(method, requests)
        except grpc.RpcError as error:
            raise AssertionError(f"{error.code()} {error.details()}\n{text}") from error
        world.check(text)
        for response in responses:
            assert response.status.code not in (Code.ZERO, Code.INTERNAL_UNCATEGORIZED), text
            assert "Traceback" not in response.status.details, text

    count = st.lists(request, min_size=1, max_size=3 if many else 1)
    return Case(method, st.tuples(count, st.integers(0, 2**32)), check)


def _text(message: Any) -> str:
    return text_format.MessageToString(message, as_one_line=True, descriptor_pool=POOL)
