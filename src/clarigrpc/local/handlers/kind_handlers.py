"""The kinds of resources that have logic of their own, and ``RESOURCES``: all kinds by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.method_scopes import SCOPES
from clarigrpc.local.accounts import user_accounts
from clarigrpc.local.accounts.principal import Rights, is_endpoint
from clarigrpc.local.engine import (
    dataset_membership,
    input_level_annotations,
    patching,
    remote_models,
)
from clarigrpc.local.engine.app_concepts import AppConcepts
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.dataset_snapshots import SNAPSHOT_KINDS
from clarigrpc.local.engine.model_catalog import CatalogEntry
from clarigrpc.local.engine.resource_handlers import (
    Handler,
    Place,
    ResourceHandlers,
    build,
    nested_place,
)
from clarigrpc.local.engine.resource_kinds import nodepools_of
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.resource_facts import is_built, new_id
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import PARENT_SEPARATOR, Row, StoredCollection
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode


class ModelHandlers(ResourceHandlers):
    """Models; those inside the server can be read and not be changed."""

    def check(self, context: Context, place: Place, item: v2.Model) -> None:
        _refuse_builtin(context, place, item.id)
        if item.HasField("model_version") or item.HasField("output_info"):
            raise ServiceError(
                StatusCode.MODEL_INVALID_ARGUMENT,
                "PostModels creates no version: send output_info with PostModelVersions",
            )

    def exists(self, context: Context, place: Place, resource_id: str) -> bool:
        # The catalog's failure is the right one.
        context.model(place.app, resource_id)
        return True

    def find(self, context: Context, place: Place, resource_id: str) -> v2.Model:
        return _described(context.model(place.app, resource_id))

    def shown(self, context: Context, place: Place, row: Row) -> v2.Model:
        return self.find(context, place, row.id)

    def change(self, context: Context, place: Place, change: Any, action: str) -> Any:
        _refuse_builtin(context, place, change.id)
        return super().change(context, place, change, action)

    def changed(
        self, context: Context, place: Place, change: v2.Model, action: str, item: Any
    ) -> None:
        if change.HasField("model_version") or change.HasField("output_info"):
            raise ServiceError(
                StatusCode.MODEL_INVALID_ARGUMENT,
                "PatchModels does not change versions: use PatchModelVersions",
            )

    def remove(self, context: Context, place: Place, resource_id: str) -> bool:
        _refuse_builtin(context, place, resource_id)
        return super().remove(context, place, resource_id)

    def rename(self, context: Context, place: Place, old: str, new: str) -> Any:
        _refuse_builtin(context, place, old)
        _refuse_builtin(context, place, new)
        return super().rename(context, place, old, new)


class UploadedVersionHandlers(ResourceHandlers):
    """Versions whose content was uploaded; the file goes with them."""

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        _delete_upload(context, self.where(place), resource_id)

    def emptied(self, context: Context, where: StoredCollection) -> None:
        for row in context.state.store.walk(where):
            _delete_upload(context, where, row.id)


def _delete_upload(context: Context, where: StoredCollection, resource_id: str) -> None:
    """Deletes what was uploaded for a resource, once the resource itself is gone for good."""
    uploads = context.state.uploads
    path = uploads.path(*where, resource_id)
    context.state.store.after_commit(partial(uploads.delete, path))


class PipelineStepVersionHandlers(UploadedVersionHandlers):
    """Versions of steps of pipelines; what is built becomes ready by the passing of time."""

    def show(self, context: Context, place: Place, item: v2.PipelineStepVersion) -> None:
        if item.status.code == StatusCode.PIPELINE_STEP_BUILDING and is_built(
            item.modified_at, context.state.build_seconds
        ):
            item.status.CopyFrom(make_status(StatusCode.PIPELINE_STEP_READY, item.status.details))


_OF_TRAINING = (
    "input_info",
    "train_info",
    "metrics",
    "train_log",
    "total_input_count",
    "active_concept_count",
    "completed_at",
)
"""What a version was trained from, and what came of it."""


VERSION_METRICS_KIND = "version_metrics"
"""How well versions of models do, by the ids of the versions."""


def metrics_of_versions(app: UserApp, model_id: str) -> StoredCollection:
    """Where the metrics of the versions of a model are kept."""
    return StoredCollection.of_app(VERSION_METRICS_KIND, app, model_id)


class ModelVersionHandlers(UploadedVersionHandlers):
    """Versions of models; the catalog knows when one has been built."""

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        super().deleted(context, place, resource_id)
        where = metrics_of_versions(place.app, place.parents[0])
        context.state.store.delete(where, resource_id)

    def emptied(self, context: Context, where: StoredCollection) -> None:
        super().emptied(context, where)
        context.state.store.clear(metrics_of_versions(where.app, where.parent))

    def exists(self, context: Context, place: Place, resource_id: str) -> bool:
        entry = context.model(place.app, place.parents[0])
        return entry.version(resource_id) is not None

    def shown(self, context: Context, place: Place, row: Row) -> v2.ModelVersion:
        entry = context.model(place.app, place.parents[0])
        version = entry.version(row.id)
        assert version is not None
        return version

    def change(self, context: Context, place: Place, change: Any, action: str) -> Any:
        _refuse_builtin(context, place, place.parents[0])
        return super().change(context, place, change, action)

    def changed(
        self, context: Context, place: Place, change: v2.ModelVersion, action: str, item: Any
    ) -> None:
        if change.output_info.data.concepts:
            raise ServiceError(
                StatusCode.MODEL_INVALID_ARGUMENT, "the concepts of a version cannot be patched"
            )
        fixed = [field.name for field, _ in change.ListFields() if field.name in _OF_TRAINING]
        if fixed:
            raise ServiceError(
                StatusCode.MODEL_INVALID_ARGUMENT,
                f"{', '.join(fixed)} of a version cannot be patched",
            )
        # To replace or remove the settings of outputs is to leave the concepts.
        before = self._stored(context, place, item.id)
        if before.output_info.data.concepts:
            item.output_info.data.CopyFrom(before.output_info.data)

    def remove(self, context: Context, place: Place, resource_id: str) -> bool:
        _refuse_builtin(context, place, place.parents[0])
        return super().remove(context, place, resource_id)


def _described(entry: CatalogEntry) -> v2.Model:
    return entry.described(entry.version(""))


def _refuse_builtin(context: Context, place: Place, model_id: str) -> None:
    if context.state.catalog.is_builtin(place.app, model_id):
        raise ServiceError(
            StatusCode.MODEL_PERMISSION_DENIED,
            f"model {model_id!r} is built into the server and cannot be changed",
        )


class ConceptHandlers(ResourceHandlers):
    """Concepts of an app. Its inputs name some that nobody has described."""

    def check(self, context: Context, place: Place, item: v2.Concept) -> None:
        item.name = item.name or item.id
        item.language = item.language or "en"
        item.ClearField("value")
        item.user_id = place.app.user_id

    def show(self, context: Context, place: Place, item: v2.Concept) -> None:
        # As in the responses that the tests of the service's C# client recorded.
        item.value = 1

    # The public app has those of the vocabulary besides.

    def find(self, context: Context, place: Place, resource_id: str) -> v2.Concept:
        try:
            found: v2.Concept = super().find(context, place, resource_id)
        except ServiceError:
            known = _in_vocabulary(context, place, resource_id)
            if known is None:
                raise
            return known
        return found

    def exists(self, context: Context, place: Place, resource_id: str) -> bool:
        known = super().exists(context, place, resource_id)
        return known or _in_vocabulary(context, place, resource_id) is not None

    def walk(self, context: Context, place: Place) -> Iterator[v2.Concept]:
        yield from super().walk(context, place)
        if place.app == PUBLIC_APP:
            yield from context.state.vocabulary.concepts()

    def only(self, context: Context, request: Any) -> list[Callable[[Any], bool]]:
        # With a condition, a page is of what ``walk`` finds.
        return [lambda item: True] if self.place(context, request).app == PUBLIC_APP else []


def _in_vocabulary(context: Context, place: Place, concept_id: str) -> v2.Concept | None:
    return context.state.vocabulary.find(concept_id) if place.app == PUBLIC_APP else None


class ConceptLanguageHandlers(ResourceHandlers):
    """Names of a concept, one a language; the language is the id."""

    def find(self, context: Context, place: Place, resource_id: str) -> v2.ConceptLanguage:
        try:
            found: v2.ConceptLanguage = super().find(context, place, resource_id)
        except ServiceError:
            for known in self._known(context, place):
                if known.id == resource_id:
                    return known
            raise
        return found

    def exists(self, context: Context, place: Place, resource_id: str) -> bool:
        return super().exists(context, place, resource_id) or any(
            known.id == resource_id for known in self._known(context, place)
        )

    def walk(self, context: Context, place: Place) -> Iterator[v2.ConceptLanguage]:
        yield from super().walk(context, place)
        yield from self._known(context, place)

    def only(self, context: Context, request: Any) -> list[Callable[[Any], bool]]:
        # With a condition, a page is of what ``walk`` finds.
        return [lambda item: True] if self.place(context, request).app == PUBLIC_APP else []

    def _known(self, context: Context, place: Place) -> Iterator[v2.ConceptLanguage]:
        """What the vocabulary of the public app has."""
        if place.app == PUBLIC_APP:
            yield from context.state.vocabulary.translations(place.parents[0])

    def check(self, context: Context, place: Place, item: v2.ConceptLanguage) -> None:
        if not item.name:
            raise ServiceError(self.kind.invalid, "a concept language needs a name")


class ConceptRelationHandlers(ResourceHandlers):
    """Relations between concepts of an app."""

    def check(self, context: Context, place: Place, item: v2.ConceptRelation) -> None:
        if not (item.subject_concept.id and item.object_concept.id and item.predicate):
            raise ServiceError(self.kind.invalid, "a relation needs two concepts and a predicate")
        for concept in (item.subject_concept, item.object_concept):
            if not RESOURCES["concept"].exists(context, place, concept.id):
                raise RESOURCES["concept"].no(concept.id)
        if context.state.store.has_key(self.where(place), self.key(item)):
            raise ServiceError(self.kind.duplicate, "this relation already exists")

    def key(self, item: Any) -> str:
        parts = (item.subject_concept.id, item.predicate, item.object_concept.id)
        return PARENT_SEPARATOR.join(parts)


class _OfInputHandlers(ResourceHandlers):
    """What belongs to an input, which never changes."""

    def key(self, item: Any) -> str | None:
        return str(item.input_id)

    def check(self, context: Context, place: Place, item: Any) -> None:
        inputs = StoredCollection.of_app(INPUT_KIND, place.app)
        if context.state.store.get(inputs, item.input_id) is None:
            raise ServiceError(
                StatusCode.INPUT_DOES_NOT_EXIST, f"input {item.input_id!r} does not exist"
            )

    def changed(self, context: Context, place: Place, change: Any, action: str, item: Any) -> None:
        if change.input_id and change.input_id != item.input_id:
            raise ServiceError(self.kind.invalid, "input_id of an annotation cannot be changed")


class AnnotationHandlers(_OfInputHandlers):
    """What people or models say of inputs.

    The annotation that an input has of itself is found, changed and kept by its id as well.
    """

    def check(self, context: Context, place: Place, item: v2.Annotation) -> None:
        super().check(context, place, item)
        if input_level_annotations.input_id_of(item.id):
            raise ServiceError(self.kind.invalid, f"ids like {item.id!r} are those of inputs' own")
        item.input_level = False
        self._complete(context, place, item)

    def changed(
        self, context: Context, place: Place, change: v2.Annotation, action: str, item: Any
    ) -> None:
        super().changed(context, place, change, action, item)
        regions = change.data.regions
        if action == "merge" and regions and not any(region.id for region in regions):
            # They are new places of the annotation, not more of them.
            del item.data.regions[:]
            item.data.regions.extend(regions)
        if item.input_level and input_level_annotations.changes_more_than_labels(change):
            raise ServiceError(
                self.kind.invalid,
                "the local server changes only the labels of an input's own annotation",
            )
        self._complete(context, place, item)

    def find(self, context: Context, place: Place, resource_id: str) -> v2.Annotation:
        own = self._own_of(context, place, resource_id)
        return own if own is not None else super().find(context, place, resource_id)

    def save(self, context: Context, place: Place, item: v2.Annotation) -> None:
        if not item.input_level:
            super().save(context, place, item)
            return
        row = self._input_row(context, place, item.id)
        if row is None:
            raise self.no(item.id)
        kept = v2.Input.FromString(row.body)
        input_level_annotations.take_labels(kept, item)
        kept.modified_at.GetCurrentTime()
        context.state.store.update(row.seq, kept.SerializeToString(), row.status)

    def remove(self, context: Context, place: Place, resource_id: str) -> bool:
        if self._input_row(context, place, resource_id) is not None:
            raise ServiceError(
                self.kind.invalid, "an input's own annotation is deleted with the input"
            )
        return super().remove(context, place, resource_id)

    def _stored(self, context: Context, place: Place, resource_id: str) -> Any:
        own = self._own_of(context, place, resource_id)
        return own if own is not None else super()._stored(context, place, resource_id)

    def _own_of(self, context: Context, place: Place, resource_id: str) -> v2.Annotation | None:
        """The annotation of that id, where it is one that an input has of itself."""
        row = self._input_row(context, place, resource_id)
        if row is None:
            return None
        item = v2.Input.FromString(row.body)
        return input_level_annotations.own_annotation(item, place.app)

    def _input_row(self, context: Context, place: Place, resource_id: str) -> Row | None:
        input_id = input_level_annotations.input_id_of(resource_id)
        if not input_id:
            return None
        return context.state.store.get(StoredCollection.of_app(INPUT_KIND, place.app), input_id)

    def _complete(self, context: Context, place: Place, item: v2.Annotation) -> None:
        AppConcepts(context.state.store, place.app).complete(item.data, self.kind.invalid)
        for region in item.data.regions:
            region.id = region.id or new_id()


_INPUTS_AT_ONCE = 128
"""Inputs that are changed in one transaction; other calls wait for it."""


class DatasetHandlers(ResourceHandlers):
    """Sets of inputs. Deleting one leaves its inputs."""

    def delete(self, context: Context, request: Any) -> Message:
        place = self.place(context, request, write=True)
        if not getattr(request, "delete_all", False):
            for dataset_id in self._ids(request):
                self._empty(context, place, dataset_id)
        return super().delete(context, request)

    def _empty(self, context: Context, place: Place, dataset_id: str) -> None:
        """Takes most inputs out, each of which changes; other calls run in between."""
        store, members = context.state.store, dataset_membership.members_of(place.app, dataset_id)
        full = True
        while full:
            with store.transaction():
                rows = store.page(members, 0, _INPUTS_AT_ONCE)
                full = len(rows) == _INPUTS_AT_ONCE
                for row in rows if full else ():
                    if not dataset_membership.leave(store, place.app, dataset_id, row.id):
                        store.delete(members, row.id)  # only one of the two knows of the other

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        store, app = context.state.store, place.app
        for row in store.walk(dataset_membership.members_of(app, resource_id)):
            dataset_membership.leave(store, app, resource_id, row.id)
        for kind in (*SNAPSHOT_KINDS, "dataset_export"):
            for nested in store.collections(kind, app.user_id, app.app_id, resource_id):
                store.clear(nested)


class DatasetVersionHandlers(ResourceHandlers):
    """What a dataset was at a time."""

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        store, app = context.state.store, place.app
        parent = PARENT_SEPARATOR.join((*place.parents, resource_id))
        for kind in SNAPSHOT_KINDS:
            store.clear(StoredCollection.of_app(kind, app, parent))


class WorkflowHandlers(ResourceHandlers):
    """Graphs of models. The nodes are those of the newest version; a change makes a new one."""

    def check(self, context: Context, place: Place, item: v2.Workflow) -> None:
        check_graph(context, place.app, item.nodes)
        del item.nodes[:]

    def added(self, context: Context, place: Place, given: v2.Workflow, item: Any) -> None:
        self._add_version(context, place, item, given.nodes)

    def changed(
        self, context: Context, place: Place, change: v2.Workflow, action: str, item: Any
    ) -> None:
        del item.nodes[:]
        if not change.nodes:
            return
        graph = self._graph(context, place, item.id)
        patching.patch(graph, v2.Workflow(nodes=change.nodes), action)
        check_graph(context, place.app, graph.nodes)
        self._add_version(context, place, item, graph.nodes)

    def show(self, context: Context, place: Place, item: v2.Workflow) -> None:
        item.nodes.extend(item.version.nodes)

    def _graph(self, context: Context, place: Place, workflow_id: str) -> v2.Workflow:
        """The newest graph as it was given: without versions that nobody named."""
        where = RESOURCES["workflow_version"].where(nested_place(place, workflow_id))
        rows = context.state.store.page(where, 0, 1)
        return v2.Workflow(nodes=v2.WorkflowVersion.FromString(rows[0].body).nodes if rows else [])

    def _add_version(self, context: Context, place: Place, item: Any, nodes: Any) -> None:
        version = v2.WorkflowVersion(nodes=nodes, visibility=item.visibility)
        RESOURCES["workflow_version"].add(context, nested_place(place, item.id), version)


class WorkflowVersionHandlers(ResourceHandlers):
    """Graphs as they were at a time. A node may leave the version of its model to the newest."""

    def show(self, context: Context, place: Place, item: v2.WorkflowVersion) -> None:
        # As the service shows it: every model in full, with the version that is used now.
        for node in item.nodes:
            model = node.model
            if model.model_version.id and model.user_id:
                continue
            with suppress(ServiceError):  # the model may have gone since
                app, entry = context.named_model(model, place.app)
                model.user_id, model.app_id = app.user_id, app.app_id
                newest = entry.version(model.model_version.id)
                if newest is not None:
                    model.model_version.id = newest.id


def check_graph(context: Context, home: UserApp, nodes: Any) -> None:
    """Refuses a graph with unknown models or nodes, or with a cycle.

    A model that is named by its id alone is one of the workflow's own app.
    """
    if not nodes:
        raise ServiceError(StatusCode.WORKFLOW_INVALID_GRAPH, "the workflow has no nodes")
    ids = [node.id for node in nodes]
    if "" in ids or len(set(ids)) != len(ids):
        raise ServiceError(StatusCode.WORKFLOW_INVALID_GRAPH, "every node needs a unique id")
    before: dict[str, set[str]] = {}
    for node in nodes:
        before[node.id] = {source.node_id for source in node.node_inputs}
        unknown = before[node.id] - set(ids)
        if unknown:
            raise ServiceError(
                StatusCode.WORKFLOW_INVALID_GRAPH,
                f"node {node.id!r} has unknown inputs {sorted(unknown)}",
            )
        app, entry = context.named_model(node.model, home)
        entry.version(node.model.model_version.id)
        node.model.user_id, node.model.app_id = app.user_id, app.app_id
    while before:
        ready = [name for name, sources in before.items() if not sources & before.keys()]
        if not ready:
            raise ServiceError(
                StatusCode.WORKFLOW_INVALID_GRAPH, f"nodes {sorted(before)} form a cycle"
            )
        for name in ready:
            del before[name]


class AppHandlers(ResourceHandlers):
    """Apps of users. Deleting one deletes everything in it."""

    def hides(self, context: Context, place: Place) -> bool:
        return False  # the accounts know who may see an app

    def get(self, context: Context, request: v2.GetAppRequest) -> v2.SingleAppResponse:
        app = context.readable(request.user_app_id)
        found = self.find(context, Place(UserApp(app.user_id, "")), app.app_id)
        return self.answer(context, [found])  # type: ignore[no-any-return]

    def place(self, context: Context, request: Any, *, write: bool = False) -> Place:
        if write:
            return super().place(context, request, write=True)
        # Others' apps can be listed as far as they are open to the caller, see `only`.
        user_id = request.user_app_id.user_id
        return Place(UserApp(context.caller.user_id if user_id in ("", "me") else user_id, ""))

    def only(self, context: Context, request: Any) -> list[Callable[[Any], bool]]:
        user_id = self.place(context, request).app.user_id
        if user_id == context.caller.user_id:
            return []
        visible = set(context.apps_of(user_id))
        return [lambda app: app.id in visible]

    def _id(self, request: Any) -> str:
        # An app is what user_app_id names.
        app_id: str = request.user_app_id.app_id
        if not app_id:
            raise ServiceError(self.kind.invalid, "user_app_id.app_id is empty")
        return app_id

    def check(self, context: Context, place: Place, item: v2.App) -> None:
        item.name = item.name or item.id
        item.user_id = place.app.user_id

    def added(self, context: Context, place: Place, given: Any, item: Any) -> None:
        context.state.accounts.forget()

    def changed(self, context: Context, place: Place, change: Any, action: str, item: Any) -> None:
        context.state.accounts.forget()

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        store = context.state.store
        for inside in store.collections(user_id=place.app.user_id, app_id=resource_id):
            if inside.kind in RESOURCES:
                RESOURCES[inside.kind].emptied(context, inside)
            elif inside.kind == "upload":
                uploads = context.state.uploads
                for row in store.walk(inside):
                    path = uploads.unary_path(inside, row)
                    store.after_commit(partial(uploads.delete, path))
            store.clear(inside)
        for row in store.walk(user_accounts.keys_of(place.app.user_id)):
            if resource_id in {app.id for app in v2.Key.FromString(row.body).apps}:
                store.delete(user_accounts.keys_of(place.app.user_id), row.id)
        context.state.accounts.forget()

    def rename(self, context: Context, place: Place, old: str, new: str) -> Any:
        store = context.state.store
        self._refuse_fixed(context, place, old)
        with store.transaction():
            item = super().rename(context, place, old, new)
            for inside in store.collections(user_id=place.app.user_id, app_id=old):
                store.move(inside, inside._replace(app_id=new))
            keys = user_accounts.keys_of(place.app.user_id)
            for row in store.walk(keys):
                key = v2.Key.FromString(row.body)
                for app in key.apps:
                    app.id = new if app.id == old else app.id
                store.update(row.seq, key.SerializeToString(), 0)
        context.state.accounts.forget()
        return item

    def remove(self, context: Context, place: Place, resource_id: str) -> bool:
        self._refuse_fixed(context, place, resource_id)
        return super().remove(context, place, resource_id)

    def _refuse_fixed(self, context: Context, place: Place, app_id: str) -> None:
        if UserApp(place.app.user_id, app_id) in context.state.accounts.fixed_apps:
            raise ServiceError(
                self.kind.invalid, f"the app {app_id!r} cannot be renamed or deleted"
            )


class KeyHandlers(ResourceHandlers):
    """Keys; the id is the secret, which the server makes."""

    def check(self, context: Context, place: Place, item: v2.Key) -> None:
        item.id = user_accounts.new_secret()
        item.type = item.type or user_accounts.API_KEY
        self._check(context, place, item)

    def changed(self, context: Context, place: Place, change: Any, action: str, item: Any) -> None:
        self._check(context, place, item)
        context.state.accounts.forget()

    def _check(self, context: Context, place: Place, item: v2.Key) -> None:
        if item.type not in (user_accounts.API_KEY, user_accounts.PAT):
            raise ServiceError(
                self.kind.invalid,
                f"type is {item.type!r}; it must be {user_accounts.API_KEY} or {user_accounts.PAT}",
            )
        wanted = 1 if item.type == user_accounts.API_KEY else 0
        if len(item.apps) != wanted:
            raise ServiceError(
                self.kind.invalid, f"a key of type {item.type} must have {wanted} app(s)"
            )
        for app in item.apps:
            if not RESOURCES["app"].exists(context, place, app.id):
                raise RESOURCES["app"].no(app.id)
            app.user_id = place.app.user_id
        check_scopes(item.scopes, item.endpoints)
        check_gift(context, place.app, item)

    def change(self, context: Context, place: Place, change: Any, action: str) -> Any:
        check_gift(context, place.app, self._stored(context, place, change.id))
        return super().change(context, place, change, action)

    def find(self, context: Context, place: Place, resource_id: str) -> v2.Key:
        key: v2.Key = super().find(context, place, resource_id)
        if not shows_key(context, place, key):
            raise self.no(resource_id)
        return key

    def only(self, context: Context, request: Any) -> list[Callable[[Any], bool]]:
        place = self.place(context, request)
        return [lambda key: shows_key(context, place, key)]

    def added(self, context: Context, place: Place, given: Any, item: Any) -> None:
        context.state.accounts.forget()

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        context.state.accounts.forget()


def rights_of(holder: v2.Key | v2.Collaborator) -> Rights:
    """What a key or a collaborator may do."""
    return Rights.of(holder.scopes, holder.endpoints)


def shows_key(context: Context, place: Place, key: v2.Key) -> bool:
    """Whether a caller may see a key, whose id is a secret: if it allows the caller no more."""
    app = UserApp(place.app.user_id, key.apps[0].id) if key.apps else place.app
    return context.may_give(app, rights_of(key))


def check_gift(context: Context, app: UserApp, holder: v2.Key | v2.Collaborator) -> None:
    """Refuses to hand out, or to change, what allows more than the caller is allowed."""
    if not context.may_give(app, rights_of(holder)):
        kind = holder.DESCRIPTOR.name.lower()
        raise ServiceError(
            StatusCode.CONN_INSUFFICIENT_SCOPES,
            f"the scopes and endpoints of the {kind} allow more than the caller may do",
        )


def check_scopes(scopes: Any, endpoints: Any) -> None:
    """Puts scopes into the contract's spelling; refuses unknown scopes and endpoints, and gaps."""
    names = [name.replace(":", "_") for name in scopes]
    scopes[:] = names
    if not names and not endpoints:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "scopes or endpoints are required")
    for name in endpoints:
        if not is_endpoint(name):
            raise ServiceError(StatusCode.CONN_INVALID_REQUEST, f"endpoint {name!r} does not exist")
    for name in names:
        if name not in SCOPES:
            raise ServiceError(StatusCode.CONN_INVALID_REQUEST, f"scope {name!r} does not exist")
        lacking = SCOPES[name] - set(names)
        if lacking and "All" not in names:
            raise ServiceError(
                StatusCode.CONN_INVALID_REQUEST,
                f"scope {name} also requires {', '.join(sorted(lacking))}",
            )


