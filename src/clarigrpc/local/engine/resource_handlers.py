"""The methods that all kinds of resources share: list, get, create, patch and delete.

``ResourceHandlers`` is bound to a row of ``RESOURCE_KINDS`` and reads the rest from the descriptors
of the methods. A kind with logic of its own (checks, versions, consequences of a deletion) has a
subclass that overrides ``check``, ``added``, ``show``, ``changed`` or ``deleted``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import patching
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import page_bounds, refuse_other_fields
from clarigrpc.local.engine.resource_kinds import RESOURCE_KINDS, ResourceKind
from clarigrpc.local.resource_facts import is_public, new_id
from clarigrpc.local.service_errors import ServiceError, make_status, overall
from clarigrpc.local.store.resource_store import (
    PARENT_SEPARATOR,
    DuplicateIdError,
    Row,
    StoredCollection,
)
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode
from clarigrpc.v2._index import METHODS

Handler = Callable[[Context, Any], Message]

# Fields of requests that ask for more than a response needs to hold, which it always does here.
_WITHOUT_EFFECT = frozenset(
    (
        "additional_fields",
        "favor_clarifai_workflows",
        "exclude_clarifai_workflows",
        "list_all_collaborators",
        "active_usage",
    )
)
_SERVER_SET = (
    "id",
    "user_id",
    "app_id",
    "created_at",
    "modified_at",
    "star_count",
    "is_starred",
    "replica_count",
    "runner_metrics",
    "deployment_metrics",
)
_TEXT_FIELDS = ("id", "name", "description", "notes")
WORD = re.compile(r"\w+")
"""What counts as a word in searches by text."""


class Place(NamedTuple):
    """Where resources are: an app (or a user, with an empty app id), and their parents' ids."""

    app: UserApp
    parents: tuple[str, ...] = ()


