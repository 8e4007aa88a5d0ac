"""Python functions and classes as methods with named arguments: signatures, arguments, results.

The local server and the runner serve models of users by this.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Literal, TypeVar

from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc._named_methods.annotations import Converter, MethodInputError
from clarigrpc._named_methods.method_failures import CONTAINED
from clarigrpc._named_methods.method_loop import EXHAUSTED, ModelLoop
from clarigrpc._named_methods.signatures import GET_SIGNATURES, RETURN
from clarigrpc._named_methods.values import MediaReader
from clarigrpc._rpc.request_facts import METHOD_NAME

CallingStyle = Literal["predict", "generate", "stream"]
"""How a caller calls: one request and one response, many responses, or many of both."""
IsActive = Callable[[], bool]
"""False once nobody waits for the results."""

T = TypeVar("T")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_BATCHED = "_clarigrpc_batched"
_METHOD_TYPES = {
    (False, False): v2.RunnerMethodType.UNARY_UNARY,
    (False, True): v2.RunnerMethodType.UNARY_STREAMING,
    (True, False): v2.RunnerMethodType.STREAMING_UNARY,
    (True, True): v2.RunnerMethodType.STREAMING_STREAMING,
}


def mark_batched(function: FunctionT) -> FunctionT:
    """Mark a function that takes a list for each argument and returns a list of results."""
    setattr(function, _BATCHED, True)
    return function


class ModelMethod:
    """A method of a model.

    Args:
        function: What to call.
        loop: Where it runs if it is asynchronous and called by ``call``.
        name: Its name for callers; by default ``predict``, ``generate`` (returns an iterator)
            or ``stream`` (takes one).

    Attributes:
        name: Its name for callers.
        signature: What callers are told.
        streamed: Name of the argument that is a stream; None without one.
        streams: Whether it returns a stream.
        batched: Whether one call of the function is for many callers.

    Raises:
        TypeError: It is no plain function of named arguments, or has types that do not cross.
    """

    def __init__(
        self, function: Callable[..., Any], loop: ModelLoop, name: str | None = None
    ) -> None:
        plain = inspect.unwrap(function)
        self._yields_async = inspect.isasyncgenfunction(plain)
        self._is_async = self._yields_async or inspect.iscoroutinefunction(plain)
        self.batched: bool = getattr(plain, _BATCHED, False)
        hints = typing.get_type_hints(function)
        if self.batched:
            hints = {key: _element(function, key, hint) for key, hint in hints.items()}
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
            if self.batched and parameter.default is not parameter.empty:
                raise TypeError(
                    f"{function!r}: argument {parameter.name} of a batched function can have no "
                    "default, as each caller has a value of its own"
                )
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
        if self.batched and (self.streams or self.streamed):
            raise TypeError(f"{function!r}: a batched function can neither take nor return streams")

    @property
    def blocks(self) -> bool:
        """Whether it is a plain function, which cannot be interrupted."""
        return not self._is_async

    def arguments(self, data: v2.Data, reader: MediaReader) -> dict[str, Any]:
        """The arguments in the data; parts that no argument has the name of are ignored.

        Data without parts is the first argument itself, so that a function of an image can be
        asked with an image.

        Raises:
            MethodInputError: One is missing, or of another type.
        """
        parts = {part.id: part.data for part in data.parts}
        if not data.parts and self._arguments and _has_content(data):
            parts = {next(iter(self._arguments)): data}
        found = {
            name: converter.decode(parts[name], reader)
            for name, converter in self._arguments.items()
            if name in parts and name != self.streamed
        }
        missing = [n for n in self._required if n not in found and n != self.streamed]
        if missing:
            raise MethodInputError(f"method {self.name} needs {', '.join(missing)}")
        return found

    def call(
        self,
        arguments: dict[str, Any],
        is_active: IsActive,
        requests: Iterator[v2.Data] | None = None,
        reader: MediaReader | None = None,
    ) -> Iterator[v2.Data]:
        """Call the function; its result, or each of its results, as data.

        Args:
            arguments: What ``arguments`` returned.
            is_active: Asked while an asynchronous function runs, which is cancelled then.
            requests: The data of the streamed argument, if there is one.
            reader: Reads it.
        """
        if self.batched:
            yield from self.call_batch([arguments], is_active)
            return
        if self.streamed is not None:
            values = self._decoded(requests or iter(()), reader or MediaReader())
            arguments[self.streamed] = self._loop.each(values) if self._is_async else values
        if self._yields_async:
            for item in self._loop.iterate(self._function(**arguments), is_active):
                yield self._encoded(item)
            return
        if self._is_async:
            yield self._encoded(self._loop.run(partial(self._function, **arguments), is_active))
            return
        with CONTAINED:
            result = self._function(**arguments)
        if not self.streams:
            yield self._encoded(result)
            return
        with CONTAINED:
            items = iter(result)
        while (item := _following(items)) is not EXHAUSTED:
            yield self._encoded(item)

    async def acall(
        self,
        arguments: dict[str, Any],
        threads: Executor,
        requests: AsyncIterator[v2.Data] | None = None,
        reader: MediaReader | None = None,
    ) -> AsyncGenerator[v2.Data, None]:
        """The same on the running event loop; functions that block run in ``threads``."""
        if self.batched:
            for one in await self.acall_batch([arguments], threads):
                yield one
            return
        loop = asyncio.get_running_loop()
        in_thread = partial(loop.run_in_executor, threads)
        if self.streamed is not None:
            assert requests is not None
            reader = reader or MediaReader()
            if self._is_async:
                arguments[self.streamed] = self._adecoded(requests, reader, threads)
            else:
                arguments[self.streamed] = self._decoded(_blocking(requests, loop), reader)
        if self._yields_async:
            items = self._function(**arguments)
            try:
                while (item := await _afollowing(items)) is not EXHAUSTED:
                    yield self._encoded(item)
            finally:
                await items.aclose()
            return
        if self._is_async:
            with CONTAINED:
                result = await self._function(**arguments)
            yield self._encoded(result)
            return
        if not self.streams:
            yield await _held(in_thread(self._in_one_call, arguments))
            return
        items = await _held(in_thread(self._started, arguments))
        try:
            while (data := await _held(in_thread(items.following))) is not None:
                yield data
        finally:
            await _held(in_thread(items.close))

    def call_batch(self, rows: Sequence[dict[str, Any]], is_active: IsActive) -> list[v2.Data]:
        """Call a batched function once for many callers.

        Args:
            rows: The arguments of each.
            is_active: Asked while an asynchronous function runs, which is cancelled then.

        Returns:
            The result for each.
        """
        columns = _columns(rows)
        if self._is_async:
            result = self._loop.run(partial(self._function, **columns), is_active)
        else:
            with CONTAINED:
                result = self._function(**columns)
        return self._encoded_batch(result, len(rows))

    async def acall_batch(self, rows: Sequence[dict[str, Any]], threads: Executor) -> list[v2.Data]:
        """The same on the running event loop; functions that block run in ``threads``."""
        if self._is_async:
            with CONTAINED:
                result = await self._function(**_columns(rows))
            return self._encoded_batch(result, len(rows))
        work = partial(self.call_batch, rows, lambda: True)
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    # In a thread, so that large results are not encoded on the event loop.

    def _in_one_call(self, arguments: dict[str, Any]) -> v2.Data:
        with CONTAINED:
            result = self._function(**arguments)
        return self._encoded(result)

    def _started(self, arguments: dict[str, Any]) -> _ThreadedResults:
        with CONTAINED:
            return _ThreadedResults(iter(self._function(**arguments)), self._encoded)

    def _decoded(self, requests: Iterator[v2.Data], reader: MediaReader) -> Iterator[Any]:
        for data in requests:
            yield from self._values(data, reader)

    async def _adecoded(
        self, requests: AsyncIterator[v2.Data], reader: MediaReader, threads: Executor
    ) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        async for data in requests:
            if reader.blocks:
                for value in await loop.run_in_executor(threads, self._value_list, data, reader):
                    yield value
                continue
            for value in self._values(data, reader):
                yield value

    def _value_list(self, data: v2.Data, reader: MediaReader) -> list[Any]:
        with CONTAINED:
            return list(self._values(data, reader))

    def _values(self, data: v2.Data, reader: MediaReader) -> Iterator[Any]:
        """The value of the streamed argument in a request; none where it has none."""
        assert self.streamed is not None
        converter = self._arguments[self.streamed]
        parts = {part.id: part.data for part in data.parts}
        if self.streamed in parts:
            yield converter.decode(parts[self.streamed], reader)
        elif not data.parts and _has_content(data):
            yield converter.decode(data, reader)

    def _encoded(self, value: Any) -> v2.Data:
        if isinstance(value, v2.Data):  # its own output, not a result to wrap
            return value
        data = v2.Data()
        data.parts.add(id=RETURN).data.CopyFrom(self._result.encode(value))
        return data

    def _encoded_batch(self, results: Any, count: int) -> list[v2.Data]:
        if not isinstance(results, (list, tuple)) or len(results) != count:
            found = f"{len(results)}" if hasattr(results, "__len__") else type(results).__name__
            raise TypeError(
                f"the batched method {self.name} has to return a list of {count} results, one for "
                f"each element of its arguments, not {found}"
            )
        return [self._encoded(one) for one in results]


class MethodRun:
    """A method with its arguments, ready to run.

    Args:
        method: What to run; None where the result is known.
        arguments: Its arguments.
        known: The result without a method.
    """

    def __init__(
        self,
        method: ModelMethod | None,
        arguments: dict[str, Any] | None = None,
        known: v2.Data | None = None,
    ) -> None:
        self.method: ModelMethod | None = method
        self.arguments: dict[str, Any] = arguments or {}
        self._known = known

    def results(
        self,
        is_active: IsActive,
        requests: Iterator[v2.Data] | None = None,
        reader: MediaReader | None = None,
    ) -> Iterator[v2.Data]:
        """Run it, see ``ModelMethod.call``."""
        if self.method is not None:
            yield from self.method.call(self.arguments, is_active, requests, reader)
        elif self._known is not None:
            yield self._known

    async def aresults(
        self,
        threads: Executor,
        requests: AsyncIterator[v2.Data] | None = None,
        reader: MediaReader | None = None,
    ) -> AsyncGenerator[v2.Data, None]:
        """Run it on the event loop, see ``ModelMethod.acall``."""
        if self.method is not None:
            async for data in self.method.acall(self.arguments, threads, requests, reader):
                yield data
        elif self._known is not None:
            yield self._known


class PythonMethods:
    """A function, or the public methods of an object, by the names that callers know.

    Args:
        source: A function; a class, of which one object is made; or an object.

    Raises:
        TypeError: It has no signature, or one with types that do not cross.
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

    @property
    def batched(self) -> bool:
        """Whether one of them is for many callers at once."""
        return any(method.batched for method in self._methods.values())

    def prepare(self, data: v2.Data, style: CallingStyle, reader: MediaReader) -> MethodRun:
        """The method that a request names, with its arguments.

        Args:
            data: Of the request; of a stream, of its first request.
            style: How the caller calls.
            reader: Reads texts and images.

        Raises:
            MethodInputError: There is no such method, it is called in another way, or its arguments
                are not in the data.
        """
        if asked_method(data) == GET_SIGNATURES:
            return MethodRun(None, known=self._signatures())
        method = self._method(data, style)
        if method.streamed and style != "stream":
            what = "streams its results" if style == "predict" else "takes a stream"
            raise MethodInputError(f"method {method.name} {what}; call it with StreamModelOutputs")
        if method.streams and style == "predict":
            raise MethodInputError(
                f"method {method.name} streams its results; call it with GenerateModelOutputs"
            )
        return MethodRun(method, method.arguments(data, reader))

    def takes_stream(self, data: v2.Data) -> bool:
        """Whether the method that the first request of a stream names takes the whole stream."""
        if asked_method(data) == GET_SIGNATURES:
            return False
        return self._method(data, "stream").streamed is not None

    def close(self) -> None:
        """Cancel what runs on the event loop of asynchronous methods. It may be used again."""
        self._loop.close()

    def _method(self, data: v2.Data, default: str) -> ModelMethod:
        name = asked_method(data)
        if not name and default not in self._methods and len(self._methods) == 1:
            return next(iter(self._methods.values()))
        method = self._methods.get(name or default)
        if method is None:
            raise MethodInputError(
                f"the model has no method {name or default!r}; "
                f"it has {', '.join(sorted(self._methods))}"
            )
        return method

    def _signatures(self) -> v2.Data:
        data = v2.Data()
        data.text.raw = json.dumps(
            {name: json_format.MessageToDict(m.signature) for name, m in self._methods.items()}
        )
        return data


