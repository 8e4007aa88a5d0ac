"""A service for tests of the REST front and its clients: it does what each test tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import CallAborted

Handler = Callable[[Any, ServedCall], Any]


class Backend:
    """Answers SUCCESS to every method, or what ``handlers`` has for it.

    Attributes:
        handlers: Method -> function of request and call, which returns a response, or an
            iterator of responses for a server stream.
        missing: Methods that are not implemented.
        calls: Every request with its call, in order.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.missing: set[str] = set()
        self.calls: list[tuple[Any, ServedCall]] = []

    def reset(self) -> None:
        """Forget what was told and what was called."""
        self.handlers.clear()
        self.missing.clear()
        self.calls.clear()

    def implements(self, method: str) -> bool:
        return method not in self.missing

    def unrouted(self, address: str) -> None:
        pass

    def authorize(self, call: ServedCall) -> None:
        pass

    def unary(self, method: str, request: Any, call: ServedCall) -> Any:
        self.calls.append((request, call))
        if method in self.handlers:
            return self.handlers[method](request, call)
        response = methods.lookup(method).response_class()()
        response.status.code = v2.StatusCode.SUCCESS
        return response

    def server_stream(self, method: str, request: Any, call: ServedCall) -> Iterator[Any]:
        self.calls.append((request, call))
        handler = self.handlers.get(method)
        return iter(()) if handler is None else handler(request, call)

    def duplex(self, method: str, requests: Iterator[Any], call: ServedCall) -> Iterator[Any]:
        self.calls += [(request, call) for request in requests]
        handler = self.handlers.get(method)
        return iter(()) if handler is None else handler(self.calls, call)


def respond(method: str, code: Any, **trailing: str) -> Handler:
    """A handler that answers with a status, and with these trailing metadata."""

    def handler(request: Any, call: ServedCall) -> Any:
        call.trailing.update({key.replace("_", "-"): text for key, text in trailing.items()})
        response = methods.lookup(method).response_class()()
        response.status.code = code
        response.status.description = "as told"
        return response

    return handler


def abort(code: grpc.StatusCode, details: str = "as told") -> Handler:
    """A handler that ends the call without a response."""

    def handler(request: Any, call: ServedCall) -> Any:
        raise CallAborted(code, details)

    return handler


def outputs(count: int) -> Iterator[v2.MultiOutputResponse]:
    """Responses of a stream of predictions, numbered by the text in them."""
    for number in range(count):
        data = v2.Data(text=v2.Text(raw=f"{number}\u2028\u0085"))
        yield v2.MultiOutputResponse(
            status=v2.Status(code=v2.StatusCode.SUCCESS), outputs=[v2.Output(data=data)]
        )