class ResourceHandlers:
    """One kind of resource.

    Args:
        kind: Its row.
        others: Every kind by name, this one included once all are made.
    """

    def __init__(self, kind: ResourceKind, others: Mapping[str, ResourceHandlers]) -> None:
        self.kind = kind
        self._others = others
        self.cls: Any = getattr(v2, kind.message or kind.singular)
        self._fields = self.cls.DESCRIPTOR.fields_by_name
        self._has_status = (
            "status" in self._fields and self._fields["status"].message_type is v2.Status.DESCRIPTOR
        )

    # What a kind may do besides.

    def check(self, context: Context, place: Place, item: Any) -> None:
        """Refuses or completes a new resource before it is kept."""

    def added(self, context: Context, place: Place, given: Any, item: Any) -> None:
        """Does what follows from a new resource; ``given`` is as the request had it."""

    def changed(self, context: Context, place: Place, change: Any, action: str, item: Any) -> None:
        """Checks a patched resource before it is kept, and does what follows."""

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        """Does what follows from a deletion, beside the deletion of nested resources."""

    def emptied(self, context: Context, where: StoredCollection) -> None:
        """Does what follows when all of a collection goes, before it is gone."""

    def show(self, context: Context, place: Place, item: Any) -> None:
        """Completes a resource for a response."""

    def hides(self, context: Context, place: Place) -> bool:
        """Whether the caller may see the public ones of a place alone."""
        return "visibility" in self._fields and context.is_stranger(place.app)

    def only(self, context: Context, request: Any) -> list[Callable[[Any], bool]]:
        """What a list leaves out beside what the request's filters do."""
        return []

    def key(self, item: Any) -> str | None:
        """A second name in the store."""
        return None

    # For handlers.

    def handlers(self) -> dict[str, Handler]:
        """The handlers of the methods that V2 has for the kind."""
        kind = self.kind
        found: dict[str, Handler] = {
            f"Get{kind.singular}": self.get,
            f"List{self.plural}": self.page,
            f"Post{self.plural}": self.post,
            f"Patch{self.plural}": self.patch,
            f"Delete{self.plural}": self.delete,
            f"Delete{kind.singular}": self.delete,
        }
        return {
            name: handler
            for name, handler in found.items()
            if name in METHODS and name not in kind.without
        }

    @property
    def plural(self) -> str:
        """The kind's name in the names of methods for several."""
        return self.kind.plural or f"{self.kind.singular}s"

    def get(self, context: Context, request: Any) -> Message:
        """One resource by its id."""
        place = self.place(context, request)
        item = self.find(context, place, self._id(request))
        response = _response(context)
        getattr(response, _field_of(response.DESCRIPTOR, self.cls).name).CopyFrom(item)
        return response  # type: ignore[no-any-return]

    def page(self, context: Context, request: Any) -> Message:
        """A page of resources, filtered and sorted as the request says."""
        offset, limit = page_bounds(getattr(request, "page", 0), getattr(request, "per_page", 0))
        places = self._places(context, request)
        tests = [*self._tests(request), *self.only(context, request)]
        sort = self._sort(request)
        hidden = any(self.hides(context, place) for place in places)
        if len(places) == 1 and not tests and sort is None and not hidden:
            rows = context.state.store.page(self.where(places[0]), offset, limit)
            items = [
                self._completed(context, places[0], item)
                for row in rows
                if (item := context.state.store.message(self.cls, row)) is not None
            ]
        else:
            found = (
                item
                for place in places
                for item in self.walk(context, place)
                if all(test(item) for test in tests)
            )
            if sort is None:
                items = list(islice(found, offset, offset + limit))
            else:
                key, ascending = sort
                ordered = sorted(found, key=key, reverse=not ascending)
                items = ordered[offset : offset + limit]
        return self.answer(context, items)  # type: ignore[no-any-return]

    def post(self, context: Context, request: Any) -> Message:
        """Keeps new resources; those that cannot be kept say why, where they have a status."""
        place = self.place(context, request, write=True)
        items = self._items(request)
        self._refuse(request, items_too=True)
        return self._each(
            context, items, lambda given: self._create(context, place, request, given)
        )

    def patch(self, context: Context, request: Any) -> Message:
        """Changes resources by their ids."""
        place = self.place(context, request, write=True)
        patching.check_action(request.action, self.kind.invalid)
        items = self._items(request)
        return self._each(
            context, items, lambda change: self.change(context, place, change, request.action)
        )

    def delete(self, context: Context, request: Any) -> Message:
        """Deletes resources by their ids."""
        place = self.place(context, request, write=True)
        if getattr(request, "delete_all", False):
            raise ServiceError(
                self.kind.invalid,
                f"delete_all is no longer supported; give at most {MAX_ITEMS} ids",
            )
        ids = self._ids(request)
        missing = []
        with context.state.store.transaction():
            for resource_id in ids:
                if not self.remove(context, place, resource_id):
                    missing.append(resource_id)
        context.state.store.after_commit(context.state.downloads.sweep)
        if len(missing) == len(ids):
            raise self.no(missing[0])
        response = _response(context)
        if missing:
            # The response has no place for a status per id.
            response.status.details = f"not there: {', '.join(missing)}"
        return response  # type: ignore[no-any-return]

    # For handlers and other kinds.

    def where(self, place: Place) -> StoredCollection:
        """The collection of the store."""
        return StoredCollection(
            self.kind.name,
            place.app.user_id,
            "" if self.kind.of_user else place.app.app_id,
            PARENT_SEPARATOR.join(place.parents),
        )

    def no(self, resource_id: str) -> ServiceError:
        """The failure of a resource that is not there."""
        name = self.kind.name.replace("_", " ")
        return ServiceError(self.kind.missing, f"{name} {resource_id!r} does not exist")

    def find(self, context: Context, place: Place, resource_id: str) -> Any:
        """The resource; ServiceError where there is none."""
        row = context.state.store.get(self.where(place), resource_id)
        if row is None:
            raise self.no(resource_id)
        item = self.shown(context, place, row)
        if self.hides(context, place) and not is_public(item):
            raise self.no(resource_id)
        return item

    def exists(self, context: Context, place: Place, resource_id: str) -> bool:
        """Whether the resource is there."""
        row = context.state.store.get(self.where(place), resource_id)
        if row is None:
            return False
        return not self.hides(context, place) or is_public(self.cls.FromString(row.body))

    def walk(self, context: Context, place: Place) -> Iterator[Any]:
        """All resources of a place, newest first."""
        hides = self.hides(context, place)
        for row in context.state.store.walk(self.where(place)):
            item = context.state.store.message(self.cls, row)
            if item is not None and (not hides or is_public(item)):
                yield self._completed(context, place, item)

    def newest(self, context: Context, place: Place) -> Any | None:
        """The resource that was made last."""
        if self.hides(context, place):
            return next(self.walk(context, place), None)
        rows = context.state.store.page(self.where(place), 0, 1)
        item = context.state.store.message(self.cls, rows[0]) if rows else None
        return None if item is None else self._completed(context, place, item)

    def shown(self, context: Context, place: Place, row: Row) -> Any:
        """A stored resource as responses show it."""
        return self._completed(context, place, self.cls.FromString(row.body))

    def _completed(self, context: Context, place: Place, item: Any) -> Any:
        self._own(place, item)
        if self.kind.newest is not None:
            name, nested = self.kind.newest
            version = self._others[nested].newest(context, nested_place(place, item.id))
            if version is not None:
                getattr(item, name).CopyFrom(version)
        self.show(context, place, item)
        return item

    def add(self, context: Context, place: Place, given: Any) -> Any:
        """Keeps a new resource.

        Raises:
            ServiceError: It is not right, or its id is taken.
        """
        item = self.cls()
        item.CopyFrom(given)
        for name in ("created_at", "modified_at", "star_count", "is_starred"):
            if name in self._fields:
                item.ClearField(name)
        if self.kind.newest is not None:
            item.ClearField(self.kind.newest[0])
        item.id = given.id or new_id()
        self._own(place, item)
        if self.kind.author:
            item.user_id = context.caller.user_id
        for name in ("created_at", "modified_at", "last_modified_at"):
            if name in self._fields:
                getattr(item, name).GetCurrentTime()
        if "visibility" in self._fields and not item.visibility.gettable:
            item.visibility.gettable = v2.Visibility.PRIVATE
        if self.kind.status is not None and not (self.kind.own_status and item.status.code):
            item.status.CopyFrom(make_status(self.kind.status))
        elif self.kind.status is not None:
            item.status.CopyFrom(make_status(item.status.code, item.status.details))
        self.check(context, place, item)
        try:
            context.state.store.insert(
                self.where(place),
                item.id,
                item.SerializeToString(),
                status=item.status.code if self._has_status else 0,
                key=self.key(item),
            )
        except DuplicateIdError:
            name = self.kind.name.replace("_", " ")
            raise ServiceError(
                self.kind.duplicate, f"duplicate: {name} {item.id!r} already exists"
            ) from None
        self.added(context, place, given, item)
        return self.find(context, place, item.id)

    def change(self, context: Context, place: Place, change: Any, action: str) -> Any:
        """Patches the resource with the id of ``change``."""
        if not change.id:
            raise ServiceError(self.kind.invalid, "a patch needs the id of the resource")
        item = self._stored(context, place, change.id)
        patching.patch(item, change, action, self._fixed)
        if self.kind.own_status and change.HasField("status"):
            item.status.CopyFrom(make_status(change.status.code, change.status.details))
        self.changed(context, place, change, action, item)
        self.save(context, place, item)
        return self.find(context, place, change.id)

    def save(self, context: Context, place: Place, item: Any) -> None:
        """Keeps a changed resource, whose id is as before."""
        for name in ("modified_at", "last_modified_at"):
            if name in self._fields:
                getattr(item, name).GetCurrentTime()
        store = context.state.store
        row = store.get(self.where(place), item.id)
        if row is None:
            raise self.no(item.id)
        status = item.status.code if self._has_status else 0
        store.update(row.seq, item.SerializeToString(), status)
        store.set_key(row.seq, self.key(item))

    def remove(self, context: Context, place: Place, resource_id: str) -> bool:
        """Deletes a resource with its nested resources; False where there is none."""
        store = context.state.store
        where = self.where(place)
        with store.transaction():
            if not store.delete(where, resource_id):
                return False
            for nested in self._nested_collections(context, place, resource_id):
                self._others[nested.kind].emptied(context, nested)
                store.clear(nested)
            self.deleted(context, place, resource_id)
        return True

    def rename(self, context: Context, place: Place, old: str, new: str) -> Any:
        """Gives a resource another id; its nested resources move with it."""
        store = context.state.store
        with store.transaction():
            item = self._stored(context, place, old)
            if not new:
                raise ServiceError(self.kind.invalid, "new_id is empty")
            try:
                store.rename(self.where(place), old, new)
            except DuplicateIdError:
                raise ServiceError(
                    self.kind.duplicate, f"the id {new!r} is already in use"
                ) from None
            item.id = new
            self.save(context, place, item)
            before = (*place.parents, old)
            for nested in self._nested_collections(context, place, old):
                rest = nested.parent.split(PARENT_SEPARATOR)[len(before) :]
                parent = PARENT_SEPARATOR.join((*place.parents, new, *rest))
                store.move(nested, nested._replace(parent=parent))
        return self.find(context, place, new)

    def place(self, context: Context, request: Any, *, write: bool = False) -> Place:
        """Where a request works; ServiceError unless all parents exist."""
        if self.kind.of_user:
            user = context.user(request.user_app_id, write=write)
            place = Place(UserApp(user, ""))
        else:
            app = context.writable if write else context.readable
            place = Place(app(request.user_app_id))
        for name in self.kind.parents:
            parent = self._others[name]
            resource_id = parent._id(request)
            if not parent.exists(context, place, resource_id):
                raise parent.no(resource_id)
            place = nested_place(place, resource_id)
        return place

    def answer(self, context: Context, items: Iterable[Any]) -> Any:
        """The method's response with these resources."""
        response = _response(context)
        field = _field_of(response.DESCRIPTOR, self.cls)
        if field.is_repeated:
            getattr(response, field.name).extend(items)
        else:
            for item in items:
                getattr(response, field.name).CopyFrom(item)
        return response

    # Inside.

    @cached_property
    def _fixed(self) -> frozenset[str]:
        names = {*_SERVER_SET, "last_modified_at"}
        if self._has_status:
            names.add("status")
        if self.kind.newest is not None:
            names.add(self.kind.newest[0])
        names |= {f"{name}_id" for name in self.kind.parents}
        # What a resource is about comes with its id in a patch, and never changes.
        names |= {path for path in self.kind.links.values() if "." not in path}
        return frozenset(names)

    @cached_property
    def _id_names(self) -> tuple[str, ...]:
        name = self.kind.name
        last = name.rpartition("_")[2]
        return (self.kind.id_field, f"{name}_id", f"{last}_id", "id")

    def _id(self, request: Any) -> str:
        fields = request.DESCRIPTOR.fields_by_name
        for name in self._id_names:
            if name in fields and not fields[name].is_repeated:
                value: str = getattr(request, name)
                if not value:
                    raise ServiceError(self.kind.invalid, f"{name} is empty")
                return value
        raise AssertionError(f"{request.DESCRIPTOR.name} has no id of {self.kind.name}")

    def _ids(self, request: Any) -> list[str]:
        fields = request.DESCRIPTOR.fields_by_name
        for name in self._id_names:
            if f"{name}s" in fields and fields[f"{name}s"].is_repeated:
                ids = list(dict.fromkeys(getattr(request, f"{name}s")))
                self._check_count(len(ids), "ids")
                return ids
        return [self._id(request)]

    def _items(self, request: Any) -> list[Any]:
        field = _field_of(request.DESCRIPTOR, self.cls)
        if not field.is_repeated:
            return [getattr(request, field.name)]
        items = list(getattr(request, field.name))
        self._check_count(len(items), field.name)
        return items

    def _check_count(self, count: int, what: str) -> None:
        if not 1 <= count <= MAX_ITEMS:
            raise ServiceError(
                self.kind.invalid, f"the request has {count} {what}; it must have 1 to {MAX_ITEMS}"
            )

    def _refuse(self, request: Any, *, items_too: bool = False) -> None:
        known = {"user_app_id", "action", *_WITHOUT_EFFECT, *self.kind.links, *self._id_names}
        for name in self.kind.parents:
            known.update(self._others[name]._id_names)
        if items_too:
            known.add(_field_of(request.DESCRIPTOR, self.cls).name)
        refuse_other_fields(request, known)

    def _own(self, place: Place, item: Any) -> None:
        """Sets the fields that say where the resource lies, whatever was sent or renamed."""
        if "user_id" in self._fields and not self.kind.author:
            item.user_id = place.app.user_id
        if "app_id" in self._fields and not self.kind.of_user:
            item.app_id = place.app.app_id
        for name, resource_id in zip(self.kind.parents, place.parents, strict=True):
            if f"{name}_id" in self._fields:
                setattr(item, f"{name}_id", resource_id)

    def _stored(self, context: Context, place: Place, resource_id: str) -> Any:
        row = context.state.store.get(self.where(place), resource_id)
        if row is None:
            raise self.no(resource_id)
        item = self.cls.FromString(row.body)
        self._own(place, item)
        return item

    def _nested_collections(
        self, context: Context, place: Place, resource_id: str
    ) -> list[StoredCollection]:
        where = self.where(place)
        parent = PARENT_SEPARATOR.join((*place.parents, resource_id))
        nested = [
            name for name, other in self._others.items() if self.kind.name in other.kind.parents
        ]
        return [
            found
            for name in nested
            for found in context.state.store.collections(name, where.user_id, where.app_id, parent)
        ]

    def _create(self, context: Context, place: Place, request: Any, given: Any) -> Any:
        item = self.cls()
        item.CopyFrom(given)
        for name, path in self.kind.links.items():
            value = getattr(request, name, "")
            if value:
                _set(item, path, value)
        return self.add(context, place, item)

    def _each(self, context: Context, items: list[Any], work: Callable[[Any], Any]) -> Message:
        """Does the work for every item, all at once in the store.

        An item that has a status carries its own failure; without one, one failure is that of
        the call and nothing is kept.
        """
        done = []
        statuses = []
        store = context.state.store
        with store.transaction():
            for given in items:
                try:
                    with store.savepoint():
                        done.append(work(given))
                    statuses.append(make_status(StatusCode.SUCCESS))
                except ServiceError as error:
                    if not self._has_status or len(items) == 1:
                        raise
                    failed = self.cls(id=given.id)
                    failed.status.CopyFrom(error.status())
                    done.append(failed)
                    statuses.append(failed.status)
        response = self.answer(context, done)
        response.status.CopyFrom(overall(statuses))
        return response  # type: ignore[no-any-return]

    def _places(self, context: Context, request: Any) -> list[Place]:
        """The places that a list goes through: all apps of a user where it names no app."""
        if self.kind.of_user or self.kind.parents or not _may_span_apps(context.call.method):
            return [self.place(context, request)]
        app = context.readable(request.user_app_id, all_apps=True)
        if app.app_id:
            return [Place(app)]
        return [Place(UserApp(app.user_id, app_id)) for app_id in context.apps_of(app.user_id)]

    def _tests(self, request: Any) -> list[Callable[[Any], bool]]:
        tests = []
        for field, value in request.ListFields():
            name = field.name
            if name in ("user_app_id", "page", "per_page", "sort_ascending", *_WITHOUT_EFFECT):
                continue
            if name.startswith("sort_by_") or self._names_parent(name):
                continue
            test = self._test(name, value)
            if test is None:
                raise ServiceError(
                    StatusCode.NOT_IMPLEMENTED,
                    f"the local server does not support the filter {name} here",
                )
            tests.append(test)
        return tests

    def _names_parent(self, name: str) -> bool:
        return any(name in self._others[parent]._id_names for parent in self.kind.parents)

    def _test(self, name: str, value: Any) -> Callable[[Any], bool] | None:
        """The test for a field of a list's request: the kind's own, or by the name's pattern."""
        if name in self.kind.filters:
            custom = self.kind.filters[name]
            return lambda item: custom(item, value)
        if name in self.kind.links:
            path = self.kind.links[name]
            return lambda item: _read(item, path) == value
        if name in ("search", "search_term", "query", "name") and "id" in self._fields:
            return lambda item: relevance(item, value) > 0
        if name == "id":
            return lambda item: fnmatch.fnmatchcase(item.id, value)
        if name == "visibility":
            return lambda item: item.visibility.gettable == value.gettable
        if name == "bookmark":
            return lambda item: item.HasField("bookmark_origin")
        if name == "featured_only":  # nobody here picks what to feature
            return lambda item: False
        if name == "starred_only" and "is_starred" in self._fields:
            return lambda item: item.is_starred
        if name in ("statuses", "status_codes") and self._has_status:
            codes = {getattr(entry, "code", entry) for entry in value}
            return lambda item: item.status.code in codes
        if name == "ids":
            ids = set(value)
            return lambda item: item.id in ids
        if name.endswith("_ids") and name[:-1] in self._fields:
            wanted = set(value)
            return lambda item: getattr(item, name[:-1]) in wanted
        if name in self._fields and self._fields[name].message_type is None:
            return lambda item: getattr(item, name) == value
        return None

    def _sort(self, request: Any) -> tuple[Callable[[Any], Any], bool] | None:
        """The key to sort by and whether it ascends; None for the newest first."""
        if "sort_by" not in request.DESCRIPTOR.oneofs_by_name:
            return None
        chosen = request.WhichOneof("sort_by") or "sort_by_modified_at"
        name = chosen.removeprefix("sort_by_")
        if name == "relevance":
            return (lambda item: relevance(item, request.search)), request.sort_ascending
        if name not in self._fields:
            raise ServiceError(
                StatusCode.NOT_IMPLEMENTED, f"the local server cannot sort by {name}"
            )
        if self._fields[name].message_type is not None:
            return (lambda item: getattr(item, name).ToNanoseconds()), request.sort_ascending
        return (lambda item: getattr(item, name)), request.sort_ascending


