"""The base of every resource: verbs, requests, pages, failures item by item.

A kind of resources is a ``Collection`` with the verbs that the service has for it, and the names
of the service's methods behind them::

    class KeyOperations(Creates[v2.Key], Gets[v2.Key], Lists[v2.Key]):
        _message = v2.Key
        _of_user = True
        _create_rpc = "PostKeys"
        _get_rpc = "GetKey"
        _list_rpc = "ListKeys"

    class Keys(KeyOperations, Sync): ...
    class AsyncKeys(KeyOperations, Async): ...

The fields of requests and responses follow from their types. Names with an underscore are for the
resources among themselves: what a user sees of one are its verbs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cache
from typing import Any, ClassVar, Generic, Literal, TypedDict, TypeVar, Unpack

from google.protobuf.message import Message

from clarigrpc import errors, v2, wellknown
from clarigrpc._config.option_types import whole_number
from clarigrpc._contract.methods import item_status, lookup
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._public_names import named_in, without_private
from clarigrpc._resources.sync_async import iteration, operation
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc._rpc.connected import Connected
from clarigrpc._rpc.plan import Item, ItemPlan, PageInfo, Plan, call
from clarigrpc.media import is_iterable

PatchAction = Literal["merge", "overwrite", "remove"]
"""How a patch changes lists and JSON: adds or replaces entries, replaces all, removes entries."""


@named_in("clarigrpc.types")
class Paging(TypedDict, total=False):
    """Options of every ``list``; the methods that take them describe them."""

    page: int | None
    per_page: int | None
    timeout: float | None


T = TypeVar("T")
MadeT = TypeVar("MadeT")
DomainT = TypeVar("DomainT", bound="Domain")
MessageT = TypeVar("MessageT")


class Operations(Connected):
    """The operations of a domain on the resources of one user and app.

    Attributes:
        _of_user: Whether the resources belong to the user; otherwise to the app.
        user_id: Id of the user. Empty uses the client's.
        app_id: Id of the app. Empty uses the client's.
    """

    _of_user: ClassVar[bool] = False

    def __init__(
        self,
        client: ClientInterface,
        user_id: str = "",
        app_id: str = "",
        parents: Mapping[str, str] | None = None,
    ) -> None:
        for name, value in (("user_id", user_id), ("app_id", app_id)):
            if value and not isinstance(value, str):
                raise TypeError(f"{name} has to be a string, not {type(value).__name__}")
        self._client = client
        self.user_id = user_id
        self.app_id = app_id
        self._parents = dict(parents or {})
        self._unary = client.unary
        self._pause = client.pause

    def __dir__(self) -> list[str]:
        return without_private(super().__dir__())

    def __repr__(self) -> str:
        ids = {"user_id": self.user_id, "app_id": self.app_id, **self._parents}
        given = ", ".join(f"{name}={value!r}" for name, value in ids.items() if value)
        return f"{type(self).__name__}({given})"

    @property
    def _user_app_id(self) -> v2.UserAppIDSet | None:
        """The owner of the resources; None leaves it to the client's settings."""
        if self._of_user:
            return self._user()
        if not (self.user_id or self.app_id):
            return None
        settings = self._client.settings
        return v2.UserAppIDSet(
            user_id=self.user_id or settings.user_id, app_id=self.app_id or settings.app_id
        )

    def _user(self) -> v2.UserAppIDSet:
        """The user alone; ``me`` is what the service calls the owner of the credentials."""
        return v2.UserAppIDSet(user_id=self.user_id or self._client.settings.user_id or "me")

    def _request(self, method: str, fields: Mapping[str, Any]) -> Any:
        """The request of a method for these resources, with ``fields`` set.

        Raises:
            TypeError: The method takes no such field.
        """
        row = lookup(method)
        descriptor = row.request_class().DESCRIPTOR
        known = [name for name in descriptor.fields_by_name if name != "user_app_id"]
        unknown = [name for name in fields if name not in known and name != "user_app_id"]
        if unknown:
            raise TypeError(
                f"{method} has no field {', '.join(unknown)}; it has {', '.join(known)}"
            )
        values: dict[str, Any] = {n: value for n, value in self._parents.items() if n in known}
        values.update((name, value) for name, value in fields.items() if value is not None)
        if row.has_user_app_id and "user_app_id" not in values:
            values["user_app_id"] = self._user_app_id
        return filled(method, row.request_class(), **values)

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
            fields["user_app_id"] = self._user()
        return pages(method, self._request(method, fields), field, **paging)

    def _outcome(self, method: str, merged: Any, field: str, raise_on_partial: bool | None) -> Any:
        """The items of a response, unless some failed and that is to be raised."""
        items = list(getattr(merged, field))
        # With SUCCESS, a status of an item is one that its processing left, none of this call.
        if merged.status.code == v2.StatusCode.SUCCESS or not self._client.raises_on_partial(
            raise_on_partial
        ):
            return items
        from clarigrpc._rpc import statuses

        request_id = merged.status.req_id
        failure: errors.ApiError | None = None
        with_status = lookup(method).item_field == field
        if with_status and len(items) == 1:
            failure = statuses.from_item(
                item_status(items[0]), method=method, request_id=request_id
            )
            if failure is not None:
                failure.failed = [errors.ItemStatus(0, item_status(items[0]))]
        failure = failure or statuses.from_response(
            merged, method=method, request_id=request_id, item_field=field if with_status else ""
        )
        if failure is not None:
            raise failure
        return items


