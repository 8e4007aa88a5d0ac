"""The configuration of a server: resources to create at its start.

YAML or JSON. The objects are the contract's messages in their JSON form, with lists of nested
objects in them::

    users:
      - id: alice                     # fields of User
        first_name: Alice
        pat: alice-secret             # her personal access token
        apps:
          - id: shop                  # fields of App
            keys:                     # fields of Key; the id is the secret
              - id: shop-key
                scopes: [Inputs_Get]
            applications:             # of the first API generation; `model` is optional
              - {id: shop-client, secret: shop-client-secret, model: color-recognition}
            concepts: [{id: cat}]
            datasets: [{id: train}]
            models:                   # runtime, aliases: optional; a built-in model runs it
              - {id: m, model_type_id: any-to-any}
              - {id: tagger, runtime: general-image-recognition, aliases: [old-tagger]}
            workflows:
              - id: colours
                nodes:
                  - id: first
                    model: {id: color-recognition, user_id: clarifai, app_id: main}
    limits:                           # of each user, see ``Limits``
      requests: 10/second; 1000/hour
      inputs: 5000/month
      concurrent: 4

The first user and its first app are the server's default ones. Resources that exist already, in a
data folder from an earlier run, are left as they are. What the public app gets is public unless
its ``visibility`` says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc.local import json_values
from clarigrpc.local.accounts import user_accounts
from clarigrpc.local.accounts.principal import Principal
from clarigrpc.local.engine.builtin_models import PublicNode, builtin_models
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.model_catalog import own_version_id
from clarigrpc.local.engine.resource_handlers import Place, nested_place
from clarigrpc.local.handlers.kind_handlers import RESOURCES, check_scopes
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service.user_limits import Limits
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode

# Of an app, beside its own fields and what ``_KIND_OF_LIST`` has.
_ACCESS = ("keys", "applications")
_KIND_OF_LIST = {
    "concepts": "concept",
    "datasets": "dataset",
    "models": "model",
    "workflows": "workflow",
}
# Of resources, beside the fields of their messages.
_BESIDES = {"model": ("runtime", "aliases")}


class SeededCredentials(NamedTuple):
    """Secrets of a configuration, None for those that it does not have."""

    pat: str | None = None
    api_key: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


class Seed:
    """Users with their apps, keys, concepts, datasets, models and workflows.

    Args:
        content: What the file holds.

    Attributes:
        limits: What each user may do, None where it does not say.

    Raises:
        ValueError: It is not in the form that the module describes.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        if not isinstance(content, Mapping) or set(content) - {"users", "limits"}:
            raise ValueError("the configuration must be an object with the keys users and limits")
        self.limits: Limits | None = Limits.of(content["limits"]) if content.get("limits") else None
        self._users = _entries(content, "users", "users")
        # All is read once before, so that a mistake shows where it is made.
        for user in self._users:
            _message(v2.User, user, ("pat", "apps"))
            for app in _entries(user, "apps", f"user {user['id']}"):
                _message(v2.App, app, (*_ACCESS, *_KIND_OF_LIST))
                for kind, item in _items(app):
                    _message(RESOURCES[kind].cls, item, _BESIDES.get(kind, ()))
                    _check_running(item)
                for application in _applications(app):
                    if (
                        application.keys() - {"id", "secret", "model"}
                        or not all(
                            isinstance(value, str) and value for value in application.values()
                        )
                        or "secret" not in application
                    ):
                        raise ValueError(
                            f"configuration: application {application['id']!r} must have id and "
                            "secret, and may have model, all strings"
                        )
                for key in _keys(app):
                    wanted = _message(v2.Key, key)
                    check_scopes(wanted.scopes or ["All"], wanted.endpoints)

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """From a file, or from what it would hold.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is neither JSON nor YAML, or not in the right form.
        """
        if isinstance(source, Mapping):
            return cls(source)
        content = Path(source).read_bytes()
        import yaml

        try:
            text = content.decode("utf-8-sig")
            found = (
                json.loads(text) if Path(source).suffix == ".json" else yaml.safe_load(text) or {}
            )
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{source}: {error}") from error
        return cls(found)

    def first(self) -> UserApp | None:
        """The first user and its first app; None without."""
        for user in self._users:
            for app in user.get("apps") or ():
                return UserApp(str(user["id"]), str(app["id"]))
        return None

    def credentials_of(self, app: UserApp) -> SeededCredentials:
        """What it says of the secrets of an app and its user, as far as they allow everything."""
        user = next((one for one in self._users if str(one["id"]) == app.user_id), {})
        seeded = next(
            (one for one in user.get("apps") or () if str(one["id"]) == app.app_id), {"id": ""}
        )
        wide = (
            str(key["id"])
            for key in _keys(seeded)
            if not key.get("endpoints") and "All" in (key.get("scopes") or ["All"])
        )
        application = next(iter(_applications(seeded)), {})
        return SeededCredentials(
            str(user.get("pat") or "") or None,
            next(wide, None),
            application.get("id"),
            application.get("secret"),
        )

    def apply(self, state: State) -> None:
        """Puts into the store what is not there yet.

        Raises:
            ValueError: A resource is refused, such as a workflow of unknown models.
        """
        with state.store.transaction():
            for user in self._users:
                self._apply_user(state, user)
            # Once all models are there: an alias may be none of them.
            for user in self._users:
                for app in user.get("apps") or ():
                    _run_models(state, UserApp(str(user["id"]), str(app["id"])), app)
        state.accounts.forget()

    def _apply_user(self, state: State, user: Mapping[str, Any]) -> None:
        message = _message(v2.User, user, ("pat", "apps"))
        state.accounts.put_user(message)
        if user.get("pat"):
            state.accounts.put_key(message.id, v2.Key(id=str(user["pat"]), type=user_accounts.PAT))
        apps = _entries(user, "apps", f"user {message.id}")
        for app in apps:
            state.accounts.put_app(message.id, _message(v2.App, app, (*_ACCESS, *_KIND_OF_LIST)))
        # After all apps are there: workflows may use models of another one.
        for app in apps:
            for key in _keys(app):
                made = _message(v2.Key, key)
                made.type = user_accounts.API_KEY
                made.apps.add(id=str(app["id"]), user_id=message.id)
                state.accounts.put_key(message.id, made)
            for application in _applications(app):
                state.applications.put(
                    UserApp(message.id, str(app["id"])),
                    application["id"],
                    application["secret"],
                    application.get("model", ""),
                )
            call = ServedCall("PostApps", {}, lambda: True, lambda: None)
            context = Context(state, call, Principal(message.id))
            place = Place(UserApp(message.id, str(app["id"])))
            for kind, item in _items(app):
                self._apply_item(context, place, kind, item)

    def _apply_item(
        self, context: Context, place: Place, kind: str, item: Mapping[str, Any]
    ) -> None:
        resource = RESOURCES[kind]
        there = context.state.store.get(resource.where(place), str(item["id"])) is not None
        if there and not (item.get("runtime") and _has_no_version(context, place, item["id"])):
            return
        message = _message(resource.cls, item, _BESIDES.get(kind, ()))
        if place.app == PUBLIC_APP and not message.visibility.gettable:
            message.visibility.gettable = v2.Visibility.PUBLIC
        made = builtin_models()[item["runtime"]] if item.get("runtime") else None
        if made is not None:
            message.model_type_id = message.model_type_id or made.model.model_type_id
        try:
            if not there:
                resource.add(context, place, message)
            if made is not None:
                version = v2.ModelVersion(
                    id=own_version_id(place.app, message.id),
                    status=make_status(StatusCode.MODEL_TRAINED),
                    output_info=made.model.model_version.output_info,
                    visibility=message.visibility,
                )
                RESOURCES["model_version"].add(context, nested_place(place, message.id), version)
        except ServiceError as error:
            raise ValueError(f"configuration: {kind} {item['id']!r}: {error}") from error