class SecretHandlers(ResourceHandlers):
    """Secrets of a user. The value goes in and never comes out."""

    def check(self, context: Context, place: Place, item: v2.Secret) -> None:
        item.version = 1

    def changed(
        self, context: Context, place: Place, change: v2.Secret, action: str, item: Any
    ) -> None:
        before = self._stored(context, place, item.id)
        item.version = before.version + (item.value != before.value)

    def show(self, context: Context, place: Place, item: v2.Secret) -> None:
        item.ClearField("value")


class CollaboratorHandlers(ResourceHandlers):
    """Users who share an app."""

    def check(self, context: Context, place: Place, item: v2.Collaborator) -> None:
        user = find_user(context, item.user)
        for other in self.walk(context, place):
            if other.user.id == user.id:
                raise ServiceError(self.kind.duplicate, f"{user.id} is already a collaborator")
        if user.id == place.app.user_id:
            raise ServiceError(self.kind.invalid, "the owner of an app cannot be its collaborator")
        check_scopes(item.scopes, item.endpoints)
        check_gift(context, place.app, item)
        item.user.Clear()
        item.user.id, item.user.primary_email = user.id, user.primary_email
        item.ClearField("deleted_at")
        context.state.accounts.forget()

    def change(self, context: Context, place: Place, change: Any, action: str) -> Any:
        check_gift(context, place.app, self._stored(context, place, change.id))
        return super().change(context, place, change, action)

    def changed(self, context: Context, place: Place, change: Any, action: str, item: Any) -> None:
        item.user.CopyFrom(self._stored(context, place, item.id).user)
        check_scopes(item.scopes, item.endpoints)
        check_gift(context, place.app, item)
        context.state.accounts.forget()

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        context.state.accounts.forget()

    def show(self, context: Context, place: Place, item: v2.Collaborator) -> None:
        item.app.id, item.app.user_id = place.app.app_id, place.app.user_id


