"""A user's own Python function or class as a model."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc._named_methods.signatures import GET_SIGNATURES
from clarigrpc._rpc.request_facts import METHOD_NAME
from clarigrpc.local.models.model_loop import ModelLoop
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.models.python_values import Converter
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_METHOD_TYPES = {
    (False, False): v2.RunnerMethodType.UNARY_UNARY,
    (False, True): v2.RunnerMethodType.UNARY_STREAMING,
    (True, False): v2.RunnerMethodType.STREAMING_UNARY,
    (True, True): v2.RunnerMethodType.STREAMING_STREAMING,
}


class ModelMethod:
    """A method of a model.

    Args:
        function: What to call.
        loop: Where it runs if it is asynchronous.
        name: Its name for callers; by default ``predict``, ``generate`` (returns an iterator)
            or ``stream`` (takes one).

    Raises:
        TypeError: It is no plain function of named arguments, or has types that do not cross.
    """

    def __init__(
        self, function: Callable[..., Any], loop: ModelLoop, name: str | None = None
    ) -> None:
        plain = inspect.unwrap(function)
        self._yields_async = inspect.isasyncgenfunction(plain)
        self._is_async = self._yields_async or inspect.iscoroutinefunction(plain)
        hints = typing.get_type_hints(function)
        self._function = function
        self._loop = loop
        self._arguments: dict[str, Converter] = {}
        self._required: list[str] = []
        self.signature: v2.MethodSignature = v2.MethodSignature(
            description=inspect.getdoc(function) or ""
        )
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(f"{function!r}: argument {parameter.name} cannot be passed by name")
            converter = Converter(parameter.name, hints.get(parameter.name))
            self._arguments[parameter.name] = converter
            field = converter.field
            field.required = parameter.default is parameter.empty
            if field.required:
                self._required.append(parameter.name)
            elif parameter.default is not None:
                field.default = _as_text(converter.raw(parameter.default))
            self.signature.input_fields.append(field)
        streamed = [n for n, c in self._arguments.items() if c.field.iterator]
        kind = "AsyncIterator" if self._is_async else "Iterator"
        for each in streamed:
            if self._arguments[each].is_async is not self._is_async:
                raise TypeError(f"{function!r}: argument {each} must be an {kind} here")
        if len(streamed) > 1:
            raise TypeError(
                f"{function!r} takes several streams ({', '.join(streamed)}); the maximum is one"
            )
        self.streamed: str | None = streamed[0] if streamed else None
        self._result = Converter("return", hints.get("return"))
        if inspect.isgeneratorfunction(plain) or self._yields_async:
            self._result.field.iterator = True
        if self._is_async and self._result.field.iterator and not self._yields_async:
            raise TypeError(
                f"{function!r} returns an iterator from a coroutine; use yield in an async function"
            )
        self.streams: bool = self._result.field.iterator
        self.signature.output_fields.append(self._result.field)
        self.signature.method_type = _METHOD_TYPES[self.streamed is not None, self.streams]
        self.name: str = name or (
            "stream" if self.streamed else "generate" if self.streams else "predict"
        )
        self.signature.name = self.name

    def arguments(self, data: v2.Data, options: PredictOptions) -> dict[str, Any]:
        """The arguments in the data; parts that no argument has the name of are ignored.

        Data without parts is the first argument itself, so that a function of an image can be
        asked with an image.
        """
        parts = {part.id: part.data for part in data.parts}
        if not data.parts and self._arguments and _has_content(data):
            parts = {next(iter(self._arguments)): data}
        found = {
            name: converter.decode(parts[name], options.fetcher)
            for name, converter in self._arguments.items()
            if name in parts and name != self.streamed
        }
        missing = [n for n in self._required if n not in found and n != self.streamed]
        if missing:
            raise ServiceError(
                StatusCode.INPUT_INVALID_ARGUMENT,
                f"method {self.name} needs {', '.join(missing)}",
            )
        return found

    def stream_of(self, requests: Iterator[v2.Data], options: PredictOptions) -> Any:
        """The values of the streamed argument; requests without one are skipped."""
        values = self._stream_of(requests, options)
        return self._loop.each(values) if self._is_async else values

    def _stream_of(self, requests: Iterator[v2.Data], options: PredictOptions) -> Iterator[Any]:
        assert self.streamed is not None
        converter = self._arguments[self.streamed]
        for data in requests:
            parts = {part.id: part.data for part in data.parts}
            if self.streamed in parts:
                yield converter.decode(parts[self.streamed], options.fetcher)
            elif not data.parts and _has_content(data):
                yield converter.decode(data, options.fetcher)

    def call(self, arguments: dict[str, Any], options: PredictOptions) -> Iterator[v2.Data]:
        """Calls the function; its result, or each of its results, as data."""
        result = self._function(**arguments)
        if self._yields_async:
            result = self._loop.iterate(result, options.is_active)
        elif self._is_async:
            result = self._loop.run(result, options.is_active)
        if not self.streams:
            yield self._encoded(result)
            return
        for item in result:
            yield self._encoded(item)

    def _encoded(self, value: Any) -> v2.Data:
        if isinstance(value, v2.Data):  # its own output, not a result to wrap
            return value
        data = v2.Data()
        data.parts.add(id="return").data.CopyFrom(self._result.encode(value))
        return data


class PythonModel(Runtime):
    """A function, or the public methods of an object, as a model.

    Args:
        source: A function; a class, of which one object is made; or an object.

    Calls come from several threads at once; asynchronous methods run on one event loop.
    """

    def __init__(self, source: Any) -> None:
        if inspect.isclass(source):
            source = source()
        is_value = type(source).__module__ == "builtins" and not (
            inspect.isroutine(source) or inspect.ismodule(source)
        )
        if is_value:
            raise TypeError(
                f"{source!r} has no signature: give a function, a class or an object of one"
            )
        self._loop = ModelLoop()
        if inspect.isroutine(source):
            methods = [ModelMethod(source, self._loop)]
        else:
            methods = [
                ModelMethod(function, self._loop, name)
                for name, function in inspect.getmembers(source, inspect.isroutine)
                if not name.startswith("_")
            ]
        if not methods:
            raise TypeError(f"{source!r} has no public methods")
        self._methods = {method.name: method for method in methods}

    @property
    def signatures(self) -> list[v2.MethodSignature]:
        """What callers may call."""
        return [method.signature for method in self._methods.values()]

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        if _asked(data) == GET_SIGNATURES:
            return self._signatures()
        method = self._method(data, "predict")
        if method.streams or method.streamed:
            call = "StreamModelOutputs" if method.streamed else "GenerateModelOutputs"
            raise ServiceError(
                StatusCode.INPUT_INVALID_ARGUMENT,
                f"method {method.name} streams its results; call it with {call}",
            )
        return next(method.call(method.arguments(data, options), options))

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data]:
        if _asked(data) == GET_SIGNATURES:
            yield self._signatures()
            return
        method = self._method(data, "generate")
        if method.streamed:
            raise ServiceError(
                StatusCode.INPUT_INVALID_ARGUMENT,
                f"method {method.name} takes a stream; call it with StreamModelOutputs",
            )
        yield from method.call(method.arguments(data, options), options)

    def is_duplex(self, data: v2.Data) -> bool:
        if _asked(data) == GET_SIGNATURES:
            return False
        return self._method(data, "stream").streamed is not None

    def converse(self, data: Iterator[v2.Data], options: PredictOptions) -> Iterator[v2.Data]:
        first = next(data)
        method = self._method(first, "stream")
        arguments = method.arguments(first, options)
        assert method.streamed is not None
        arguments[method.streamed] = method.stream_of(_chained(first, data), options)
        yield from method.call(arguments, options)

    def close(self) -> None:
        self._loop.close()

    def _method(self, data: v2.Data, default: str) -> ModelMethod:
        name = _asked(data)
        if not name and default not in self._methods and len(self._methods) == 1:
            return next(iter(self._methods.values()))
        method = self._methods.get(name or default)
        if method is None:
            raise ServiceError(
                StatusCode.INPUT_INVALID_ARGUMENT,
                f"the model has no method {name or default!r}; "
                f"it has {', '.join(sorted(self._methods))}",
            )
        return method

    def _signatures(self) -> v2.Data:
        data = v2.Data()
        data.text.raw = json.dumps(
            {name: json_format.MessageToDict(m.signature) for name, m in self._methods.items()}
        )
        return data


def _asked(data: v2.Data) -> str:
    fields = data.metadata.fields
    return fields[METHOD_NAME].string_value if METHOD_NAME in fields else ""


def _has_content(data: v2.Data) -> bool:
    return any(field.name != "metadata" for field, _ in data.ListFields())


def _chained(first: v2.Data, rest: Iterator[v2.Data]) -> Iterator[v2.Data]:
    yield first
    yield from rest


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=repr)
