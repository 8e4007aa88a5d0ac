"""What every resource is made of.

A kind of resources is a ``Collection`` with the verbs that the service has for it::

    class KeyOperations(Creates[v2.Key], Gets[v2.Key], Lists[v2.Key], Deletes[v2.Key]):
        message = v2.Key
        of_user = True

    class Keys(KeyOperations, Sync): ...
    class AsyncKeys(KeyOperations, Async): ...

The methods of the service follow from the name of the message (``PostKeys``, ``GetKey`` ...),
the fields of their requests and responses from the types of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Generic, Literal, TypedDict, TypeVar, Unpack

from clarigrpc import errors, v2
from clarigrpc._contract.methods import lookup
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._resources.sync_async import iteration, operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc._rpc.plan import Item, ItemPlan, Plan, call
from clarigrpc.v2._index import METHODS

Action = Literal["merge", "overwrite", "remove"]
"""How a patch changes lists and JSON: add or replace, replace all, take away."""


class Paging(TypedDict, total=False):
    """Which part of a list is wanted, and how.

    Attributes:
        page: Number of a page, from 1; None: all of them, one after the other.
        per_page: How many a page. Default 128.
        timeout: Seconds for each request; None: the client's.
    """

    page: int | None
    per_page: int | None
    timeout: float | None


_PAGING = """page: Number of a page, from 1; None: all, page by page as they are asked for.
            per_page: How many a page. Default 128.
            timeout: Seconds for each request; None: the client's."""

T = TypeVar("T")
DomainT = TypeVar("DomainT", bound="Domain")
MessageT = TypeVar("MessageT")