def find_user(context: Context, wanted: v2.User) -> v2.User:
    """The user with that id or one of those email addresses."""
    emails = {wanted.primary_email, *(entry.email for entry in wanted.email_addresses)} - {""}
    for row in context.state.store.walk(user_accounts.USER_COLLECTION):
        user = v2.User.FromString(row.body)
        theirs = {user.primary_email, *(entry.email for entry in user.email_addresses)}
        if (wanted.id and user.id == wanted.id) or (not wanted.id and emails & theirs):
            return user
    name = wanted.id or ", ".join(sorted(emails))
    raise ServiceError(StatusCode.CONN_DOES_NOT_EXIST, f"user {name!r} does not exist")


class NodepoolHandlers(ResourceHandlers):
    """Nodepools of a compute cluster."""

    def show(self, context: Context, place: Place, item: v2.Nodepool) -> None:
        parent = Place(place.app)
        cluster = RESOURCES["compute_cluster"].find(context, parent, place.parents[0])
        item.compute_cluster.CopyFrom(cluster)


class RunnerHandlers(ResourceHandlers):
    """Runners; their processes are the user's own, and come and go as they like."""

    def show(self, context: Context, place: Place, item: v2.Runner) -> None:
        counts = context.state.runners.counts((place.app.user_id, item.id))
        item.runner_metrics.Clear()
        item.runner_metrics.pods_running = counts.running
        item.runner_metrics.pods_total = counts.total
        item.runner_metrics.total_pods_running_time_s = int(counts.seconds)

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        runner = (place.app.user_id, resource_id)
        context.state.store.after_commit(lambda: context.state.runners.forget(runner))