class Domain(Operations):
    """The operations of a domain, as a client has them."""

    def within(self: DomainT, *, user_id: str = "", app_id: str = "") -> DomainT:
        """Return the same resource for another user or app.

        Args:
            user_id: Id of the user. Empty keeps the current one.
            app_id: Id of the app. Empty keeps the current one.

        Returns:
            A new object of the same class, on the same connection.
        """
        return type(self)(
            self._client, user_id or self.user_id, app_id or self.app_id, self._parents
        )

    def _child(self, made: type[DomainT], parents: Mapping[str, str] | None = None) -> DomainT:
        """A part of this resource, or what lies below the resource with these ids.

        Raises:
            InvalidArgumentError: An id is empty.
        """
        for name, value in (parents or {}).items():
            if not value or not isinstance(value, str):
                raise errors.InvalidArgumentError(f"{name} must be a non-empty string")
        return made(self._client, self.user_id, self.app_id, {**self._parents, **(parents or {})})


class Collection(Domain, Generic[MessageT]):
    """Resources of one kind.

    Attributes:
        _message: Their message.
        _create_rpc: The service's method behind ``create``. Likewise the others: a search for
            the name of a method finds the resources that use it.
        _delete_rpc: The method that takes many ids; empty where there is none.
        _delete_one_rpc: The method that takes one id; empty where there is none.
    """

    _message: ClassVar[type[Any]]
    _create_rpc: ClassVar[str]
    _get_rpc: ClassVar[str]
    _list_rpc: ClassVar[str]
    _patch_rpc: ClassVar[str]
    _delete_rpc: ClassVar[str] = ""
    _delete_one_rpc: ClassVar[str] = ""

    def _one_of(
        self, item: MessageT | str | Mapping[str, Any], ids_allowed: bool = True
    ) -> MessageT:
        """A message out of one, an id, or a mapping like its JSON.

        Raises:
            InvalidArgumentError: A mapping has unknown fields, or an id is empty.
        """
        made: MessageT
        if isinstance(item, str) and ids_allowed:
            if not item:  # of a variable that is not set
                raise errors.InvalidArgumentError("an id is empty")
            made = self._message(id=item)
        elif isinstance(item, Mapping):
            from google.protobuf import json_format  # not for those who only predict

            try:
                made = json_format.ParseDict(dict(item), self._message())
            except json_format.ParseError as error:
                raise errors.InvalidArgumentError(str(error)) from error
        elif isinstance(item, self._message):
            made = item
        elif (
            isinstance(item, Message)
            and item.DESCRIPTOR.full_name == self._message.DESCRIPTOR.full_name
        ):
            made = wellknown.convert(item)  # of another package
        else:
            expected = (
                f"a v2.{self._message.__name__}{', an id' if ids_allowed else ''} or a mapping"
            )
            raise TypeError(f"expected {expected}, not {type(item).__name__}")
        return made

    def _post(
        self,
        items: Iterable[MessageT | str | Mapping[str, Any]],
        timeout: float | None,
        raise_on_partial: bool | None,
    ) -> Plan[list[MessageT]]:
        """Create resources, in requests of 128; returns them as the service has them."""
        return self._write(self._create_rpc, items, timeout, raise_on_partial)

    def _patch(
        self,
        items: Iterable[MessageT | Mapping[str, Any]],
        timeout: float | None,
        raise_on_partial: bool | None,
        **fields: Any,
    ) -> Plan[list[MessageT]]:
        """Change resources, in requests of 128; returns them as the service has them."""
        # The same change twice changes nothing more.
        return self._write(
            self._patch_rpc,
            items,
            timeout,
            raise_on_partial,
            idempotent=True,
            ids_allowed=False,  # an id alone would change nothing, or empty the resource
            **fields,
        )

    def _write(
        self,
        method: str,
        items: Iterable[MessageT | str | Mapping[str, Any]],
        timeout: float | None,
        raise_on_partial: bool | None,
        *,
        idempotent: bool | None = None,
        ids_allowed: bool = True,
        **fields: Any,
    ) -> Plan[list[MessageT]]:
        """Send items with a method, in requests of 128; returns them as the service has them."""
        row = lookup(method)
        sent = field_of(row.request_name, self._message.__name__)
        answered = field_of(row.response_name, self._message.__name__)
        if isinstance(items, str | bytes | Mapping | Message) or not is_iterable(items):
            raise TypeError(f"expected a list of items, not {type(items).__name__}")
        wanted = [self._one_of(one, ids_allowed) for one in items]
        if not wanted:
            raise errors.InvalidArgumentError(f"{method} needs at least one item")
        merged = row.response_class()()
        codes = set()
        for chunk in chunks(wanted):
            try:
                response = yield from self._send(
                    method, self._request(method, {sent: chunk, **fields}), timeout, idempotent
                )
            except errors.ApiError as error:
                done = len(getattr(merged, answered))
                if done:
                    error.add_note(
                        f"{done} of {len(wanted)} items were processed before this error"
                    )
                raise
            check_count(getattr(response, answered), chunk, method, response)
            getattr(merged, answered).MergeFrom(getattr(response, answered))
            merged.status.CopyFrom(response.status)
            codes.add(response.status.code)
        if len(codes) > 1:
            merged.status.code = v2.StatusCode.MIXED_STATUS
        made: list[MessageT] = self._outcome(method, merged, answered, raise_on_partial)
        return made

    def _send(
        self, method: str, request: Any, timeout: float | None, idempotent: bool | None
    ) -> Plan[Any]:
        """The response to a request of ``_write``."""
        return call(method, request, timeout=timeout, raise_on_partial=False, idempotent=idempotent)

    def _list(self, options: Mapping[str, Any]) -> ItemPlan[MessageT]:
        """The items of ``_list_rpc``, as ``pages`` gives them."""
        method = self._list_rpc
        return self._pages(
            method, field_of(lookup(method).response_name, self._message.__name__), options
        )

    def _fetch(
        self, resource_id: str, timeout: float | None = None, **fields: Any
    ) -> Plan[MessageT]:
        """What ``_get_rpc`` answers."""
        method = self._get_rpc
        id_field = self._id_field(method)
        if not isinstance(resource_id, str):
            raise TypeError(f"{method}: {id_field} takes no {type(resource_id).__name__}")
        if not resource_id:  # of a variable that is not set
            raise errors.InvalidArgumentError(f"{id_field} is empty", method=method)
        response = yield from self._invoke(method, timeout, **{id_field: resource_id}, **fields)
        field = field_of(lookup(method).response_name, self._message.__name__)
        if not response.HasField(field):
            raise errors.InternalError(
                "the service reported success without the resource",
                method=method,
                request_id=response.status.req_id,
            )
        found: MessageT = getattr(response, field)
        return found

    def _id_field(self, method: str) -> str:
        """The request's field of the id: by its name, or the only one that is not a parent's."""
        names = _string_fields(lookup(method).request_name)
        for name in (f"{_snake(self._message.__name__)}_id", "id"):
            if name in names:
                return name
        (name,) = (name for name in names if name not in self._parents)
        return name

    def _rename(
        self, method: str, old_id: str, new_id: str, timeout: float | None
    ) -> Plan[MessageT]:
        """Give a resource another id; returns it."""
        ids = [filled(method, v2.IdUpdateSource, id=old_id, new_id=new_id)]
        response = yield from self._invoke(method, timeout, ids=ids, action="overwrite")
        field = field_of(lookup(method).response_name, self._message.__name__)
        renamed: MessageT = sole(getattr(response, field), method, response)
        return renamed


