"""The models that a server has: those inside it, and those that its users made."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from clarigrpc import v2
from clarigrpc.local.models.embedding_classifier import EmbeddingClassifier, Weights
from clarigrpc.local.models.image_crop import IMAGE_CROP_TYPE, image_crop_of
from clarigrpc.local.models.model_runtime import Runtime
from clarigrpc.local.models.model_types import BASES
from clarigrpc.local.resource_facts import is_built, is_public
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import Row, Store, StoredCollection
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode

MODEL_KIND = "model"
VERSION_KIND = "model_version"

_LOADED = 16
"""Trained classifiers that stay in memory."""


@dataclass(frozen=True)
class CatalogEntry:
    """A model with its versions, newest first, and what runs it.

    ``runtime`` is None for models that users made: ``Catalog.runtime`` says what runs a version
    of theirs. ``other_ids`` are further ids that mean the model.
    """

    model: v2.Model
    versions: list[v2.ModelVersion] = field(default_factory=list)
    runtime: Runtime | None = None
    other_ids: tuple[str, ...] = ()

    def version(self, version_id: str) -> v2.ModelVersion | None:
        """The version of that id; the newest for an empty id, None where there is none."""
        if not version_id:
            return self.versions[0] if self.versions else None
        found = [v for v in self.versions if v.id == version_id]
        if not found:
            raise ServiceError(
                StatusCode.MODEL_DOES_NOT_EXIST,
                f"model {self.model.id!r} has no version {version_id!r}",
            )
        return found[0]

    def public(self) -> CatalogEntry | None:
        """What strangers see of the model: the public ones of its versions, or nothing."""
        if not is_public(self.model):
            return None
        return replace(self, versions=[v for v in self.versions if is_public(v)])

    def described(self, version: v2.ModelVersion | None) -> v2.Model:
        """The model with one of its versions in it."""
        model = v2.Model()
        model.CopyFrom(self.model)
        model.version_count = len(self.versions)
        if version is not None:
            model.model_version.CopyFrom(version)
        return model


def builtin(
    app: UserApp,
    model: v2.Model,
    runtime: Runtime,
    *,
    other_ids: tuple[str, ...] = (),
    version_ids: tuple[str, ...] = (),
) -> CatalogEntry:
    """An entry for a model inside the server; its versions are trained and keep their ids.

    Args:
        app: Where it is.
        model: The model, with what is said of its versions in ``model_version``.
        runtime: Runs each of them.
        other_ids: Further ids that mean the model.
        version_ids: Ids of versions, newest first; without any there is one, of this server.
    """
    model.user_id, model.app_id = app.user_id, app.app_id
    version = v2.ModelVersion(
        status=make_status(StatusCode.MODEL_TRAINED), user_id=app.user_id, app_id=app.app_id
    )
    version.visibility.CopyFrom(model.visibility)
    version.output_info.CopyFrom(model.model_version.output_info)
    version.method_signatures.extend(model.model_version.method_signatures)
    model.ClearField("model_version")
    for stamp in (model.created_at, model.modified_at, version.created_at):
        stamp.GetCurrentTime()
    versions = []
    for version_id in version_ids or (own_version_id(app, model.id),):
        version.id = version_id
        versions.append(v2.ModelVersion.FromString(version.SerializeToString()))
    return CatalogEntry(model, versions, runtime, other_ids)


def own_version_id(app: UserApp, model_id: str) -> str:
    """The id of the version that this server makes of a model; always the same."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"clarigrpc:{app}:{model_id}").hex


