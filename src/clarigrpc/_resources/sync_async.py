"""One class body for both clients: its operations block on a client, and are awaited on the other.

An operation is a plan (see ``clarigrpc._rpc.plan``) with one of the decorators below. What it
becomes follows from the class that it is used on: one with ``Sync`` among its bases has
blocking methods and iterators, one with ``Async`` has coroutines and asynchronous iterators.
Type checkers see the same::

    class DatasetOperations(Operations):
        @operation
        def get(self, dataset_id: str) -> Plan[v2.Dataset]: ...

    class Datasets(DatasetOperations, Sync): ...       # get(...) -> v2.Dataset
    class AsyncDatasets(DatasetOperations, Async): ...  # await get(...) -> v2.Dataset

What ``help()`` shows are ordinary functions with their signatures and texts, and a call costs no
more than that of a method.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from importlib import import_module
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from clarigrpc._rpc.plan import (
    ItemPlan,
    Plan,
    async_iterator,
    async_method,
    sync_iterator,
    sync_method,
)

_UNPACKED = re.compile(r"Unpack\[(\w+)\]")

P = ParamSpec("P")
T = TypeVar("T")
SyncT = TypeVar("SyncT")
AsyncT = TypeVar("AsyncT")


class _Public:
    """Users import the classes with operations from ``clarigrpc.types``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith("clarigrpc._") and _Public not in cls.__bases__:
            cls.__module__ = "clarigrpc.types"


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
    def bind(self, owner: type[Any], name: str, *, awaited: bool) -> Any:
        """The function that stands in its place in a class."""

    def _found(self, instance: Any, owner: type[Any]) -> Any:
        """What ``__get__`` returns."""
        if not issubclass(owner, (Sync, Async)):
            return self
        # Threads may get here at once; any of the functions will do.
        function = self.bind(owner, self._name, awaited=issubclass(owner, Async))
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

    def bind(self, owner: type[Any], name: str, *, awaited: bool) -> Any:
        return _in_words_of(owner, (async_method if awaited else sync_method)(self.plan), name)


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
    def __get__(self, instance: Sync, owner: Any) -> Callable[P, Iterator[T]]: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._found(instance, owner)

    def bind(self, owner: type[Any], name: str, *, awaited: bool) -> Any:
        return _in_words_of(owner, (async_iterator if awaited else sync_iterator)(self.plan), name)


class nested(SyncOrAsync, Generic[SyncT, AsyncT]):
    """What lies below one resource: a method that takes its id and returns the collection there.

    Args:
        parent: The field of requests that holds the id.
        sync_class: The collection.
        async_class: the class of the async client.
        text: Documentation of the method.
    """

    def __init__(
        self,
        parent: str,
        sync_class: type[SyncT],
        async_class: type[AsyncT],
        text: str,
    ) -> None:
        self._parent = parent
        self._classes: tuple[type[Any], type[Any]] = (sync_class, async_class)
        self._text = text

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...

    @overload
    def __get__(self, instance: Sync, owner: Any) -> Callable[[str], SyncT]: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> Callable[[str], AsyncT]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._found(instance, owner)

    def bind(self, owner: type[Any], name: str, *, awaited: bool) -> Any:
        made, parent = self._classes[awaited], self._parent

        def method(self: Any, resource_id: str) -> Any:
            return self.child(made, {parent: resource_id})

        kind = inspect.Parameter.POSITIONAL_ONLY
        method.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("self", kind), inspect.Parameter(parent, kind, annotation="str")],
            return_annotation=made.__name__,
        )
        method.__name__, method.__doc__ = name, self._text
        method.__qualname__ = f"{owner.__name__}.{name}"
        return method


class Lazy(Generic[SyncT, AsyncT]):
    """An attribute that is imported and made when it is first asked for.

    Args:
        module: Name of the module.
        name: Name of the class on a ``Sync`` owner; ``Async`` stands before it on the other.
        text: What it is.
    """

    def __init__(self, module: str, name: str, text: str) -> None:
        self._module = module
        self._class_name = name
        self.__doc__ = text

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._attribute = name

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...

    @overload
    def __get__(self, instance: Sync, owner: Any) -> SyncT: ...

    @overload
    def __get__(self, instance: Async, owner: Any) -> AsyncT: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        prefix = "Async" if isinstance(instance, Async) else ""
        made = getattr(import_module(self._module), prefix + self._class_name)
        # Threads may get here at once; all of them go on with the first one's.
        return instance.__dict__.setdefault(self._attribute, instance.child(made))


def _in_words_of(owner: type[Any], function: Any, name: str) -> Any:
    """``function`` as ``help()`` should show it: in the words of its class, options spelled out."""
    words: dict[str, str] = dict(owner._words()) if hasattr(owner, "_words") else {}
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        options = _UNPACKED.fullmatch(str(parameter.annotation))
        if options is None:
            parameters.append(parameter)
            continue
        typed_dict = function.__wrapped__.__globals__[options[1]]
        words["{options}"] = _attributes(typed_dict)
        parameters.extend(
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for key, kind in _annotations(typed_dict)
        )

    def put(text: Any) -> Any:
        for word, meaning in words.items() if isinstance(text, str) else ():
            text = text.replace(word, meaning)
        return text

    function.__signature__ = signature.replace(
        parameters=[p.replace(annotation=put(p.annotation)) for p in parameters],
        return_annotation=put(signature.return_annotation),
    )
    function.__annotations__ = {
        name: put(annotation) for name, annotation in function.__annotations__.items()
    }
    function.__doc__ = put(function.__doc__)
    function.__module__ = owner.__module__
    function.__qualname__ = f"{owner.__name__}.{name}"
    return function


def _annotations(typed_dict: type[Any]) -> Iterator[tuple[str, str]]:
    """The keys of a TypedDict and what the source says that they are."""
    for key, kind in typed_dict.__annotations__.items():
        yield key, str(getattr(kind, "__forward_arg__", kind))


def _attributes(typed_dict: type[Any]) -> str:
    """What the text of a TypedDict says of its keys, as far as it stands under ``Attributes:``."""
    lines = inspect.cleandoc(typed_dict.__doc__ or "").partition("Attributes:\n")[2]
    return textwrap.indent(textwrap.dedent(lines), " " * 12).strip()