class Creates(Collection[MessageT]):
    """Resources that can be created."""

    @operation
    def create(
        self, item: MessageT | str | Mapping[str, Any], *, timeout: float | None = None
    ) -> Plan[MessageT]:
        """Create one resource.

        Args:
            item: A message, a mapping with the fields of one (as in JSON), or a string: the id of
                a resource without further fields. The service generates an id if none is given.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The resource as the service stored it.

        Raises:
            AlreadyExistsError: The id is taken.
            InvalidArgumentError: The service rejects the resource (``details`` says why), the
                mapping has unknown fields, or the string is empty.
            TypeError: ``item`` is of another type.
        """
        (made,) = yield from self._post([item], timeout, True)
        return made

    @operation
    def create_many(
        self,
        items: Iterable[MessageT | str | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[MessageT]]:
        """Create many resources, in requests of 128.

        Args:
            items: At least one of what ``create`` takes.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected resource raises an error. False returns it with
                the others, with its status. None uses the client's setting.

        Returns:
            The resources as the service stored them, in the order given.

        Raises:
            PartialFailureError: Some resources were rejected; the others were created.
            InvalidArgumentError: No resource is given, a mapping has unknown fields, or a string
                is empty.
            TypeError: An item is neither a message, a mapping nor a string.
        """
        return (yield from self._post(items, timeout, raise_on_partial))


class Gets(Collection[MessageT]):
    """Resources that can be fetched by their ids."""

    @operation
    def get(self, resource_id: str, /, *, timeout: float | None = None) -> Plan[MessageT]:
        """Fetch one resource.

        Args:
            resource_id: Id of the resource.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The resource.

        Raises:
            NotFoundError: The resource does not exist.
        """
        return (yield from self._fetch(resource_id, timeout))


class Lists(Collection[MessageT]):
    """Resources that can be listed, without filters."""

    @iteration
    def list(self, **options: Unpack[Paging]) -> ItemPlan[MessageT]:
        """List the resources.

        Args:
            page: Number of one page to fetch, from 1. None fetches all pages, each when the
                iteration reaches it.
            per_page: Resources per page. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            An iterator of resources.
        """
        return self._list(options)


class Patches(Collection[MessageT]):
    """Resources that can be changed."""

    @operation
    def patch(
        self,
        item: MessageT | Mapping[str, Any],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
    ) -> Plan[MessageT]:
        """Change one resource.

        Args:
            item: A message, or a mapping with the fields of one (as in JSON): the id and the
                fields to change.
            action: How lists and JSON fields change: ``"merge"`` adds entries, replacing those
                with the same id or key; ``"remove"`` removes entries; ``"overwrite"`` replaces
                the whole field.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The resource after the change.

        Raises:
            NotFoundError: The resource does not exist.
            InvalidArgumentError: The service rejects the change (``details`` says why), or the
                mapping has unknown fields.
            TypeError: ``item`` is of another type.
        """
        (made,) = yield from self._patch([item], timeout, True, action=action)
        return made

    @operation
    def patch_many(
        self,
        items: Iterable[MessageT | Mapping[str, Any]],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[list[MessageT]]:
        """Change many resources, in requests of 128.

        Args:
            items: At least one of what ``patch`` takes.
            action: How lists and JSON fields change: ``"merge"`` adds entries, replacing those
                with the same id or key; ``"remove"`` removes entries; ``"overwrite"`` replaces
                the whole field.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected change raises an error. False returns the
                resource with the others, with its status. None uses the client's setting.

        Returns:
            The resources after the changes, in the order given.

        Raises:
            PartialFailureError: Some changes were rejected; the others were made.
            InvalidArgumentError: No resource is given, or a mapping has unknown fields.
            TypeError: An item is neither a message nor a mapping.
        """
        return (yield from self._patch(items, timeout, raise_on_partial, action=action))


class Deletes(Collection[MessageT]):
    """Resources that can be deleted."""

    @operation
    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete resources by their ids.

        Args:
            ids: One id, or many (sent in requests of 128).
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            NotFoundError: No resource of a request exists.
            InvalidArgumentError: No id is given.
        """
        given = as_ids(ids)
        if not given:
            raise errors.InvalidArgumentError("delete() needs at least one id")
        one, many = self._delete_one_rpc, self._delete_rpc
        if one and (not many or isinstance(ids, str)):
            for resource_id in given:
                yield from self._invoke(one, timeout, **{self._id_field(one): resource_id})
            return
        field = _ids_field(lookup(many).request_name, _snake(self._message.__name__))
        for chunk in chunks(given):
            yield from self._invoke(many, timeout, **{field: chunk})


@cache
def field_of(owner: str, message: str) -> str:
    """The field of a message that holds another message, one or many; not ``status``.

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


def filled(method: str, made: Callable[..., MadeT], /, **values: Any) -> MadeT:
    """A message for a call of ``method``, of values that a caller gave.

    Raises:
        TypeError: A value is of the wrong type; the text names its field.
        InvalidArgumentError: A value is out of range.
    """
    try:
        return made(**values)
    except (TypeError, ValueError) as error:
        raise _wrong_field(method, made, values, error) from None


def _wrong_field(
    method: str, made: Callable[..., Any], values: Mapping[str, Any], error: Exception
) -> Exception:
    """The error of a message that cannot be made, with the field whose value is the cause."""
    for name, value in values.items():
        try:
            made(**{name: value})
        except TypeError as cause:
            said = "" if "built-in operation" in str(cause) else f" ({cause})"
            return TypeError(f"{method}: {name} takes no {type(value).__name__}{said}")
        except ValueError as cause:
            return errors.InvalidArgumentError(f"{name}: {cause}", method=method)
    return error


def check_paging(**options: int | None) -> None:
    """Refuse numbers of pages, and sizes of pages, that the service would take for its default.

    Raises:
        InvalidArgumentError: A number is less than 1.
        TypeError: It is no integer.
    """
    for name, value in options.items():
        if value is not None and whole_number(name, value) < 1:
            raise errors.InvalidArgumentError(f"{name} must be 1 or more, not {value}")


def pages(
    method: str,
    request: Any,
    field: str,
    *,
    page: int | None,
    per_page: int | None,
    timeout: float | None,
) -> ItemPlan[Any]:
    """The items of all pages, each fetched when the iteration reaches it, or of one ``page``.

    Where the pages are counted in the request's ``pagination``, that is used; a method without
    pages gives all at once.

    Raises:
        InternalError: The service sends the same pages again and again.
        InvalidArgumentError: ``page`` or ``per_page`` is less than 1.
    """
    check_paging(page=page, per_page=per_page)
    known = request.DESCRIPTOR.fields_by_name
    paging = request.pagination if "pagination" in known else request
    paged = "page" in paging.DESCRIPTOR.fields_by_name
    if paged:
        paging.per_page = MAX_ITEMS if per_page is None else per_page
        paging.page = 1 if page is None else page
    size = paging.per_page if paged else 0
    seen: set[int] = set()
    repeated = 0
    while True:
        response = yield from call(method, request, timeout=timeout)
        items = getattr(response, field)
        is_last = not paged or len(items) < paging.per_page
        ends = is_last or page is not None
        if not ends:
            content = hash(tuple([item.SerializeToString(deterministic=True) for item in items]))
            repeated = repeated + 1 if content in seen else 0
            seen.add(content)
            # Items that are added meanwhile move others to later pages, which so appear once more.
            if repeated > len(seen):
                raise errors.InternalError(
                    f"page {paging.page} has the items of an earlier page, as have the "
                    f"{repeated - 1} before it; the service may not count pages",
                    method=method,
                    request_id=response.status.req_id,
                )
        number = paging.page if paged else 1
        yield page_info(response, items, page=number, size=size, is_last=is_last)
        for item in items:
            yield Item(item)
        if ends:
            return
        paging.page += 1


def page_info(
    response: Any, items: Sequence[Any], *, page: int, size: int, is_last: bool
) -> PageInfo:
    """What a response says of the page that it holds."""
    last = items[-1] if items else None
    last_id = getattr(last, "id", "") or getattr(getattr(last, "input", None), "id", "")
    counted = [one.estimated_total for one in getattr(response, "hit_counts", ())]
    return PageInfo(page, size, len(items), is_last, sum(counted) if counted else None, last_id)


def chunks(values: Sequence[T], size: int = MAX_ITEMS) -> Iterator[Sequence[T]]:
    """The values in runs of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def as_list(value: T | Iterable[T], single: type[Any] | tuple[type[Any], ...]) -> list[T]:
    """A list of one or of many.

    Raises:
        TypeError: It is a string or bytes, which would be a list of its letters, or no iterable.
    """
    if isinstance(value, single):
        return [value]
    if isinstance(value, str | bytes) or not is_iterable(value):
        raise TypeError(f"expected one message or mapping, or a list, not {type(value).__name__}")
    return list(value)  # type: ignore[arg-type]


def as_ids(ids: str | Iterable[str]) -> list[str]:
    """A list of one id or of many.

    Raises:
        TypeError: It is a mapping or bytes, or holds what is no string.
        InvalidArgumentError: An id is empty.
    """
    if isinstance(ids, str):
        ids = [ids]
    if isinstance(ids, Mapping | bytes) or not isinstance(ids, Iterable):
        raise TypeError(f"expected an id or a list of ids, not {type(ids).__name__}")
    given = list(ids)
    for one in given:
        if not isinstance(one, str):
            raise TypeError(f"an id is a string, not {type(one).__name__}")
        if not one:  # of a variable that is not set
            raise errors.InvalidArgumentError("an id is empty")
    return given


def check_count(found: Sized, wanted: Sized, method: str, response: Any) -> None:
    """Raise where a response reports success and has not as many items as the request.

    Raises:
        InternalError: The numbers differ.
    """
    if response.status.code == v2.StatusCode.SUCCESS and len(found) != len(wanted):
        raise errors.InternalError(
            f"the service reported success with {len(found)} of {len(wanted)} items",
            method=method,
            request_id=response.status.req_id,
        )


def sole(found: Sequence[T], method: str, response: Any) -> T:
    """The first item of a response that has one.

    Raises:
        InternalError: There is none.
    """
    if not found:
        raise errors.InternalError(
            "the service reported success without the resource",
            method=method,
            request_id=response.status.req_id,
        )
    return found[0]