def nested_place(place: Place, resource_id: str) -> Place:
    """The place of the resources nested in one of this place."""
    return place._replace(parents=(*place.parents, resource_id))


def relevance(item: Any, text: str) -> int:
    """How many words of a resource's texts begin with words of ``text``; 0 unless all occur."""
    texts = [getattr(item, name) for name in _TEXT_FIELDS if name in item.DESCRIPTOR.fields_by_name]
    have = WORD.findall(" ".join(texts).replace("_", " ").lower())
    total = 0
    for word in WORD.findall(text.replace("_", " ").lower()):
        hits = sum(1 for other in have if other.startswith(word))
        if not hits:
            return 0
        total += hits
    return total


def _response(context: Context) -> Any:
    response = getattr(v2, METHODS[context.call.method][1])()
    response.status.CopyFrom(make_status(StatusCode.SUCCESS))
    return response


def _field_of(descriptor: Descriptor, cls: Any) -> FieldDescriptor:
    """The field whose message is ``cls``."""
    for field in descriptor.fields:
        if field.message_type is cls.DESCRIPTOR:
            return field
    raise AssertionError(f"{descriptor.name} has no {cls.DESCRIPTOR.name}")


def _may_span_apps(method: str) -> bool:
    """Whether a list may name a user without an app, and then means all apps of that user."""
    return method in _LISTS_OF_USERS


_LISTS_OF_USERS = frozenset(
    ("ListDatasets", "ListWorkflows", "ListModules", "ListModels", "ListEvaluations")
)


def _read(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = getattr(item, name)
    return item


def _set(item: Any, path: str, value: Any) -> None:
    *parent, last = path.split(".")
    for name in parent:
        item = getattr(item, name)
    setattr(item, last, value)


def build(special: Mapping[str, type[ResourceHandlers]]) -> dict[str, ResourceHandlers]:
    """All kinds by name; those in ``special`` with a class of their own."""
    resources: dict[str, ResourceHandlers] = {}
    for kind in RESOURCE_KINDS:
        resources[kind.name] = special.get(kind.name, ResourceHandlers)(kind, resources)
    return resources
