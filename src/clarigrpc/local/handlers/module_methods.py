"""Modules: how often a version is installed, and the keys of installed ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.accounts import user_accounts
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.handlers.kind_handlers import RESOURCES, check_gift, module_key
from clarigrpc.local.service_errors import make_status
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode


def count_module_uses(
    context: Context, request: v2.GetModuleVersionUsageCountRequest
) -> v2.SingleModuleVersionUsageCountResponse:
    resource = RESOURCES["module_version"]
    place = resource.place(context, request)
    version = resource.find(context, place, request.module_version_id)
    uses = 0
    for where in context.state.store.collections("installed_module_version"):
        for row in context.state.store.walk(where):
            used = v2.InstalledModuleVersion.FromString(row.body).module_version
            uses += (used.id, used.module_id, used.app_id, used.user_id) == (
                version.id,
                version.module_id,
                version.app_id,
                version.user_id,
            )
    return v2.SingleModuleVersionUsageCountResponse(
        status=make_status(StatusCode.SUCCESS), usage_count=uses
    )


def post_module_key(
    context: Context, request: v2.PostInstalledModuleVersionsKeyRequest
) -> v2.SingleKeyResponse:
    """A key of the caller for what an installed module does; it is the same at every call."""
    app = context.writable(request.user_app_id)
    resource = RESOURCES["installed_module_version"]
    place = Place(app)
    installed = resource.find(context, place, request.installed_module_version_id)
    row = context.state.store.get(resource.where(place), installed.id)
    if row is not None:
        installed.key_id = v2.InstalledModuleVersion.FromString(row.body).key_id
    keys = RESOURCES["key"]
    owner = Place(UserApp(context.user(v2.UserAppIDSet()), ""))
    key = module_key(context, place, installed)
    if key is None:
        # It can do what the one can who asks for it.
        rights = context.caller.rights
        scopes = ["All"] if rights.scopes is None else sorted(rights.scopes)
        wanted = v2.Key(type=user_accounts.API_KEY, scopes=scopes, description=installed.id)
        wanted.endpoints.extend(sorted(rights.endpoints))
        wanted.apps.add(id=app.app_id)
        with context.state.store.transaction():
            key = keys.add(context, owner, wanted)
            installed.key_id = key.id
            resource.save(context, place, installed)
    check_gift(context, app, key)
    return v2.SingleKeyResponse(status=make_status(StatusCode.SUCCESS), key=key)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "GetModuleVersionUsageCount": count_module_uses,
    "PostInstalledModuleVersionsKey": post_module_key,
}