class Operations:
    """The operations of a domain on the resources of one user and app.

    Empty ids stand for those of the client.

    Attributes:
        of_user: Whether the resources belong to the user; otherwise to the app.
    """

    of_user: ClassVar[bool] = False

    def __init__(
        self,
        client: ClientInterface,
        user_id: str = "",
        app_id: str = "",
        parents: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self.user_id = user_id
        self.app_id = app_id
        self._parents = dict(parents or {})
        self.unary = client.unary

    def __repr__(self) -> str:
        ids = {"user_id": self.user_id, "app_id": self.app_id, **self._parents}
        given = ", ".join(f"{name}={value!r}" for name, value in ids.items() if value)
        return f"{type(self).__name__}({given})"

    @classmethod
    def _words(cls) -> dict[str, str]:
        """What stands for what in the texts and signatures of the operations."""
        return {"{paging}": _PAGING}

    @property
    def user_app_id(self) -> v2.UserAppIDSet | None:
        """Whose resources are meant; None leaves it to the client's settings."""
        if self.of_user:
            return self._of_user()
        if not (self.user_id or self.app_id):
            return None
        settings = self._client.settings
        return v2.UserAppIDSet(
            user_id=self.user_id or settings.user_id, app_id=self.app_id or settings.app_id
        )

    def _of_user(self) -> v2.UserAppIDSet:
        """The user alone; ``me`` is what the service calls the owner of the credentials."""
        return v2.UserAppIDSet(user_id=self.user_id or self._client.settings.user_id or "me")

    def _request(self, method: str, fields: Mapping[str, Any]) -> Any:
        """The request of a method for these resources, with ``fields`` set.

        Raises:
            TypeError: The method takes no such field.
        """
        row = lookup(method)
        made = row.request_class()
        known = [name for name in made.DESCRIPTOR.fields_by_name if name != "user_app_id"]
        unknown = [name for name in fields if name not in known and name != "user_app_id"]
        if unknown:
            raise TypeError(f"{method} takes {', '.join(known)}; not {', '.join(unknown)}")
        values: dict[str, Any] = {n: value for n, value in self._parents.items() if n in known}
        values.update((name, value) for name, value in fields.items() if value is not None)
        if row.has_user_app_id and "user_app_id" not in values:
            values["user_app_id"] = self.user_app_id
        return made(**values)

    def _invoke(self, method: str, timeout: float | None = None, **fields: Any) -> Plan[Any]:
        """The response of a method to a request with these fields."""
        return (yield from call(method, self._request(method, fields), timeout=timeout))

    def _pages(self, method: str, field: str, options: Mapping[str, Any]) -> ItemPlan[Any]:
        """The items of a listing method, fetched page by page.

        Args:
            method: Name of the method.
            field: Its response's field of the items.
            options: A ``Paging``, with further fields of the request, and with ``all_apps`` where
                those of all apps of the user can be had.
        """
        fields = dict(options)
        paging = {name: fields.pop(name, None) for name in ("page", "per_page", "timeout")}
        if fields.pop("all_apps", False):
            fields["user_app_id"] = self._of_user()
        return pages(method, self._request(method, fields), field, **paging)

    def _outcome(self, method: str, merged: Any, field: str, raise_on_partial: bool | None) -> Any:
        """The items of a response, unless some failed and that is to be raised."""
        items = list(getattr(merged, field))
        # With SUCCESS, a status of an item is one that its processing left, none of this call.
        if merged.status.code == v2.StatusCode.SUCCESS or not self._client.raises_on_partial(
            raise_on_partial
        ):
            return items
        request_id = merged.status.req_id
        failure: Exception | None = None
        with_status = lookup(method).item_field == field
        if with_status and len(items) == 1:
            failure = statuses.from_item(items[0].status, method=method, request_id=request_id)
        failure = failure or statuses.from_response(
            merged, method=method, request_id=request_id, item_field=field if with_status else ""
        )
        if failure is not None:
            raise failure
        return items


class Domain(Operations):
    """The operations of a domain, as a client has them."""

    def within(self: DomainT, *, user_id: str = "", app_id: str = "") -> DomainT:
        """The same resources of another user or app; what is left out stays."""
        return type(self)(
            self._client, user_id or self.user_id, app_id or self.app_id, self._parents
        )

    def child(self, made: type[DomainT], parents: Mapping[str, str] | None = None) -> DomainT:
        """A part of this resource, or what lies below the resource with these ids.

        Raises:
            InvalidArgumentError: An id is empty.
        """
        for name, value in (parents or {}).items():
            if not value or not isinstance(value, str):
                raise errors.InvalidArgumentError(f"{name} has to be the id of a resource")
        return made(self._client, self.user_id, self.app_id, {**self._parents, **(parents or {})})


class Collection(Domain, Generic[MessageT]):
    """Resources of one kind.

    Attributes:
        message: Their message.
        singular, plural: Their name in the names of methods, where it is not the message's (and an
            s).
        patched_by: The method that patches them, where the name does not follow.
        noun, nouns: What texts call one and many of them, where that is not the message's name.
    """

    message: ClassVar[type[Any]]
    singular: ClassVar[str] = ""
    plural: ClassVar[str] = ""
    patched_by: ClassVar[str] = ""
    noun: ClassVar[str] = ""
    nouns: ClassVar[str] = ""

    @classmethod
    def _words(cls) -> dict[str, str]:
        singular = cls.noun or _spaced(cls.message.__name__)
        return {
            "{noun}": singular,
            "{a noun}": f"{_article(singular)} {singular}",
            "{nouns}": cls.nouns or f"{singular}s",
            "MessageT": f"v2.{cls.message.__name__}",
            **super()._words(),
        }

    @classmethod
    def _one(cls) -> str:
        return cls.singular or cls.message.__name__

    @classmethod
    def _many(cls) -> str:
        return cls.plural or f"{cls._one()}s"

    def _one_of(self, item: MessageT | str | Mapping[str, Any]) -> MessageT:
        """A message out of one, an id, or a mapping like its JSON."""
        made: MessageT
        if isinstance(item, str):
            made = self.message(id=item)
        elif isinstance(item, Mapping):
            from google.protobuf import json_format  # not for those who only predict

            try:
                made = json_format.ParseDict(dict(item), self.message())
            except json_format.ParseError as error:
                raise errors.InvalidArgumentError(str(error)) from error
        elif isinstance(item, self.message):
            made = item
        else:
            expected = f"a v2.{self.message.__name__}, an id or a mapping"
            raise TypeError(f"{type(self).__name__} takes {expected}, not {type(item).__name__}")
        return made

    def _write(
        self,
        verb: Literal["Post", "Patch"],
        items: Iterable[MessageT | str | Mapping[str, Any]],
        timeout: float | None,
        raise_on_partial: bool | None,
        **fields: Any,
    ) -> Plan[Sequence[MessageT]]:
        """Create or patch resources, in requests of 128; returns them as the service has them."""
        method = f"{verb}{self._many()}"
        if verb == "Patch" and self.patched_by:
            method = self.patched_by
        row = lookup(method)
        sent = field_of(row.request_name, self.message.__name__)
        answered = field_of(row.response_name, self.message.__name__)
        wanted = [self._one_of(one) for one in items]
        if not wanted:
            raise errors.InvalidArgumentError(f"{method} needs at least one item")
        merged = row.response_class()()
        codes = set()
        for chunk in chunks(wanted):
            try:
                response = yield from call(
                    method,
                    self._request(method, {sent: chunk, **fields}),
                    timeout=timeout,
                    raise_on_partial=False,
                    # The same change twice changes nothing more.
                    idempotent=True if verb == "Patch" else None,
                )
            except errors.ApiError as error:
                done = len(getattr(merged, answered))
                if done:
                    error.add_note(
                        f"the {done} items before were answered, of {len(wanted)} in all"
                    )
                raise
            getattr(merged, answered).MergeFrom(getattr(response, answered))
            merged.status.CopyFrom(response.status)
            codes.add(response.status.code)
        if len(codes) > 1:
            merged.status.code = v2.StatusCode.MIXED_STATUS
        made: list[MessageT] = self._outcome(method, merged, answered, raise_on_partial)
        return made

    def _list(self, options: Mapping[str, Any]) -> ItemPlan[MessageT]:
        """The items of ``List<plural>``, as ``pages`` gives them."""
        method = f"List{self._many()}"
        return self._pages(
            method, field_of(lookup(method).response_name, self.message.__name__), options
        )

    def _fetch(
        self, resource_id: str, timeout: float | None = None, **fields: Any
    ) -> Plan[MessageT]:
        """What ``Get<singular>`` answers."""
        method = f"Get{self._one()}"
        id_field = self._id_field(method)
        response = yield from self._invoke(method, timeout, **{id_field: resource_id}, **fields)
        found: MessageT = getattr(
            response, field_of(lookup(method).response_name, self.message.__name__)
        )
        return found

    def _id_field(self, method: str) -> str:
        """The request's field of the id: by its name, or what is left beside the parents."""
        names = _string_fields(lookup(method).request_name)
        for name in (f"{_snake(self._one())}_id", "id"):
            if name in names:
                return name
        (name,) = (name for name in names if name not in self._parents)
        return name

    def _rename(
        self, method: str, old_id: str, new_id: str, timeout: float | None
    ) -> Plan[MessageT]:
        """Give a resource another id; returns it."""
        ids = [v2.IdUpdateSource(id=old_id, new_id=new_id)]
        response = yield from self._invoke(method, timeout, ids=ids, action="overwrite")
        field = field_of(lookup(method).response_name, self.message.__name__)
        renamed: MessageT = getattr(response, field)[0]
        return renamed


class Creates(Collection[MessageT]):
    """Resources that can be created."""

    @operation
    def create(
        self, item: MessageT | str | Mapping[str, Any], *, timeout: float | None = None
    ) -> Plan[MessageT]:
        """Create {a noun}.

        Args:
            item: A MessageT, a mapping like the JSON of one, or a string for one with this id and
                nothing else. The service makes up an id that is left out.
            timeout: Seconds; None: the client's.

        Returns:
            The {noun} as the service has it.

        Raises:
            AlreadyExistsError: Its id is taken.
            InvalidArgumentError: The service refuses it; ``details`` says why.
        """
        (made,) = yield from self._write("Post", [item], timeout, True)
        return made

    @operation
    def create_many(
        self,
        items: Iterable[MessageT | str | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[MessageT]]:
        """Create {nouns}, in requests of 128.

        Args:
            items: What ``create`` takes, at least one.
            timeout: Seconds for each request; None: the client's.
            raise_on_partial: Whether those that were refused are an error, or stay among the
                results, each with its status. None: as the client was told.

        Returns:
            The {nouns} as the service has them, in the order given.

        Raises:
            PartialFailureError: Some were refused; the others are there.
        """
        made = yield from self._write("Post", items, timeout, raise_on_partial)
        return list(made)


class Gets(Collection[MessageT]):
    """Resources that can be had by their ids."""

    @operation
    def get(self, resource_id: str, /, *, timeout: float | None = None) -> Plan[MessageT]:
        """The {noun} with an id.

        Args:
            resource_id: Its id.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such {noun}.
        """
        return (yield from self._fetch(resource_id, timeout))


class Lists(Collection[MessageT]):
    """Resources that can be listed, without filters."""

    @iteration
    def list(self, **options: Unpack[Paging]) -> ItemPlan[MessageT]:
        """The {nouns}.

        Args:
            {paging}
        """
        return self._list(options)


class Patches(Collection[MessageT]):
    """Resources that can be changed."""

    @operation
    def patch(
        self,
        item: MessageT | Mapping[str, Any],
        *,
        action: Action = "merge",
        timeout: float | None = None,
    ) -> Plan[MessageT]:
        """Change {a noun}.

        Args:
            item: Its id and what is to be changed.
            action: ``"merge"`` adds to lists and JSON or replaces their entries by id or key,
                ``"remove"`` takes entries away, ``"overwrite"`` replaces them.
            timeout: Seconds; None: the client's.

        Returns:
            The {noun} as it is now.

        Raises:
            NotFoundError: There is no such {noun}.
        """
        (made,) = yield from self._write("Patch", [item], timeout, True, action=action)
        return made

    @operation
    def patch_many(
        self,
        items: Iterable[MessageT | Mapping[str, Any]],
        *,
        action: Action = "merge",
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[MessageT]]:
        """Change {nouns}, in requests of 128. As ``patch``, for at least one.

        Raises:
            PartialFailureError: Some could not be changed; the others are.
        """
        made = yield from self._write("Patch", items, timeout, raise_on_partial, action=action)
        return list(made)


class Deletes(Collection[MessageT]):
    """Resources that can be deleted."""

    @operation
    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete {nouns} by their ids, one or many, in requests of 128.

        Args:
            ids: An id, or several.
            timeout: Seconds for each request; None: the client's.
        """
        given = as_ids(ids)
        if not given:
            raise errors.InvalidArgumentError("delete() needs at least one id")
        one, many = f"Delete{self._one()}", f"Delete{self._many()}"
        if many not in METHODS or (isinstance(ids, str) and one in METHODS):
            for resource_id in given:
                yield from self._invoke(one, timeout, **{self._id_field(one): resource_id})
            return
        field = _ids_field(lookup(many).request_name, _snake(self._one()))
        for chunk in chunks(given):
            yield from self._invoke(many, timeout, **{field: chunk})


@cache
def field_of(owner: str, message: str) -> str:
    """The field of a message that holds another message, one or many, beside its own status.

    Raises:
        LookupError: None or several do.
    """
    fields = [
        field.name
        for field in getattr(v2, owner).DESCRIPTOR.fields
        if field.message_type is not None
        and field.message_type.name == message
        and field.name != "status"
    ]
    if len(fields) != 1:
        raise LookupError(f"{owner} has {len(fields)} fields of type {message}")
    return str(fields[0])


@cache
def _string_fields(request: str) -> tuple[str, ...]:
    descriptor = getattr(v2, request).DESCRIPTOR
    return tuple(f.name for f in descriptor.fields if f.type == f.TYPE_STRING and not f.is_repeated)


@cache
def _ids_field(request: str, name: str) -> str:
    fields = getattr(v2, request).DESCRIPTOR.fields
    found = [f.name for f in fields if f.type == f.TYPE_STRING and f.is_repeated]
    return next((f for f in ("ids", f"{name}_ids") if f in found), str(found[0]))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _spaced(name: str) -> str:
    return _snake(name).replace("_", " ")


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" and not noun.startswith("use") else "a"


def pages(
    method: str,
    request: Any,
    field: str,
    *,
    page: int | None,
    per_page: int | None,
    timeout: float | None,
) -> ItemPlan[Any]:
    """Every item of every page, fetched when it is asked for; with ``page`` that one only.

    Where the pages are counted in the request's ``pagination``, that is used; a method without
    pages gives all at once.
    """
    known = request.DESCRIPTOR.fields_by_name
    paging = request.pagination if "pagination" in known else request
    paged = "page" in paging.DESCRIPTOR.fields_by_name
    if paged:
        paging.per_page = MAX_ITEMS if per_page is None else per_page
        paging.page = 1 if page is None else page
    while True:
        response = yield from call(method, request, timeout=timeout)
        items = getattr(response, field)
        for item in items:
            yield Item(item)
        if not paged or page is not None or len(items) < paging.per_page:
            return
        paging.page += 1


def chunks(values: Sequence[T], size: int = MAX_ITEMS) -> Iterator[Sequence[T]]:
    """The values in runs of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def as_list(value: T | Iterable[T], single: type[Any] | tuple[type[Any], ...]) -> list[T]:
    """A list of one or of many."""
    return [value] if isinstance(value, single) else list(value)  # type: ignore[arg-type]


def as_ids(ids: str | Iterable[str]) -> list[str]:
    """A list of one id or of many."""
    return [ids] if isinstance(ids, str) else list(ids)
