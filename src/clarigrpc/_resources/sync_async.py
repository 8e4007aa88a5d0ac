"""One class body for both clients: its operations block on a client, and are awaited on the other.

An operation is a plan (see ``clarigrpc._rpc.plan``) with one of the decorators below. What it
becomes follows from the class that it is used on: one with ``Sync`` among its bases has
blocking methods and iterators, one with ``Async`` has coroutines and asynchronous iterators.
Type checkers and editors see the same::

    class DatasetOperations(Operations):
        @operation
        def get(self, dataset_id: str) -> Plan[v2.Dataset]: ...

    class Datasets(DatasetOperations, Sync): ...       # get(...) -> v2.Dataset
    class AsyncDatasets(DatasetOperations, Async): ...  # await get(...) -> v2.Dataset

Editors read the source: the text of an operation is finished as it stands there, and its types say
what differs between resources. What ``help()`` shows are ordinary functions with the same texts
and signatures, and a call costs no more than that of a method.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypeVar,
    get_args,
    get_origin,
    overload,
)

from clarigrpc._rpc.plan import (
    AsyncListing,
    ItemPlan,
    Listing,
    Plan,
    async_iterator,
    async_method,
    documented,
    sync_iterator,
    sync_method,
)

if TYPE_CHECKING:
    from clarigrpc._bulk.predict_run import PredictRun
    from clarigrpc._streams.response_stream import AsyncStream, Stream, StreamSession

_UNPACKED = re.compile(r"Unpack\[(\w+)\]")

P = ParamSpec("P")
T = TypeVar("T")
BegunT = TypeVar("BegunT")
SyncT = TypeVar("SyncT")
AsyncT = TypeVar("AsyncT")

Parents = Mapping[str, str]
"""The ids of what a nested resource lies below, by the fields of requests that hold them."""


class _Public:
    """Users import the classes with operations from ``clarigrpc.types``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith("clarigrpc._") and _Public not in cls.__bases__:
            cls.__module__ = "clarigrpc.types"
            cls.__doc__ = inspect.getdoc(cls)


class Sync(_Public):
    """Base of the classes whose operations block."""


class Async(_Public):
    """Base of the classes whose operations are awaited."""


class SyncOrAsync(ABC):
    """An attribute that differs between the classes of the two clients.

    A class gets what stands in its place when that is first asked for: importing a resource costs
    no more than its plans do.
    """

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @abstractmethod
    def bind(self, *, awaited: bool) -> Any:
        """The function that stands in its place in a class."""

    def _found(self, instance: Any, owner: type[Any]) -> Any:
        """What ``__get__`` returns."""
        if not issubclass(owner, (Sync, Async)):
            return self
        # Threads may get here at once; any of the functions will do.
        function = self.bind(awaited=issubclass(owner, Async))
        function.__module__ = owner.__module__
        function.__qualname__ = f"{owner.__name__}.{self._name}"
        signature = function.__signature__ = _spelled_out(function, owner)
        function.__annotations__ = {
            **{name: one.annotation for name, one in list(signature.parameters.items())[1:]},
            "return": signature.return_annotation,
        }
        setattr(owner, self._name, function)
        return function if instance is None else function.__get__(instance, owner)


class operation(SyncOrAsync, Generic[P, T]):
    """A plan that becomes a method.

    Attributes:
        plan: The plan, for other plans: ``yield from DatasetOperations.get.plan(self, ...)``.
    """

    def __init__(self, plan: Callable[Concatenate[Any, P], Plan[T]]) -> None:
        self.plan = plan

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...

    @overload
    def __get__(self, instance: Sync, owner: Any) -> Callable[P, T]: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._found(instance, owner)

    def bind(self, *, awaited: bool) -> Any:
        return (async_method if awaited else sync_method)(self.plan)