class DeploymentHandlers(ResourceHandlers):
    """Deployments of models on nodepools; the runners of a nodepool serve them.

    The server starts nothing: a deployment is served once a runner of its model comes.
    """

    def check(self, context: Context, place: Place, item: v2.Deployment) -> None:
        for cluster_id, pool_id in nodepools_of(item):
            if not RESOURCES["nodepool"].exists(context, nested_place(place, cluster_id), pool_id):
                raise RESOURCES["nodepool"].no(pool_id)
        if item.HasField("desired_worker") and not item.HasField("worker"):
            item.worker.CopyFrom(item.desired_worker)
        item.desired_worker.CopyFrom(item.worker)

    def patch(self, context: Context, request: v2.PatchDeploymentsRequest) -> Message:
        if request.action != "overwrite":
            raise ServiceError(
                self.kind.invalid, f"Invalid action: Unrecognized action {request.action!r}"
            )
        return super().patch(context, request)

    def changed(
        self, context: Context, place: Place, change: Any, action: str, item: v2.Deployment
    ) -> None:
        # ``worker`` is what serves: it follows the desired one, and cannot be set.
        if not change.HasField("desired_worker"):
            item.desired_worker.CopyFrom(self._stored(context, place, item.id).worker)
        item.worker.CopyFrom(item.desired_worker)

    def show(self, context: Context, place: Place, item: v2.Deployment) -> None:
        metrics = item.deployment_metrics
        metrics.Clear()
        model = item.worker.model
        runners = remote_models.runners_of(context, place.app.user_id, model) if model.id else []
        for cluster_id, pool_id in sorted(set(nodepools_of(item))):
            pool = metrics.nodepool_metrics.add(
                compute_cluster_id=cluster_id, nodepool_id=pool_id
            ).metrics
            for runner in runners:
                nodepool = runner.nodepool
                if (nodepool.compute_cluster.id, nodepool.id) == (cluster_id, pool_id):
                    counts = context.state.runners.counts((place.app.user_id, runner.id))
                    pool.live_replicas += counts.running
                    pool.desired_replicas += runner.num_replicas
        total = metrics.aggregate
        for each in metrics.nodepool_metrics:
            total.live_replicas += each.metrics.live_replicas
            total.desired_replicas += each.metrics.desired_replicas
        least = item.autoscale_config.min_replicas
        total.desired_replicas = max(total.desired_replicas, least)
        metrics.live_replicas = total.live_replicas
        metrics.desired_replicas = total.desired_replicas