class Catalog:
    """Finds models.

    Args:
        store: Where models that users made are kept.
        entries: Models inside the server.
        build_seconds: How long an uploaded version is being built.
    """

    def __init__(self, store: Store, entries: Iterable[CatalogEntry], build_seconds: float) -> None:
        self._store = store
        self._build_seconds = build_seconds
        self._builtin: dict[tuple[str, str, str], CatalogEntry] = {}
        self._other_ids: dict[tuple[str, str, str], str] = {}
        for entry in entries:
            app = UserApp(entry.model.user_id, entry.model.app_id)
            self._builtin[app.user_id, app.app_id, entry.model.id] = entry
            self.name_also(app, entry.model.id, entry.other_ids)
        # What runs versions of stored models, by app, model and version.
        self._given: dict[tuple[UserApp, str, str], Runtime] = {}
        # Not held while the store is read, whose transactions ask for models, too.
        self._lock = threading.Lock()
        self._loaded: OrderedDict[int, Runtime] = OrderedDict()
        store.when_undone(self._loaded.clear)

    def find(self, app: UserApp, model_id: str, *, only_public: bool = False) -> CatalogEntry:
        """The model of that id, as strangers see it or whole; ServiceError 21200 without one."""
        model_id = self._other_ids.get((app.user_id, app.app_id, model_id), model_id)
        entry = self._builtin.get((app.user_id, app.app_id, model_id))
        if entry is None:
            row = self._store.get(models_in(app), model_id)
            entry = self._stored(app, row) if row is not None else None
        if entry is not None and only_public:
            entry = entry.public()
        if entry is None:
            details = f"model {model_id!r} does not exist in {app.user_id}/{app.app_id}"
            if self.is_builtin(PUBLIC_APP, model_id):
                details += (
                    f"; for the public one give user_id {PUBLIC_APP.user_id!r} and app_id "
                    f"{PUBLIC_APP.app_id!r}"
                )
            raise ServiceError(StatusCode.MODEL_DOES_NOT_EXIST, details)
        return entry

    def has(self, app: UserApp, model_id: str) -> bool:
        """Whether there is a model of that id."""
        model_id = self._other_ids.get((app.user_id, app.app_id, model_id), model_id)
        return (
            self.is_builtin(app, model_id) or self._store.get(models_in(app), model_id) is not None
        )

    def name_also(self, app: UserApp, model_id: str, other_ids: Iterable[str]) -> None:
        """Lets further ids mean a model.

        Raises:
            ValueError: One of them is a model or means another one.
        """
        for other in other_ids:
            key = (app.user_id, app.app_id, other)
            if self._other_ids.get(key) == model_id:
                continue
            if self.has(app, other):
                raise ValueError(
                    f"{other!r} cannot be an alias of model {model_id!r}: it means another model "
                    f"of {app.user_id}/{app.app_id}"
                )
            self._other_ids[key] = model_id

    def give(self, app: UserApp, model_id: str, version_id: str, runtime: Runtime) -> None:
        """Lets a runtime of the server run a version of a stored model."""
        self._given[app, model_id, version_id] = runtime

    def runtime(self, entry: CatalogEntry, version: v2.ModelVersion) -> Runtime | None:
        """What runs a version; None where nothing here does.

        Raises:
            ServiceError: MODEL_NOT_DEPLOYED (21353) while it is being trained,
                MODEL_INVALID_REQUEST where that failed, MODEL_DOES_NOT_EXIST where its base
                model is gone.
        """
        if entry.runtime is not None:
            return entry.runtime
        app = UserApp(entry.model.user_id, entry.model.app_id)
        given = self._given.get((app, entry.model.id, version.id))
        if given is None and entry.model.model_type_id == IMAGE_CROP_TYPE:
            return image_crop_of(version)
        if given is not None or entry.model.model_type_id not in BASES:
            return given
        code = version.status.code
        if code in (StatusCode.MODEL_QUEUED_FOR_TRAINING, StatusCode.MODEL_TRAINING):
            raise ServiceError(
                StatusCode.MODEL_NOT_DEPLOYED, f"version {version.id!r} is being trained"
            )
        row = self._store.get(versions_of(app, entry.model.id), version.id)
        if row is None:
            return None
        # The place of a version is never another's, unlike its id.
        with self._lock:
            known = self._loaded.get(row.seq)
        runtime = known or self._load(row.seq, version)
        if runtime is not None:
            with self._lock:
                self._loaded[row.seq] = runtime
                self._loaded.move_to_end(row.seq)
                if len(self._loaded) > _LOADED:
                    self._loaded.popitem(last=False)
        return runtime

    def _load(self, seq: int, version: v2.ModelVersion) -> Runtime | None:
        content = self._store.content(seq)
        if content is None:  # of trainable types, too, versions can be uploaded
            return None
        if version.status.code != StatusCode.MODEL_TRAINED:
            raise ServiceError(
                StatusCode.MODEL_INVALID_REQUEST,
                f"version {version.id!r} is not trained: {version.status.details}",
            )
        base = version.input_info.base_embed_model
        base_entry = self.find(UserApp(base.user_id, base.app_id), base.id)
        chosen = base_entry.version(base.model_version.id)
        embedder = self.runtime(base_entry, chosen) if chosen is not None else None
        if embedder is None:
            raise ServiceError(
                StatusCode.MODEL_DOES_NOT_EXIST,
                f"base model {base_entry.model.id!r} of version {version.id!r} cannot run here",
            )
        weights = Weights.from_bytes(content)
        known = {concept.id: concept for concept in version.output_info.data.concepts}
        return EmbeddingClassifier(embedder, weights, [known[i] for i in weights.concepts])

    def all(self, app: UserApp, *, only_public: bool = False) -> list[CatalogEntry]:
        """Every model of an app, as strangers see them or whole."""
        found = [
            entry
            for (user_id, app_id, _), entry in self._builtin.items()
            if (user_id, app_id) == (app.user_id, app.app_id)
        ]
        rows = self._store.page(models_in(app), 0, -1)
        found += [entry for row in rows if (entry := self._stored(app, row)) is not None]
        if only_public:
            return [seen for entry in found if (seen := entry.public()) is not None]
        return found

    def is_builtin(self, app: UserApp, model_id: str) -> bool:
        """Whether the model is inside the server and cannot be changed."""
        key = (app.user_id, app.app_id, model_id)
        return key in self._builtin or (*key[:2], self._other_ids.get(key, "")) in self._builtin

    def _stored(self, app: UserApp, row: Row) -> CatalogEntry | None:
        """A model as it is stored; None where that is damaged."""
        model = self._store.message(v2.Model, row)
        if model is None:
            return None
        rows = self._store.page(versions_of(app, model.id), 0, -1)
        versions = (self._store.message(v2.ModelVersion, row) for row in rows)
        return CatalogEntry(model, [self._as_built(version) for version in versions if version])

    def _as_built(self, version: v2.ModelVersion) -> v2.ModelVersion:
        if version.status.code == StatusCode.MODEL_BUILDING and is_built(
            version.completed_at, self._build_seconds
        ):
            version.status.CopyFrom(make_status(StatusCode.MODEL_TRAINED))
        return version


def models_in(app: UserApp) -> StoredCollection:
    """Where the models of an app are stored."""
    return StoredCollection.of_app(MODEL_KIND, app)


def versions_of(app: UserApp, model_id: str) -> StoredCollection:
    """Where the versions of a model are stored."""
    return StoredCollection.of_app(VERSION_KIND, app, model_id)