class iteration(SyncOrAsync, Generic[P, T]):
    """A plan of items that becomes an iterator.

    Attributes:
        plan: The plan, for other plans.
    """

    def __init__(self, plan: Callable[Concatenate[Any, P], ItemPlan[T]]) -> None:
        self.plan = plan

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...

    @overload
    def __get__(self, instance: Sync, owner: Any) -> Callable[P, Listing[T]]: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> Callable[P, AsyncListing[T]]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._found(instance, owner)

    def bind(self, *, awaited: bool) -> Any:
        return (async_iterator if awaited else sync_iterator)(self.plan)


class Driven(SyncOrAsync, Generic[P, SyncT, AsyncT]):
    """A method that begins something, which a driver of the client's kind turns into its result.

    Args:
        begin: The method.
        drivers: One for each client: given the resource and what ``begin`` returned.
        returned: The types of their results, as signatures show them; ``{}`` stands for the
            argument of the type that ``begin`` returns.
    """

    def __init__(
        self,
        begin: Callable[Concatenate[Any, P], BegunT],
        drivers: tuple[Callable[[Any, BegunT], SyncT], Callable[[Any, BegunT], AsyncT]],
        returned: tuple[str, str],
    ) -> None:
        self._begin: Callable[..., Any] = begin
        self._drivers: tuple[Callable[..., Any], Callable[..., Any]] = drivers
        self._returned = returned

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...

    @overload
    def __get__(self, instance: Sync, owner: Any) -> Callable[P, SyncT]: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> Callable[P, AsyncT]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._found(instance, owner)

    def bind(self, *, awaited: bool) -> Any:
        begin, driver = self._begin, self._drivers[awaited]

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return driver(self, begin(self, *args, **kwargs))

        async def coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await driver(self, begin(self, *args, **kwargs))

        function = coroutine if inspect.iscoroutinefunction(driver) else method
        return documented(begin, function, self._returned[awaited])


def driven(
    sync_driver: Callable[[Any, BegunT], SyncT], async_driver: Callable[[Any, BegunT], AsyncT]
) -> Callable[[Callable[Concatenate[Any, P], BegunT]], Driven[P, SyncT, AsyncT]]:
    """A decorator that makes a ``Driven`` of a method."""
    drivers = sync_driver, async_driver
    returned = sync_driver.__annotations__["return"], async_driver.__annotations__["return"]
    return lambda begin: Driven(begin, drivers, returned)


class Nested(Driven[P, SyncT, AsyncT]):
    """A method that takes the id of a resource and returns the collection of what lies below it.

    Args:
        parents: Returns the ids that requests for the collection carry, by their fields.
        classes: The collection's, one for each client.
    """

    def __init__(
        self,
        parents: Callable[Concatenate[Any, P], Parents],
        classes: tuple[type[SyncT], type[AsyncT]],
    ) -> None:
        def child_of(made: type[T]) -> Callable[[Any, Parents], T]:
            return lambda owner, ids: owner._child(made, ids)

        self.classes = classes
        sync_class, async_class = classes
        drivers = (child_of(sync_class), child_of(async_class))
        super().__init__(parents, drivers, (sync_class.__name__, async_class.__name__))


def nested(
    sync_class: type[SyncT], async_class: type[AsyncT]
) -> Callable[[Callable[Concatenate[Any, P], Parents]], Nested[P, SyncT, AsyncT]]:
    """A decorator that makes a ``Nested`` of a method."""
    return lambda parents: Nested(parents, (sync_class, async_class))


class Opening(NamedTuple, Generic[T]):
    """A stream that is to be opened.

    Attributes:
        method: Name of the method.
        session: What it sends and what the responses mean.
        timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.
        encoded: Whether the requests are serialized already.
    """

    method: str
    session: StreamSession[T]
    timeout: float | None
    encoded: bool = False


