"""Inputs of an app: add, get, list, stream, count, patch, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import dataset_membership, hosted_media, search_filters
from clarigrpc.local.engine.app_concepts import AppConcepts
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import MAX_PER_PAGE, page_bounds
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.media import media_content
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status, overall
from clarigrpc.local.store.resource_store import Row, Store, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

STREAM_PER_PAGE = 20
"""Inputs of one StreamInputs answer unless the request says otherwise."""


def post_inputs(context: Context, request: v2.PostInputsRequest) -> v2.MultiInputResponse:
    app = context.writable(request.user_app_id)
    _check_count(len(request.inputs))
    response = v2.MultiInputResponse()
    concepts = AppConcepts(context.state.store, app)
    # One transaction: the batch costs one commit, and is acknowledged only when it is kept.
    with context.state.store.transaction():
        for given in request.inputs:
            item = response.inputs.add()
            add_input(
                context.state.store,
                _inputs(app),
                given,
                request.input_id_conflict_resolution,
                item,
                concepts,
            )
            hosted_media.show(item, app, context.state.downloads.base)
    response.status.CopyFrom(overall(item.status for item in response.inputs))
    context.state.input_processor.wake()
    return response


def add_input(
    store: Store,
    where: StoredCollection,
    given: v2.Input,
    on_conflict: v2.InputIDConflictResolution.ValueType,
    item: v2.Input,
    concepts: AppConcepts,
) -> None:
    """Keeps a new input, which ``item`` becomes; its status says why where it cannot be kept."""
    # Without the bytes, which can be large: the item is stored and echoed, they are kept apart.
    content = media_content.inline(given.data)
    _copy_without_bytes(given, item)
    item.id = given.id or new_id()
    try:
        kind = media_content.check(given.data)
        if kind == "text":
            media_content.check_text_size(len(content))
        _check_place(given.data)
        existing = store.get(where, item.id) if given.id else None
        if existing is not None and on_conflict == v2.InputIDConflictResolution.SKIP:
            item.ParseFromString(existing.body)
            return
        if existing is not None and on_conflict == v2.InputIDConflictResolution.SUFFIX:
            item.id = f"{item.id}-{new_id()[:8]}"
            existing = None
        url = media_content.url_of(item.data)
        _check_new(store, where, item, existing, kind)
        _check_datasets(store, where, item.dataset_ids)
        concepts.complete(item.data, StatusCode.INPUT_INVALID_ARGUMENT)
    except ServiceError as error:
        item.status.CopyFrom(error.status())
        return
    item.status.CopyFrom(make_status(StatusCode.INPUT_PENDING))
    item.created_at.GetCurrentTime()
    item.modified_at.CopyFrom(item.created_at)
    store.insert(
        where,
        item.id,
        item.SerializeToString(),
        status=item.status.code,
        key=url or None,
        content=None if url or kind == "text" else content,
    )
    dataset_membership.update(store, _app(where), item.id, (), item.dataset_ids)


def _app(where: StoredCollection) -> UserApp:
    return where.app


def _check_place(data: v2.Data) -> None:
    if data.HasField("geo") and not search_filters.is_on_earth(data.geo.geo_point):
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            "geo_point is out of range: latitude -90 to 90, longitude -180 to 180",
        )


def _check_datasets(store: Store, where: StoredCollection, dataset_ids: Iterable[str]) -> None:
    unknown = dataset_membership.unknown(store, _app(where), dataset_ids)
    if unknown:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT, f"dataset {unknown[0]!r} does not exist"
        )


def _check_new(
    store: Store, where: StoredCollection, item: v2.Input, existing: Row | None, kind: str
) -> None:
    if existing is not None:
        # The published SDK knows by these words that it is the id, which it need not try again.
        raise ServiceError(StatusCode.INPUT_DUPLICATE, "Input has a duplicate ID.")
    url = media_content.url_of(item.data)
    if url and not getattr(item.data, kind).allow_duplicate_url and store.has_key(where, url):
        raise ServiceError(
            StatusCode.INPUT_DUPLICATE, f"an input with the URL {url} already exists"
        )


def _copy_without_bytes(given: v2.Input, item: v2.Input) -> None:
    for field, value in given.ListFields():
        if field.name != "data":
            _assign(item, field.name, value)
    for field, value in given.data.ListFields():
        if field.name not in ("image", "video", "audio"):
            _assign(item.data, field.name, value)
            continue
        target = getattr(item.data, field.name)
        target.SetInParent()
        for inner, part in value.ListFields():
            if inner.name not in ("base64", "hosted"):
                _assign(target, inner.name, part)


def _assign(message: Message, name: str, value: object) -> None:
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    elif hasattr(value, "__len__") and not isinstance(value, (str, bytes)):
        getattr(message, name).MergeFrom(value)
    else:
        setattr(message, name, value)


def get_input(context: Context, request: v2.GetInputRequest) -> v2.SingleInputResponse:
    app = context.readable(request.user_app_id)
    row = context.state.store.get(_inputs(app), request.input_id)
    if row is None:
        raise _gone(request.input_id)
    return v2.SingleInputResponse(
        status=make_status(StatusCode.SUCCESS), input=_shown(context, app, row)
    )


def list_inputs(context: Context, request: v2.ListInputsRequest) -> v2.MultiInputResponse:
    app = context.readable(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    if len(request.ids) > MAX_PER_PAGE:
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST,
            f"{len(request.ids)} ids; the maximum is {MAX_PER_PAGE}",
        )
    rows = context.state.store.page(
        _inputs(app),
        offset,
        limit,
        status=request.status.code or None,
        ids=request.ids,
    )
    return _listed(context, app, rows)


def stream_inputs(context: Context, request: v2.StreamInputsRequest) -> v2.MultiInputResponse:
    app = context.readable(request.user_app_id)
    if request.per_page > MAX_PER_PAGE:
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST,
            f"per_page is {request.per_page}; the maximum is {MAX_PER_PAGE}",
        )
    rows = context.state.store.after(
        _inputs(app),
        request.last_id,
        request.per_page or STREAM_PER_PAGE,
        by_id=request.order_by_id,
        descending=request.descending,
    )
    if rows is None:
        raise _no_input(request.last_id)
    return _listed(context, app, rows)


def get_input_count(
    context: Context, request: v2.GetInputCountRequest
) -> v2.SingleInputCountResponse:
    app = context.readable(request.user_app_id)
    counts = context.state.store.count_by_status(_inputs(app))
    return v2.SingleInputCountResponse(
        status=make_status(StatusCode.SUCCESS),
        counts=v2.InputCount(
            processed=counts.get(StatusCode.INPUT_SUCCESS, 0),
            to_process=counts.get(StatusCode.INPUT_PENDING, 0),
            errors=counts.get(StatusCode.INPUT_FAILED, 0),
            processing=counts.get(StatusCode.INPUT_IN_PROGRESS, 0),
        ),
    )


def patch_inputs(context: Context, request: v2.PatchInputsRequest) -> v2.MultiInputResponse:
    app = context.writable(request.user_app_id)
    _check_count(len(request.inputs))
    if request.action not in ("merge", "overwrite", "remove"):
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST,
            f"action is {request.action!r}; it must be merge, overwrite or remove",
        )
    store = context.state.store
    response = v2.MultiInputResponse()
    failures: list[v2.Status] = []
    concepts = AppConcepts(store, app)
    with store.transaction():
        for change in request.inputs:
            row = store.get(_inputs(app), change.id)
            if row is None:
                status = _no_input(change.id).status()
                response.inputs.add(id=change.id).status.CopyFrom(status)
                failures.append(status)
                continue
            item = _input(row)
            before = list(item.dataset_ids)
            _patch(item, change, request.action)
            try:
                _check_place(item.data)
                _check_datasets(store, _inputs(app), item.dataset_ids)
                concepts.complete(item.data, StatusCode.INPUT_INVALID_ARGUMENT)
            except ServiceError as error:
                response.inputs.add(id=change.id).status.CopyFrom(error.status())
                failures.append(error.status())
                continue
            dataset_membership.update(store, app, item.id, before, item.dataset_ids)
            item.modified_at.GetCurrentTime()
            store.update(row.seq, item.SerializeToString(), row.status)
            shown = hosted_media.show(item, app, context.state.downloads.base)
            # Not what the input went through when it was added, which says nothing of this call.
            shown.status.CopyFrom(make_status(StatusCode.INPUT_MODIFY_SUCCESS))
            response.inputs.append(shown)
            failures.append(shown.status)
    response.status.CopyFrom(overall(failures))
    return response


def _patch(item: v2.Input, change: v2.Input, action: str) -> None:
    data = item.data
    if action == "overwrite":
        # All of data but the content itself: what the patch leaves out is dropped.
        for field, _ in data.ListFields():
            if field.name not in ("image", "video", "audio", "text"):
                data.ClearField(field.name)  # type: ignore[arg-type]
        del item.dataset_ids[:]
    if action == "remove":
        gone = {concept.id for concept in change.data.concepts}
        kept = [concept for concept in data.concepts if concept.id not in gone]
        del data.concepts[:]
        data.concepts.extend(kept)
        kept_ids = [i for i in item.dataset_ids if i not in set(change.dataset_ids)]
        del item.dataset_ids[:]
        item.dataset_ids.extend(kept_ids)
        if change.data.HasField("metadata"):
            _remove_struct(data.metadata, change.data.metadata)
        if change.data.HasField("geo"):
            data.ClearField("geo")
        return
    by_id = {concept.id: concept for concept in data.concepts}
    for concept in change.data.concepts:
        if concept.id in by_id:
            by_id[concept.id].CopyFrom(concept)
        else:
            by_id[concept.id] = data.concepts.add()
            by_id[concept.id].CopyFrom(concept)
    if change.data.HasField("metadata"):
        _merge_struct(data.metadata, change.data.metadata)
    if change.data.HasField("geo"):
        data.geo.CopyFrom(change.data.geo)
    item.dataset_ids.extend(i for i in change.dataset_ids if i not in set(item.dataset_ids))


def _merge_struct(target: Message, change: Message) -> None:
    """Adds keys and replaces values, objects inside objects likewise."""
    fields = target.fields  # type: ignore[attr-defined]
    target.SetInParent()
    for key, value in change.fields.items():  # type: ignore[attr-defined]
        if value.HasField("struct_value") and fields[key].HasField("struct_value"):
            _merge_struct(fields[key].struct_value, value.struct_value)
        else:
            fields[key].CopyFrom(value)


def _remove_struct(target: Message, change: Message) -> None:
    """Drops the keys that are named; an object names keys inside of it."""
    fields = target.fields  # type: ignore[attr-defined]
    for key, value in change.fields.items():  # type: ignore[attr-defined]
        if key not in fields:
            continue
        if value.HasField("struct_value") and fields[key].HasField("struct_value"):
            _remove_struct(fields[key].struct_value, value.struct_value)
        else:
            del fields[key]


def delete_input(context: Context, request: v2.DeleteInputRequest) -> v2.BaseResponse:
    app = context.writable(request.user_app_id)
    with context.state.store.transaction():
        dataset_membership.forget_input(context.state.store, app, request.input_id)
        found = context.state.store.doom(_inputs(app), [request.input_id])
    if not found:
        raise _gone(request.input_id)
    context.state.input_processor.wake()
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


def delete_inputs(context: Context, request: v2.DeleteInputsRequest) -> v2.BaseResponse:
    app = context.writable(request.user_app_id)
    if not 1 <= len(request.ids) <= MAX_ITEMS:
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST,
            f"the request has {len(request.ids)} ids; it must have 1 to {MAX_ITEMS}",
        )
    with context.state.store.transaction():
        for input_id in request.ids:
            dataset_membership.forget_input(context.state.store, app, input_id)
        found = set(context.state.store.doom(_inputs(app), request.ids))
    missing = [i for i in request.ids if i not in found]
    if not found:
        raise _no_input(missing[0])
    context.state.input_processor.wake()
    # The response has no place for a status per id.
    details = f"not there: {', '.join(missing)}" if missing else ""
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS, details))


def _inputs(app: UserApp) -> StoredCollection:
    return StoredCollection.of_app(INPUT_KIND, app)


def _input(row: Row) -> v2.Input:
    return v2.Input.FromString(row.body)


def _shown(context: Context, app: UserApp, row: Row) -> v2.Input:
    return hosted_media.show(_input(row), app, context.state.downloads.base)


def _listed(context: Context, app: UserApp, rows: Iterable[Row]) -> v2.MultiInputResponse:
    response = v2.MultiInputResponse(status=make_status(StatusCode.SUCCESS))
    base = context.state.downloads.base
    for row in rows:
        item = context.state.store.message(v2.Input, row)
        if item is not None:
            response.inputs.append(hosted_media.show(item, app, base))
    return response


def _gone(input_id: str) -> ServiceError:
    """An address without an input; programs poll for this code after they delete one."""
    return ServiceError(StatusCode.CONN_DOES_NOT_EXIST, f"input {input_id!r} does not exist")


def _no_input(input_id: str) -> ServiceError:
    return ServiceError(StatusCode.INPUT_DOES_NOT_EXIST, f"input {input_id!r} does not exist")


def _check_count(count: int) -> None:
    if count == 0:
        raise ServiceError(StatusCode.INPUT_INVALID_REQUEST, "the request has no inputs")
    if count > MAX_ITEMS:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            f"the request has {count} inputs; the maximum is {MAX_ITEMS}",
        )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostInputs": post_inputs,
    "GetInput": get_input,
    "ListInputs": list_inputs,
    "StreamInputs": stream_inputs,
    "GetInputCount": get_input_count,
    "PatchInputs": patch_inputs,
    "DeleteInput": delete_input,
    "DeleteInputs": delete_inputs,
}