class PipelineHandlers(ResourceHandlers):
    """Pipelines; one that comes with a version's content gets that version."""

    def added(self, context: Context, place: Place, given: v2.Pipeline, item: Any) -> None:
        if given.HasField("pipeline_version"):
            RESOURCES["pipeline_version"].add(
                context, nested_place(place, item.id), given.pipeline_version
            )

    def changed(
        self, context: Context, place: Place, change: v2.Pipeline, action: str, item: Any
    ) -> None:
        if change.HasField("pipeline_version"):
            version = RESOURCES["pipeline_version"]
            nested = nested_place(place, item.id)
            if change.pipeline_version.id and version.exists(
                context, nested, change.pipeline_version.id
            ):
                version.change(context, nested, change.pipeline_version, action)
            else:
                version.add(context, nested, change.pipeline_version)


class PipelineVersionRunHandlers(ResourceHandlers):
    """Runs of a pipeline; whoever executes them reports their status, which is logged."""

    def check(self, context: Context, place: Place, item: v2.PipelineVersionRun) -> None:
        item.pipeline_version.id = place.parents[1]
        if not item.orchestration_status.status.code:
            item.orchestration_status.status.code = StatusCode.JOB_QUEUED

    def added(self, context: Context, place: Place, given: Any, item: Any) -> None:
        self._log_status(context, place, item)

    def changed(
        self, context: Context, place: Place, change: v2.PipelineVersionRun, action: str, item: Any
    ) -> None:
        if change.HasField("orchestration_status"):
            self._log_status(context, place, item)

    def _log_status(self, context: Context, place: Place, item: v2.PipelineVersionRun) -> None:
        entry = v2.PipelineVersionRunStatusLog(
            id=new_id(),
            pipeline_version_run_id=item.id,
            status=item.orchestration_status.status,
            triggered_by_user_id=context.caller.user_id,
        )
        RESOURCES["pipeline_version_run_status_log"].add(
            context, nested_place(place, item.id), entry
        )