def put_workflows(
    state: State, app: UserApp, workflows: Mapping[str, Sequence[PublicNode]], *, wanted: bool
) -> None:
    """Puts public workflows where there are none of their ids.

    Where they are not wanted, those that an earlier start has put are deleted.
    """
    call = ServedCall("PostWorkflows", {}, lambda: True, lambda: None)
    context = Context(state, call, Principal(app.user_id))
    handlers, place = RESOURCES["workflow"], Place(app)
    for workflow_id, nodes in workflows.items():
        models = " and ".join(node.model for node in nodes)
        workflow = v2.Workflow(id=workflow_id, description=f"Local stand-in: runs {models}")
        row = state.store.get(handlers.where(place), workflow_id)
        if row is None and wanted:
            workflow.visibility.gettable = v2.Visibility.PUBLIC
            for node in nodes:
                made = workflow.nodes.add(id=node.id or node.model)
                made.model.id = node.model
                if node.after:
                    made.node_inputs.add(node_id=node.after)
            handlers.add(context, place, workflow)
        if row is not None and not wanted:
            kept = v2.Workflow.FromString(row.body)
            if kept.description == workflow.description:
                handlers.remove(context, place, workflow_id)


def _has_no_version(context: Context, place: Place, model_id: str) -> bool:
    versions = RESOURCES["model_version"]
    return versions.newest(context, nested_place(place, str(model_id))) is None


def _check_running(item: Mapping[str, Any]) -> None:
    """Refuses a runtime that the server does not have, and aliases that are no ids."""
    wanted = item.get("runtime")
    if wanted is not None and wanted not in (known := builtin_models()):
        raise ValueError(
            f"configuration: model {item['id']!r} has the runtime {wanted!r}; known are "
            f"{', '.join(sorted(known))}"
        )
    aliases = item.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(a, str) and a for a in aliases):
        raise ValueError(f"configuration: aliases of model {item['id']!r} must be a list of ids")


def _run_models(state: State, app: UserApp, content: Mapping[str, Any]) -> None:
    """Gives the models of an app their runtimes and aliases, at every start."""
    for item in content.get("models") or ():
        model_id = str(item["id"])
        if item.get("runtime"):
            runtime = builtin_models()[item["runtime"]].runtime
            state.catalog.give(app, model_id, own_version_id(app, model_id), runtime)
        try:
            state.catalog.name_also(app, model_id, item.get("aliases", ()))
        except ValueError as error:
            raise ValueError(f"configuration: {error}") from error


def _entries(parent: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    """A list of objects with ids."""
    entries = parent.get(name) or []
    if not isinstance(entries, list) or not all(
        isinstance(entry, Mapping) and entry.get("id") for entry in entries
    ):
        raise ValueError(f"configuration: {name} of {where} must be a list of objects with ids")
    return entries


def _items(app: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, kind in _KIND_OF_LIST.items():
        for entry in _entries(app, name, f"app {app['id']}"):
            yield kind, entry


def _keys(app: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _entries(app, "keys", f"app {app['id']}")


def _applications(app: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _entries(app, "applications", f"app {app['id']}")


def _message(cls: Any, entry: Mapping[str, Any], besides: tuple[str, ...] = ()) -> Any:
    fields = {name: value for name, value in entry.items() if name not in besides}
    try:
        message = json_format.ParseDict(fields, cls())
        json_values.check(message)
    except (json_format.ParseError, OverflowError, RecursionError, ServiceError) as error:
        raise ValueError(f"configuration: {entry.get('id')!r}: {error}") from error
    return message
