"""Answers that a test has written down, in place of a server that computes them."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import CallAborted, make_status
from clarigrpc.v2 import StatusCode
from clarigrpc.v2._index import METHODS


@named_in("clarigrpc.local")
class StubAnswers:
    """What ``LocalServer.stub`` returns: the server answers what ``on`` says, and nothing else.

    The end of the ``with`` block raises AssertionError where there were calls that nobody
    expected, fewer calls than answers, or a function among the answers that raised an error.

    Attributes:
        unexpected: Names of the methods that were called without an answer, in order; and paths
            and addresses (``GET /v2/...``) that are none of the service.
        broken: The functions' errors, by method, in order.
    """

    def __init__(self, put: Callable[[StubAnswers | None], None]) -> None:
        self._put = put
        self._answers: dict[str, deque[Any]] = defaultdict(deque)
        self._always: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.unexpected: list[str] = []
        self.broken: list[tuple[str, BaseException]] = []

    def on(self, method: str, *answers: Any, always: bool = False) -> Self:
        """Sets the answers of the next calls of a method, one each.

        An answer is a response of the method (one without a status succeeds), a list of responses
        for a stream, a gRPC status or a V2 status code for a failure, or a function that takes the
        request (an iterator of requests for a stream of them) and returns one of these.

        Args:
            method: Name of the method.
            *answers: The answers.
            always: All further calls have the last answer, and need not come.

        Raises:
            TypeError: An answer is none of these.
            ValueError: There is no method of that name, or no answer.
        """
        if method not in METHODS:
            raise ValueError(f"the service has no method {method!r}")
        if not answers:
            raise ValueError(f"{method}: give at least one answer")
        for answer in answers:
            if not callable(answer):
                _messages(method, answer)
        with self._lock:
            if always:
                self._always[method] = answers[-1]
                answers = answers[:-1]
            self._answers[method].extend(answers)
        return self

    def respond(self, call: ServedCall, payload: Any) -> list[Message] | Iterator[Message]:
        """The responses to a call."""
        with self._lock:
            waiting = self._answers[call.method]
            if not waiting and call.method not in self._always:
                self.unexpected.append(call.method)
                raise CallAborted(
                    grpc.StatusCode.FAILED_PRECONDITION, f"nobody expected {call.method}"
                )
            answer = waiting.popleft() if waiting else self._always[call.method]
        try:
            if callable(answer):
                answer = answer(payload)
            responses = _messages(call.method, answer)
        except BaseException as error:  # pytest.fail() raises no Exception
            self.broken.append((call.method, error))
            if isinstance(error, Exception):
                raise
            raise CallAborted(grpc.StatusCode.UNKNOWN, f"the stub raised {error!r}") from error
        if isinstance(answer, grpc.StatusCode):
            raise CallAborted(answer, "as the stub says")
        return responses

    def check(self) -> None:
        """Raises AssertionError for what the end of the block raises it for."""
        if self.broken:
            method, error = self.broken[0]
            raise AssertionError(f"the answer to {method} raised {error!r}") from error
        left = {method: len(answers) for method, answers in self._answers.items() if answers}
        if self.unexpected:
            raise AssertionError(f"nobody expected these calls: {', '.join(self.unexpected)}")
        if left:
            missing = ", ".join(f"{count} of {method}" for method, count in left.items())
            raise AssertionError(f"these calls did not come: {missing}")

    def __enter__(self) -> Self:
        self._put(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._put(None)
        if kind is None:
            self.check()
        elif error is not None:
            if self.unexpected:
                error.add_note(f"nobody expected these calls: {', '.join(self.unexpected)}")
            for method, broken in self.broken:
                error.add_note(f"the answer to {method} raised {broken!r}")


def _messages(method: str, answer: Any) -> list[Message] | Iterator[Message]:
    """The responses that an answer stands for; raises TypeError for what is none."""
    if isinstance(answer, grpc.StatusCode):
        return []
    _, response_name, _, many, *_ = METHODS[method]
    response_class: Any = getattr(v2, response_name)
    if isinstance(answer, int) and not isinstance(answer, bool):
        if answer not in StatusCode.values():
            raise TypeError(f"{method}: {answer} is no V2 status code")
        return [response_class(status=make_status(answer))]  # type: ignore[arg-type]
    if isinstance(answer, Message):
        return [_checked(method, response_class, answer)]
    if many and isinstance(answer, Iterable) and not isinstance(answer, str | bytes):
        checked = (_checked(method, response_class, one) for one in answer)
        return list(checked) if isinstance(answer, list | tuple) else checked
    raise TypeError(
        f"{method}: an answer is a {response_name}{', a list of them' if many else ''}, a status, "
        f"or a function that returns one of these, not {answer!r}"
    )


def _checked(method: str, response_class: Any, answer: Any) -> Any:
    if not isinstance(answer, response_class):
        raise TypeError(
            f"{method} answers with a {response_class.__name__}, not with {type(answer).__name__}"
        )
    response: Any = answer
    if not response.HasField("status"):
        response = response_class()
        response.CopyFrom(answer)
        response.status.CopyFrom(make_status(StatusCode.SUCCESS))
    return response