class ModuleHandlers(ResourceHandlers):
    """Modules; one that comes with a version's content gets that version."""

    def added(self, context: Context, place: Place, given: v2.Module, item: Any) -> None:
        if given.HasField("module_version"):
            RESOURCES["module_version"].add(
                context, nested_place(place, item.id), given.module_version
            )


class InstalledModuleVersionHandlers(ResourceHandlers):
    """Modules that an app uses; the module may be another app's."""

    def check(self, context: Context, place: Place, item: v2.InstalledModuleVersion) -> None:
        wanted = item.module_version
        ids = v2.UserAppIDSet(user_id=wanted.user_id, app_id=wanted.app_id)
        parent = Place(context.readable(ids, method="GetModuleVersion"), (wanted.module_id,))
        found = RESOURCES["module_version"].find(context, parent, wanted.id)
        item.module_version.CopyFrom(found)
        item.ClearField("key_id")  # PostInstalledModuleVersionsKey makes one

    def show(self, context: Context, place: Place, item: v2.InstalledModuleVersion) -> None:
        key = module_key(context, place, item)
        # The id of a key is a secret.
        if key is None or not context.may_give(place.app, rights_of(key)):
            item.ClearField("key_id")


def module_key(
    context: Context, place: Place, installed: v2.InstalledModuleVersion
) -> v2.Key | None:
    """The key for what an installed module does, whether or not the caller may see it."""
    row = context.state.store.get(user_accounts.keys_of(place.app.user_id), installed.key_id)
    return None if row is None else v2.Key.FromString(row.body)