def streaming(
    begin: Callable[Concatenate[Any, P], Opening[T]],
) -> Driven[P, Stream[T], AsyncStream[T]]:
    """Decorates a method that opens a stream of responses."""

    def sync_stream(owner: Any, opening: Opening[T]) -> Stream[T]:
        from clarigrpc._streams.response_stream import Stream

        unary = owner._unary(opening.method, encoded=opening.encoded)
        return Stream(unary, opening.session, opening.timeout)

    def async_stream(owner: Any, opening: Opening[T]) -> AsyncStream[T]:
        from clarigrpc._streams.response_stream import AsyncStream

        unary = owner._unary(opening.method, encoded=opening.encoded)
        return AsyncStream(unary, opening.session, opening.timeout)

    return Driven(begin, (sync_stream, async_stream), ("Stream[{}]", "AsyncStream[{}]"))


def predicting(
    begin: Callable[Concatenate[Any, P], PredictRun[T]],
) -> Driven[P, Generator[T, None, None], AsyncGenerator[T, None]]:
    """Decorates a method that predicts any number of inputs and iterates over the results."""

    def sync_results(owner: Any, run: PredictRun[T]) -> Generator[T, None, None]:
        from clarigrpc._bulk import drivers

        return drivers.run_sync(run)

    def async_results(owner: Any, run: PredictRun[T]) -> AsyncGenerator[T, None]:
        from clarigrpc._bulk import drivers

        return drivers.run_async(run)

    returned = ("Generator[{}, None, None]", "AsyncGenerator[{}, None]")
    return Driven(begin, (sync_results, async_results), returned)


class lazy(Generic[SyncT, AsyncT]):
    """A part of a client or a resource, which is imported and made at its first use.

    Decorates a method that imports the classes of the part, one for each client, and returns them.
    Its text is that of the attribute.
    """

    def __init__(self, classes: Callable[[Any], tuple[type[SyncT], type[AsyncT]]]) -> None:
        self._classes = classes
        self.__doc__ = classes.__doc__

    @property
    def classes(self) -> tuple[type[SyncT], type[AsyncT]]:
        """The classes of the part."""
        return self._classes(None)

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...

    @overload
    def __get__(self, instance: Sync, owner: Any) -> SyncT: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> AsyncT: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        made = self.classes[isinstance(instance, Async)]
        # Threads may get here at once; all of them go on with the first one's.
        return instance.__dict__.setdefault(self._name, instance._child(made))


def _spelled_out(function: Any, owner: type[Any]) -> inspect.Signature:
    """The signature of a method of a class as editors show it.

    Type variables are what the class puts for them, and options stand one by one.
    """
    signature = inspect.signature(function)
    arguments = _type_arguments(owner)

    def typed(annotation: Any) -> Any:
        if not arguments:  # as in the classes of models, where a first prediction pays for it
            return str(annotation)
        return re.sub(r"\b\w+T\b", lambda found: arguments.get(found[0], found[0]), str(annotation))

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.annotation is inspect.Parameter.empty:
            parameters.append(parameter)
        elif options := _UNPACKED.fullmatch(str(parameter.annotation)):
            typed_dict = function.__wrapped__.__globals__[options[1]]
            parameters.extend(
                inspect.Parameter(
                    key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
                )
                for key, kind in _annotations(typed_dict)
            )
        else:
            parameters.append(parameter.replace(annotation=typed(parameter.annotation)))
    return signature.replace(
        parameters=parameters, return_annotation=typed(signature.return_annotation)
    )


def _type_arguments(owner: type[Any]) -> dict[str, str]:
    """The messages that a class and its bases put for type variables, by the variables' names."""
    return {
        variable.__name__: f"v2.{argument.__name__}"
        for base in owner.__mro__
        for generic in vars(base).get("__orig_bases__", ())
        for variable, argument in zip(
            getattr(get_origin(generic), "__parameters__", ()), get_args(generic), strict=False
        )
        if isinstance(argument, type)
    }


def _annotations(typed_dict: type[Any]) -> Iterator[tuple[str, str]]:
    """The keys of a TypedDict and what the source says that they are."""
    for key, kind in typed_dict.__annotations__.items():
        yield key, str(getattr(kind, "__forward_arg__", kind))
