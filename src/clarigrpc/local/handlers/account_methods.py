"""Users, scopes, collaborations, and the methods on apps and keys beside the general ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.method_scopes import SCOPES, depending_scopes
from clarigrpc.local.accounts import user_accounts
from clarigrpc.local.engine import patching
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.engine.resource_handlers import Place, relevance
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.handlers.kind_handlers import RESOURCES, shows_key
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode
from clarigrpc.v2._index import METHODS

MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH = 8, 128
"""Lengths that a password may have."""


def get_user(context: Context, request: v2.GetUserRequest) -> v2.SingleUserResponse:
    user_id = request.user_app_id.user_id
    if user_id in ("", "me"):
        user_id = context.caller.user_id
    row = context.state.store.get(user_accounts.USER_COLLECTION, user_id)
    if row is None:
        raise ServiceError(StatusCode.CONN_DOES_NOT_EXIST, f"user {user_id!r} does not exist")
    user = v2.User.FromString(row.body)
    if user_id != context.caller.user_id:
        # To others a user is a name.
        user = v2.User(
            id=user.id, first_name=user.first_name, last_name=user.last_name, image=user.image
        )
    return v2.SingleUserResponse(status=make_status(StatusCode.SUCCESS), user=user)


def my_scopes(context: Context, request: Any) -> v2.MultiScopeResponse:
    caller = context.caller
    response = v2.MultiScopeResponse(
        status=make_status(StatusCode.SUCCESS),
        scopes=["All"] if caller.rights.scopes is None else sorted(caller.rights.scopes),
        endpoints=sorted(caller.rights.endpoints),
    )
    if caller.app_id:
        response.app.CopyFrom(
            RESOURCES["app"].find(context, Place(UserApp(caller.user_id, "")), caller.app_id)
        )
    return response


def list_scopes(context: Context, request: v2.ListScopesRequest) -> v2.MultiScopeDepsResponse:
    if request.key_type not in ("", user_accounts.API_KEY, user_accounts.PAT):
        raise ServiceError(
            StatusCode.CONN_INVALID_REQUEST, f"unknown key type {request.key_type!r}"
        )
    response = v2.MultiScopeDepsResponse(status=make_status(StatusCode.SUCCESS))
    for name, needed in SCOPES.items():
        response.scope_deps.add(scope=name, depending_scopes=sorted(needed))
    for method in METHODS:
        response.endpoint_deps.add(
            endpoint=f"/clarifai.api.V2/{method}", depending_scopes=sorted(depending_scopes(method))
        )
    return response


def list_app_keys(context: Context, request: v2.ListAppKeysRequest) -> v2.MultiKeyResponse:
    app = context.writable(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    resource, place = RESOURCES["key"], Place(UserApp(app.user_id, ""))
    keys = [
        key
        for key in resource.walk(context, place)
        if app.app_id in {named.id for named in key.apps} and shows_key(context, place, key)
    ]
    return v2.MultiKeyResponse(
        status=make_status(StatusCode.SUCCESS), keys=keys[offset : offset + limit]
    )


def patch_app(context: Context, request: v2.PatchAppRequest) -> v2.SingleAppResponse:
    context.user(request.user_app_id, write=True)
    app = v2.App()
    app.CopyFrom(request.app)
    app.id = app.id or request.user_app_id.app_id
    place = RESOURCES["app"].place(context, request, write=True)
    changed = _patch_app(context, place, app, request)
    return v2.SingleAppResponse(status=make_status(StatusCode.SUCCESS), app=changed)


def patch_apps(context: Context, request: Any) -> v2.MultiAppResponse:
    place = RESOURCES["app"].place(context, request, write=True)
    response = v2.MultiAppResponse(status=make_status(StatusCode.SUCCESS))
    if not request.apps:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "the request has no apps")
    with context.state.store.transaction():
        for app in request.apps:
            response.apps.append(_patch_app(context, place, app, request))
    return response


def _patch_app(context: Context, place: Place, app: v2.App, request: Any) -> v2.App:
    patching.check_action(request.action)
    own = getattr(request, "metadata_action", None)
    if own is None or not own.op or not app.HasField("metadata"):
        return RESOURCES["app"].change(context, place, app, request.action)  # type: ignore[no-any-return]
    # The metadata has an action of its own.
    op = own.op.lower()
    patching.check_action(op)
    rest = v2.App()
    rest.CopyFrom(app)
    rest.ClearField("metadata")
    RESOURCES["app"].change(context, place, rest, request.action)
    return RESOURCES["app"].change(  # type: ignore[no-any-return]
        context, place, v2.App(id=app.id, metadata=app.metadata), op
    )


def _patch_ids(name: str) -> Callable[[Context, Any], Message]:
    def patch_ids(context: Context, request: Any) -> Message:
        resource = RESOURCES[name]
        place = resource.place(context, request, write=True)
        if request.action != "overwrite":
            raise ServiceError(
                resource.kind.invalid, f"action is {request.action!r}; it must be overwrite"
            )
        if not request.ids:
            raise ServiceError(resource.kind.invalid, "the request has no ids")
        with context.state.store.transaction():
            done = [resource.rename(context, place, pair.id, pair.new_id) for pair in request.ids]
        return resource.answer(context, done)  # type: ignore[no-any-return]

    return patch_ids


def search_apps(context: Context, request: v2.PostAppsSearchesRequest) -> v2.MultiAppResponse:
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    resource = RESOURCES["app"]
    place = resource.place(context, request)
    visible = resource.only(context, request)
    found = [
        app
        for app in resource.walk(context, place)
        if all(test(app) for test in visible)
        and (not request.app_query.name or relevance(app, request.app_query.name))
    ]
    return v2.MultiAppResponse(
        status=make_status(StatusCode.SUCCESS), apps=found[offset : offset + limit]
    )


def delete_collaborators(
    context: Context, request: v2.DeleteCollaboratorsRequest
) -> v2.BaseResponse:
    app = context.writable(request.user_app_id)
    resource = RESOURCES["collaborator"]
    place = Place(app)
    ids = list(request.collaborator_ids)
    emails = set(request.user_emails)
    ids += [c.id for c in resource.walk(context, place) if c.user.primary_email in emails]
    if not ids:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "the request names no collaborators")
    gone = [i for i in ids if resource.remove(context, place, i)]
    if not gone:
        raise resource.no(ids[0])
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


def list_collaborations(
    context: Context, request: v2.ListCollaborationsRequest
) -> v2.MultiCollaborationsResponse:
    me = context.user(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    found = []
    for where in context.state.store.collections("collaborator"):
        for row in context.state.store.walk(where):
            entry = v2.Collaborator.FromString(row.body)
            app = context.state.store.get(user_accounts.apps_of(where.user_id), where.app_id)
            if entry.user.id != me or app is None:
                continue
            shared = v2.App.FromString(app.body)
            if request.template_only and not shared.is_template.value:
                continue
            found.append(
                v2.Collaboration(
                    app=shared,
                    app_owner=v2.User(id=where.user_id),
                    scopes=entry.scopes,
                    endpoints=entry.endpoints,
                    created_at=entry.created_at,
                )
            )
    return v2.MultiCollaborationsResponse(
        status=make_status(StatusCode.SUCCESS), collaborations=found[offset : offset + limit]
    )


def validate_password(
    context: Context, request: v2.PostValidatePasswordRequest
) -> v2.SinglePasswordValidationResponse:
    """Checks against the rules of this server: length, kinds of characters, no name or email."""
    text = request.password.plaintext
    row = context.state.store.get(user_accounts.USER_COLLECTION, context.caller.user_id)
    user = v2.User.FromString(row.body) if row is not None else v2.User()
    names = [name.lower() for name in (user.first_name, user.last_name, user.id) if name]
    broken = v2.PasswordViolations(
        minimum_length=len(text) < MIN_PASSWORD_LENGTH,
        maximum_length=len(text) > MAX_PASSWORD_LENGTH,
        upper_case_needed=not any(c.isupper() for c in text),
        lower_case_needed=not any(c.islower() for c in text),
        numeric_needed=not any(c.isdigit() for c in text),
        non_alphanumeric_needed=text.isalnum() or not text,
        exclude_names=any(name in text.lower() for name in names),
        exclude_email=bool(user.primary_email) and user.primary_email.lower() in text.lower(),
    )
    response = v2.SinglePasswordValidationResponse(status=make_status(StatusCode.SUCCESS))
    if broken.ListFields():
        response.status.CopyFrom(
            make_status(
                StatusCode.PASSWORD_VALIDATION_FAILED,
                "the password violates the rules; see password_violations",
            )
        )
        response.password_violations.CopyFrom(broken)
    return response


def get_resource_counts(
    context: Context, request: v2.GetResourceCountsRequest
) -> v2.GetResourceCountsResponse:
    app = context.readable(request.user_app_id)

    def count(kind: str) -> int:
        resource, place = RESOURCES[kind], Place(app)
        if resource.hides(context, place):
            return sum(1 for _ in resource.walk(context, place))
        return context.state.store.count(resource.where(place))

    return v2.GetResourceCountsResponse(
        status=make_status(StatusCode.SUCCESS),
        datasets=count("dataset"),
        models=len(context.models(app)),
        workflows=count("workflow"),
        inputs=context.state.store.count(StoredCollection.of_app(INPUT_KIND, app)),
        pipelines=count("pipeline"),
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "GetUser": get_user,
    "MyScopes": my_scopes,
    "MyScopesUser": my_scopes,
    "MyScopesRoot": my_scopes,
    "ListScopes": list_scopes,
    "ListAppKeys": list_app_keys,
    "PatchApp": patch_app,
    "PatchApps": patch_apps,
    "PatchAppsDetails": patch_apps,
    "PatchAppsIds": _patch_ids("app"),
    "PatchModelIds": _patch_ids("model"),
    "PatchWorkflowIds": _patch_ids("workflow"),
    "PostAppsSearches": search_apps,
    "DeleteCollaborators": delete_collaborators,
    "ListCollaborations": list_collaborations,
    "PostValidatePassword": validate_password,
    "GetResourceCounts": get_resource_counts,
}
