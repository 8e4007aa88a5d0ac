"""What a scripted server answers to predictions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from clarigrpc import v2
from tests.scripted import Fail, refuse

METHOD = "PostModelOutputs"
SUCCESS = v2.StatusCode.SUCCESS

Response = v2.MultiOutputResponse
Answer = Callable[[Any], Response | Fail]


def outputs(request: Any) -> Response:
    """An output for each input of a request, with the text of the input as its text."""
    response = v2.MultiOutputResponse()
    response.status.code = SUCCESS
    for one in request.inputs:
        output = response.outputs.add()
        output.status.code = SUCCESS
        output.data.text.raw = one.data.text.raw
    return response


def script(answer: Answer) -> Callable[[Iterator[Any], grpc.ServicerContext], Iterable[Any]]:
    """A script for ``ScriptedServer`` out of a function of the request."""

    def respond(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterable[Any]:
        (request,) = requests
        yield answer(request)

    return respond


def poisoned(text: str) -> Answer:
    """Refuses a request for one input of it, without saying for which."""

    def answer(request: Any) -> Response | Fail:
        if any(one.data.text.raw == text for one in request.inputs):
            found: Response = refuse(METHOD, v2.StatusCode.INPUT_INVALID_ARGUMENT, "bad input")
            return found
        return outputs(request)

    return answer


class Hanging:
    """Answers nothing until the client has gone. ``running`` counts the calls that wait."""

    def __init__(self) -> None:
        self.running = 0
        self.began = threading.Event()

    def __call__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterable[Any]:
        list(requests)
        self.running += 1
        self.began.set()
        while context.is_active():
            time.sleep(0.005)
        self.running -= 1
        yield v2.MultiOutputResponse()

    def answered_meanwhile(
        self, requests: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterable[Any]:
        """A script that answers once another call waits."""
        (request,) = requests
        self.began.wait(30)
        yield outputs(request)