def asked_method(data: v2.Data) -> str:
    """The name of the method that a request names; empty for the default one."""
    fields = data.metadata.fields
    return fields[METHOD_NAME].string_value if METHOD_NAME in fields else ""


class _ThreadedResults:
    """An iterator whose steps run in several threads, one at a time.

    Args:
        items: The iterator.
        encoded: Makes the data for an item.
    """

    def __init__(self, items: Iterator[Any], encoded: Callable[[Any], v2.Data]) -> None:
        self._items = items
        self._encoded = encoded
        self._stepping = threading.Lock()

    def following(self) -> v2.Data | None:
        """The data for the next item; None at the end."""
        with self._stepping:
            item = _following(self._items)
            return None if item is EXHAUSTED else self._encoded(item)

    def close(self) -> None:
        """Close a generator; if a step runs that nobody waits for any more, after it."""
        if inspect.isgenerator(self._items):
            with self._stepping, CONTAINED:
                self._items.close()


def _following(items: Iterator[Any]) -> Any:
    with CONTAINED:
        return next(items, EXHAUSTED)


async def _held(work: asyncio.Future[T]) -> T:
    """What a function in a thread returns; its end is awaited also where nobody needs it.

    It cannot be interrupted, and is not to go on beside what comes in its place.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if not work.cancelled():
            await asyncio.wait((work,))
            work.exception()  # which nobody needs either
        raise


async def _afollowing(items: AsyncIterator[Any]) -> Any:
    with CONTAINED:
        return await anext(items, EXHAUSTED)


def _element(function: Callable[..., Any], name: str, hint: Any) -> Any:
    """T of the list[T] that an argument or the result of a batched function is."""
    if typing.get_origin(hint) is not list:
        raise TypeError(
            f"{function!r} is batched: {name} has to be annotated as a list, with an element for "
            "each caller"
        )
    return typing.get_args(hint)[0]


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _has_content(data: v2.Data) -> bool:
    return any(field.name != "metadata" for field, _ in data.ListFields())


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=repr)


def _blocking(items: AsyncIterator[v2.Data], loop: asyncio.AbstractEventLoop) -> Iterator[v2.Data]:
    """What an asynchronous iterator on ``loop`` yields, for another thread."""

    async def following() -> Any:
        return await anext(items, EXHAUSTED)

    while True:
        item = asyncio.run_coroutine_threadsafe(following(), loop).result()
        if item is EXHAUSTED:
            return
        yield item