class TaskHandlers(ResourceHandlers):
    """Labelling tasks; lists leave out those of label orders unless asked."""

    def check(self, context: Context, place: Place, item: v2.Task) -> None:
        kind = _KIND_OF_TASK_SOURCE.get(item.input_source.type)
        if kind is None:
            return
        where = StoredCollection.of_app(kind, place.app)
        if context.state.store.get(where, item.input_source.id) is None:
            raise ServiceError(self.kind.invalid, f"{kind} {item.input_source.id!r} does not exist")

    def changed(
        self, context: Context, place: Place, change: Any, action: str, item: v2.Task
    ) -> None:
        self.check(context, place, item)

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        app = place.app
        store = context.state.store
        store.clear(StoredCollection.of_app("task_assignment", app, resource_id))

    def only(self, context: Context, request: Any) -> list[Callable[[Any], bool]]:
        if request.including_label_order_tasks or request.label_order_ids:
            return []
        return [lambda task: not task.label_order_id]


_KIND_OF_TASK_SOURCE = {
    v2.TaskInputSource.SAVED_SEARCH: "search",
    v2.TaskInputSource.DATASET: "dataset",
    v2.TaskInputSource.INPUT: INPUT_KIND,
}


class LabelOrderHandlers(ResourceHandlers):
    """Orders of labelling work; the task of an order is a task of the app."""

    def check(self, context: Context, place: Place, item: v2.LabelOrder) -> None:
        if item.HasField("task"):
            item.task.id = item.task.id or new_id()

    def added(self, context: Context, place: Place, given: Any, item: v2.LabelOrder) -> None:
        if item.HasField("task"):
            item.task.label_order_id = item.id
            RESOURCES["task"].add(context, place, item.task)

    def changed(
        self, context: Context, place: Place, change: v2.LabelOrder, action: str, item: Any
    ) -> None:
        task_id = self._stored(context, place, item.id).task.id
        if not change.HasField("task"):
            return
        change.task.id = item.task.id = task_id or change.task.id or new_id()
        if task_id:
            RESOURCES["task"].change(context, place, change.task, action)
        else:
            self.added(context, place, change, item)

    def deleted(self, context: Context, place: Place, resource_id: str) -> None:
        tasks = RESOURCES["task"]
        for task in list(tasks.walk(context, place)):
            if task.label_order_id == resource_id:
                tasks.remove(context, place, task.id)

    def show(self, context: Context, place: Place, item: v2.LabelOrder) -> None:
        if item.HasField("task") and RESOURCES["task"].exists(context, place, item.task.id):
            item.task.CopyFrom(RESOURCES["task"].find(context, place, item.task.id))


