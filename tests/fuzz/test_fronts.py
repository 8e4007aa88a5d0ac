"""Random questions to both fronts: both give the same answer."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._descriptor_pool import POOL
from clarigrpc._transports import transcoding
from clarigrpc._transports.transcoding import TranscodingError
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.v2._index import METHODS
from tests.fuzz.explore import Case, explore
from tests.fuzz.world import World
from tests.strategies import messages

_QUESTIONS = ("Get", "List", "My", "StreamInputs", "PostInputsSearches", "PostModelsSearches")


def test_both_fronts_answer_the_same(world: World) -> None:
    methods = [
        method
        for method in METHODS
        if method.startswith(_QUESTIONS) and V2Service.implements(method) and not METHODS[method][3]
    ]
    explore([_case(world, method) for method in methods], share=0.15, examples=2)


def _case(world: World, method: str) -> Case:
    request_name, response_name, *_ = METHODS[method]

    def check(drawn: tuple[Any, int]) -> None:
        request, number = drawn
        world.aim(request, number)
        try:
            verb, target, body = transcoding.encode_request(method, request)
        except TranscodingError:
            return  # over HTTP it cannot be asked
        (expected,) = world.call(method, [request])
        answer = getattr(v2, response_name)()
        response = world.web.request(verb, target, content=body)
        transcoding.from_json(response.json(), answer)
        for each in (expected, answer):
            each.status.ClearField("req_id")
            if method == "PostInputsSearches":
                each.ClearField("id")  # made anew for each
        text = text_format.MessageToString(request, as_one_line=True, descriptor_pool=POOL)
        assert answer == expected, f"{method}: {text}\n{verb} {target[:1000]}\n{body!r}"

    request = messages(getattr(v2, request_name), depth=3)
    return Case(method, st.tuples(request, st.integers(0, 2**32)), check)
