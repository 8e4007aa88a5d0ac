"""Methods that take the fields of an options dataclass as their keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from clarigrpc._config.client_options import ClientOptions
from clarigrpc._config.credentials import SECRET_OPTIONS, Secret

P = ParamSpec("P")
SelfT = TypeVar("SelfT")
OptionsT = TypeVar("OptionsT")
ResultT = TypeVar("ResultT")


def takes(
    options: Callable[P, OptionsT],
) -> Callable[[Callable[[SelfT, OptionsT], ResultT]], Callable[Concatenate[SelfT, P], ResultT]]:
    """Call a method that takes an options object with the options themselves.

    Type checkers and editors see the dataclass's signature and text, as ``help()`` does.
    """
    parameters = inspect.signature(options).parameters

    def decorate(
        method: Callable[[SelfT, OptionsT], ResultT],
    ) -> Callable[Concatenate[SelfT, P], ResultT]:
        @wraps(method)
        def taking(self: SelfT, /, *args: P.args, **given: P.kwargs) -> ResultT:
            called = type(self).__name__
            if method.__name__ != "__init__":
                called += f".{method.__name__}"
            if args:
                raise TypeError(f"{called}() takes its options by name")
            for name in given:
                if name not in parameters:
                    raise TypeError(_unknown(called, name, list(parameters)))
                if name in SECRET_OPTIONS and isinstance(given[name], str):
                    # Tracebacks may show the variables of this frame.
                    given[name] = Secret(given[name])
            return method(self, options(*args, **given))

        owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        taking.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [owner, *parameters.values()],
            return_annotation=inspect.signature(method).return_annotation,
        )
        taking.__doc__ = options.__doc__
        return taking

    return decorate


def _unknown(called: str, name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    if name in ClientOptions.__dataclass_fields__:
        return (
            f"{called}() cannot change {name}, which belongs to the connection: make another "
            f"client for it; what can be changed is {', '.join(known)}"
        )
    near = get_close_matches(name, known, 1)
    return f"{called}() has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