SPECIAL: dict[str, type[ResourceHandlers]] = {
    "annotation": AnnotationHandlers,
    "annotation_track": _OfInputHandlers,
    "artifact_version": UploadedVersionHandlers,
    "app": AppHandlers,
    "collaborator": CollaboratorHandlers,
    "concept": ConceptHandlers,
    "concept_language": ConceptLanguageHandlers,
    "concept_relation": ConceptRelationHandlers,
    "dataset": DatasetHandlers,
    "dataset_version": DatasetVersionHandlers,
    "deployment": DeploymentHandlers,
    "installed_module_version": InstalledModuleVersionHandlers,
    "key": KeyHandlers,
    "label_order": LabelOrderHandlers,
    "model": ModelHandlers,
    "model_version": ModelVersionHandlers,
    "module": ModuleHandlers,
    "nodepool": NodepoolHandlers,
    "pipeline": PipelineHandlers,
    "pipeline_step_version": PipelineStepVersionHandlers,
    "pipeline_version_run": PipelineVersionRunHandlers,
    "runner": RunnerHandlers,
    "secret": SecretHandlers,
    "task": TaskHandlers,
    "workflow": WorkflowHandlers,
    "workflow_version": WorkflowVersionHandlers,
}
RESOURCES = build(SPECIAL)
"""The handlers of every kind of resource, by its name."""

WITHOUT_HOOKS = [resource for resource in RESOURCES.values() if type(resource) is ResourceHandlers]
"""The kinds without logic of their own: they are stored and shown."""


def _handlers() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for resource in RESOURCES.values():
        found |= resource.handlers()
    return found


UNARY = _handlers()
