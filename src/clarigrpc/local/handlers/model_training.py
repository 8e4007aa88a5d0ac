"""Versions of models that users make: of trainable types they are trained in the background."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import classifier_training, input_embeddings
from clarigrpc.local.engine.background_tasks import BackgroundTask, Waiting
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.model_catalog import VERSION_KIND, CatalogEntry, versions_of
from clarigrpc.local.engine.request_checks import refuse_other_fields
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, with_content
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.media.media_content import kind_of
from clarigrpc.local.models import negative_images
from clarigrpc.local.models.image_crop import IMAGE_CROP_TYPE, image_crop_of
from clarigrpc.local.models.image_embedding import Vector
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.models.model_types import (
    AUTOMATIC,
    BASES,
    DISABLED,
    ENRICH_DATASET,
    LOGISTIC_REGRESSION,
    MUTUALLY_EXCLUSIVE,
    NUM_EPOCHS,
    STAND_IN_TEMPLATES,
    TEMPLATE,
    TRAINING_DATASET,
    TRAINING_DATASET_VERSION,
)
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import DuplicateIdError, Row, StoredCollection
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode

_logger = logging.getLogger(__name__)

_MEDIUM_OF_MODEL: dict[str, input_embeddings.EmbeddedMedium] = {
    "image-embedding": "image",
    "general-image-embedding": "image",
    "text-embedding": "text",
}
"""Public embedding models whose vectors are kept beside the inputs."""

_PARAMS = {
    ENRICH_DATASET,
    MUTUALLY_EXCLUSIVE,
    TEMPLATE,
    TRAINING_DATASET,
    TRAINING_DATASET_VERSION,
}

_PAUSE_SECONDS = 0.02


class _ServerClosing(Exception):
    """The server closes; the training goes on after its next start."""


def post_model_versions(
    context: Context, request: v2.PostModelVersionsRequest
) -> v2.SingleModelResponse:
    refuse_other_fields(request, ("user_app_id", "model_id", "model_versions", "description"))
    app = context.writable(request.user_app_id)
    entry = context.model(app, request.model_id)
    if context.state.catalog.is_builtin(app, entry.model.id):
        raise ServiceError(
            StatusCode.MODEL_PERMISSION_DENIED,
            f"model {entry.model.id!r} is built into the server and cannot be changed",
        )
    # None asks for one without settings.
    given_versions = list(request.model_versions) or [v2.ModelVersion()]
    if len(given_versions) > MAX_ITEMS:
        raise ServiceError(
            StatusCode.MODEL_INVALID_REQUEST,
            f"the request has {len(given_versions)} versions; the maximum is {MAX_ITEMS}",
        )
    trainable = entry.model.model_type_id in BASES
    prepared = []
    for given in given_versions:
        version = _version(app, given, request.description)
        if entry.model.model_type_id == IMAGE_CROP_TYPE:
            image_crop_of(version)  # refuses settings that cannot be
        served = version.pretrained_model_config.local_dev
        content = _prepare(context, app, entry, version) if trainable and not served else None
        prepared.append((version, content))
    with context.state.store.transaction():
        for version, content in prepared:
            try:
                context.state.store.insert(
                    versions_of(app, entry.model.id),
                    version.id,
                    version.SerializeToString(),
                    status=version.status.code,
                    content=content,
                )
            except DuplicateIdError:
                raise ServiceError(
                    StatusCode.DATABASE_DUPLICATE_KEY, f"version {version.id!r} already exists"
                ) from None
    context.state.background.wake()
    made = context.model(app, entry.model.id)
    return v2.SingleModelResponse(
        status=make_status(StatusCode.SUCCESS), model=made.described(prepared[0][0])
    )


def _version(app: UserApp, given: v2.ModelVersion, description: str) -> v2.ModelVersion:
    """What the version is before anybody trains it: ready, as those that need no training are."""
    # Nothing is uploaded for a model that a runner on the developer's machine serves.
    if given.HasField("pretrained_model_config") and not given.pretrained_model_config.local_dev:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED,
            "pretrained_model_config is supported with local_dev only: use PostModelVersionsUpload",
        )
    version = v2.ModelVersion()
    version.CopyFrom(given)
    for name in ("metrics", "train_log", "completed_at", "total_input_count"):
        version.ClearField(name)
    version.id = given.id or new_id()
    version.user_id, version.app_id = app.user_id, app.app_id
    version.description = given.description or description
    if not version.visibility.gettable:
        version.visibility.gettable = v2.Visibility.PRIVATE
    version.created_at.GetCurrentTime()
    version.modified_at.CopyFrom(version.created_at)
    version.status.CopyFrom(make_status(StatusCode.MODEL_TRAINED))
    for concept in version.output_info.data.concepts:
        concept.id = concept.id or concept.name
        if not concept.id:
            raise ServiceError(StatusCode.MODEL_INVALID_ARGUMENT, "a concept needs an id or a name")
        concept.name = concept.name or concept.id
        concept.user_id, concept.app_id = app.user_id, app.app_id
    return version


# Trainable types


def _prepare(
    context: Context, app: UserApp, entry: CatalogEntry, version: v2.ModelVersion
) -> bytes:
    """Queues a version for training; returns the examples as they are now."""
    _check_settings(entry.model.model_type_id, version)
    dataset = _dataset_of(version.train_info)
    if dataset.id:
        nested = Place(app, (dataset.id,))
        if not RESOURCES["dataset"].exists(context, Place(app), dataset.id):
            raise RESOURCES["dataset"].no(dataset.id)
        if dataset.version.id:
            frozen = RESOURCES["dataset_version"].find(context, nested, dataset.version.id)
            if frozen.status.code != StatusCode.DATASET_VERSION_READY:
                raise ServiceError(
                    StatusCode.MODEL_INVALID_ARGUMENT,
                    f"dataset version {dataset.version.id!r} is not ready",
                )
    found = list(classifier_training.labelled_inputs(context.state.store, app, dataset))
    kinds = {kind_of(one.item.data) for one in found}
    _choose_base(context, app, entry, version, kinds)
    examples = classifier_training.Examples.gather(
        found, (concept.id for concept in version.output_info.data.concepts)
    )
    version.status.CopyFrom(make_status(StatusCode.MODEL_QUEUED_FOR_TRAINING))
    return examples.to_bytes()


def _dataset_of(info: v2.TrainInfo) -> v2.Dataset:
    """What to train on, which the service's SDK names in the parameters; all inputs without one."""
    fields = info.params.fields
    given = [
        fields[key].string_value if key in fields else ""
        for key in (TRAINING_DATASET, TRAINING_DATASET_VERSION)
    ]
    if any(given) and not info.HasField("dataset"):
        info.dataset.id, info.dataset.version.id = given
    return info.dataset


def _check_settings(model_type: str, version: v2.ModelVersion) -> None:
    refuse_other_fields(version.train_info, ("params", "dataset"))
    config = version.output_info.output_config
    refuse_other_fields(
        config,
        (
            "concepts_mutually_exclusive",
            "language",
            "max_concepts",
            "min_value",
            "select_concepts",
            "training_timeout",
            "sample_ms",
            "fail_on_missing_positive_examples",
            "hyper_params",
        ),
    )
    fields = version.train_info.params.fields
    templates = (LOGISTIC_REGRESSION, *STAND_IN_TEMPLATES.get(model_type, ()))
    if TEMPLATE in fields and fields[TEMPLATE].string_value not in templates:
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT, f"{TEMPLATE} must be {' or '.join(templates)}"
        )
    known = _PARAMS | ({NUM_EPOCHS} if _has_stand_in_template(version) else set())
    if unknown := set(fields) - known:
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT,
            f"train_info.params has unknown keys {', '.join(sorted(unknown))}; "
            f"known are {', '.join(sorted(known))}",
        )
    if ENRICH_DATASET in fields and fields[ENRICH_DATASET].string_value not in (
        AUTOMATIC,
        DISABLED,
    ):
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT, f"{ENRICH_DATASET} must be {AUTOMATIC} or {DISABLED}"
        )
    if MUTUALLY_EXCLUSIVE in fields and not fields[MUTUALLY_EXCLUSIVE].HasField("bool_value"):
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT, f"{MUTUALLY_EXCLUSIVE} must be true or false"
        )


def _has_stand_in_template(version: v2.ModelVersion) -> bool:
    fields = version.train_info.params.fields
    return TEMPLATE in fields and fields[TEMPLATE].string_value != LOGISTIC_REGRESSION


def _without_effect(version: v2.ModelVersion) -> list[str]:
    """What the version has of the service's settings that mean nothing for its training here."""
    found = sorted(version.output_info.output_config.hyper_params)
    if found:
        found = [f"hyper_params {', '.join(found)}"]
    if _has_stand_in_template(version):
        fields = version.train_info.params.fields
        found.append(f"template {fields[TEMPLATE].string_value}")
        found += [name for name in (NUM_EPOCHS,) if name in fields]
    return found


def _choose_base(
    context: Context, app: UserApp, entry: CatalogEntry, version: v2.ModelVersion, kinds: set[str]
) -> None:
    """Settles which embedding model the version works on."""
    base = version.input_info.base_embed_model
    if not base.id:
        names = BASES[entry.model.model_type_id]
        base.id = next((name for name in names if _MEDIUM_OF_MODEL[name] in kinds), names[0])
        # Chosen here: it takes no right of the caller to the public app.
        owner, base_entry = PUBLIC_APP, context.state.catalog.find(PUBLIC_APP, base.id)
    else:
        owner, base_entry = context.named_model(base, app)
    chosen = base_entry.version(base.model_version.id)
    if chosen is None or context.state.catalog.runtime(base_entry, chosen) is None:
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT,
            f"the local server cannot run base_embed_model {base.id!r}",
        )
    base.id, base.user_id, base.app_id = base_entry.model.id, owner.user_id, owner.app_id
    base.model_version.id = chosen.id


def _train(state: State, where: StoredCollection, row: Row) -> None:
    """Takes a queued version, or one whose training a restart cut off, to its final status."""
    version = v2.ModelVersion.FromString(row.body)
    weights = None
    try:
        _wait(state)
        version.status.CopyFrom(make_status(StatusCode.MODEL_TRAINING))
        _save(state, row.seq, version)
        _wait(state)
        content = state.store.content(row.seq)
        if content is None:  # deleted meanwhile
            return
        weights = _learn(state, where.app, version, content)
        version.status.CopyFrom(make_status(StatusCode.MODEL_TRAINED))
    except _ServerClosing:
        return
    except ServiceError as error:
        version.status.CopyFrom(error.status())
    except Exception:
        # The thread goes on with other work; the version says that it failed.
        _logger.exception("training of version %s failed", version.id)
        version.status.CopyFrom(
            make_status(
                StatusCode.MODEL_TRAINING_UNKNOWN_ERROR, "internal error; see the server's log"
            )
        )
    version.completed_at.GetCurrentTime()
    _save(state, row.seq, version, weights)


def _wait(state: State) -> None:
    """Waits half of what a training is told to take, which may change meanwhile."""
    began = time.monotonic()
    while (
        not state.background.closing and time.monotonic() - began < state.faults.train_seconds / 2
    ):
        time.sleep(_PAUSE_SECONDS)
    if state.background.closing:
        raise _ServerClosing


def _save(state: State, seq: int, version: v2.ModelVersion, weights: bytes | None = None) -> None:
    """Keeps what became of a version; patches of other fields, made meanwhile, stay."""
    with state.store.transaction():
        row = state.store.by_seq(seq)
        if row is None:
            return
        now = v2.ModelVersion.FromString(row.body)
        for name in _OUTCOME:
            now.ClearField(name)  # type: ignore[arg-type]
            if isinstance(value := getattr(version, name), Message):
                if version.HasField(name):  # type: ignore[arg-type]
                    getattr(now, name).CopyFrom(value)
            else:
                setattr(now, name, value)
        del now.output_info.data.concepts[:]
        now.output_info.data.concepts.extend(version.output_info.data.concepts)
        now.modified_at.GetCurrentTime()
        state.store.update(seq, now.SerializeToString(), now.status.code)
        if weights is not None:
            state.store.set_content(seq, weights)


_OUTCOME = (
    "status",
    "completed_at",
    "total_input_count",
    "active_concept_count",
    "train_log",
    "metrics",
)
"""What a training says of a version, beside its concepts."""


def _learn(state: State, app: UserApp, version: v2.ModelVersion, content: bytes) -> bytes:
    """Trains a version and writes into it how that went; returns what was learned."""
    config = version.output_info.output_config
    end = time.monotonic() + (config.training_timeout or math.inf)

    def check() -> None:
        if state.background.closing:
            raise _ServerClosing
        if time.monotonic() > end:
            raise ServiceError(
                StatusCode.MODEL_TRAINING_TIMED_OUT,
                f"the training took longer than {config.training_timeout} s",
            )

    base = version.input_info.base_embed_model
    examples, vectors = _embedded(
        state, app, base, classifier_training.Examples.from_bytes(content), check
    )
    params = version.train_info.params.fields
    negatives = None
    disabled = ENRICH_DATASET in params and params[ENRICH_DATASET].string_value == DISABLED
    if base.id == "image-embedding" and not disabled:
        negatives = np.stack([state.embeddings.of_image(one) for one in negative_images.images()])
    result = classifier_training.learn(
        examples,
        vectors,
        negatives,
        exclusive=config.concepts_mutually_exclusive
        or (MUTUALLY_EXCLUSIVE in params and params[MUTUALLY_EXCLUSIVE].bool_value),
        need_all=config.fail_on_missing_positive_examples,
        named=bool(version.output_info.data.concepts),
        check=check,
    )
    version.total_input_count = len(examples.inputs)
    version.active_concept_count = len(result.weights.concepts)
    version.train_log = result.log
    if idle := _without_effect(version):
        version.train_log += (
            f"\nlogistic regression, whatever is said otherwise; without effect: {'; '.join(idle)}"
        )
    version.metrics.CopyFrom(result.metrics)
    given = {concept.id: concept for concept in version.output_info.data.concepts}
    concepts = [given.get(i) or _concept(state, app, i) for i in result.weights.concepts]
    del version.output_info.data.concepts[:]
    version.output_info.data.concepts.extend(concepts)
    return result.weights.to_bytes()


def _concept(state: State, app: UserApp, concept_id: str) -> v2.Concept:
    row = state.store.get(StoredCollection.of_app("concept", app), concept_id)
    name = v2.Concept.FromString(row.body).name if row is not None else concept_id
    return v2.Concept(id=concept_id, name=name, user_id=app.user_id, app_id=app.app_id)


def _embedded(
    state: State,
    app: UserApp,
    base: v2.Model,
    examples: classifier_training.Examples,
    check: Callable[[], None],
) -> tuple[classifier_training.Examples, NDArray[np.float32]]:
    """The examples that have embeddings, and those."""
    kept: list[int] = []
    vectors: list[Vector] = []
    if UserApp(base.user_id, base.app_id) == PUBLIC_APP and base.id in _MEDIUM_OF_MODEL:
        known = state.embeddings.all(app, _MEDIUM_OF_MODEL[base.id])
        places = {input_id: place for place, input_id in enumerate(known.ids)}
        for number, input_id in enumerate(examples.inputs):
            if input_id in places:
                kept.append(number)
                vectors.append(known.rows[places[input_id]])
    else:
        runtime = _runtime(state, base)
        inputs = StoredCollection.of_app(INPUT_KIND, app)
        options = PredictOptions(
            state.fetcher, v2.OutputConfig(), lambda: not state.background.closing
        )
        for number, input_id in enumerate(examples.inputs):
            check()
            row = state.store.get(inputs, input_id)
            if row is None:
                continue
            item = v2.Input.FromString(row.body)
            found = runtime.predict(with_content(state.store, row.seq, item), options).embeddings
            if found:
                kept.append(number)
                vectors.append(np.asarray(found[0].vector, np.float32))
    rows = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    return examples.only(kept), rows


def _runtime(state: State, base: v2.Model) -> Runtime:
    base_entry = state.catalog.find(UserApp(base.user_id, base.app_id), base.id)
    version = base_entry.version(base.model_version.id)
    runtime = state.catalog.runtime(base_entry, version) if version is not None else None
    if runtime is None:
        raise ServiceError(
            StatusCode.MODEL_TRAINING_FAILED,
            f"the local server cannot run base_embed_model {base.id!r}",
        )
    return runtime


# How long it takes


def estimate_training_time(
    context: Context, request: v2.PostModelVersionsTrainingTimeEstimateRequest
) -> v2.MultiTrainingTimeEstimateResponse:
    """By what trainings of the app took an input, and by a usual time where there was none."""
    app = context.readable(request.user_app_id)
    entry = context.model(app, request.model_id)
    if entry.model.model_type_id not in BASES:
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT,
            f"the local server does not train models of the type {entry.model.model_type_id!r}",
        )
    if not request.model_versions:
        raise ServiceError(StatusCode.MODEL_INVALID_REQUEST, "the request has no model_versions")
    response = v2.MultiTrainingTimeEstimateResponse(status=make_status(StatusCode.SUCCESS))
    for version in request.model_versions:
        count = request.estimated_input_count
        if not count:
            dataset = version.train_info.dataset
            found = classifier_training.labelled_inputs(context.state.store, app, dataset)
            count = sum(1 for _ in found)
        seconds = _seconds_before(context, app)
        estimate = response.training_time_estimates.add()
        estimate.FromMilliseconds(int(1000 * (_FIXED_SECONDS + seconds * count)))
    return response


# Measured with images on one core.
_FIXED_SECONDS = 0.2
_SECONDS_PER_INPUT = 1e-3


def _seconds_before(context: Context, app: UserApp) -> float:
    """What an input took in the trainings of the app; a usual time without any."""
    seconds, inputs = 0.0, 0
    for entry in context.models(app):
        for version in entry.versions:
            if version.total_input_count and version.HasField("completed_at"):
                took = version.completed_at.ToMilliseconds() - version.created_at.ToMilliseconds()
                seconds += max(took / 1000 - _FIXED_SECONDS, 0.0)
                inputs += version.total_input_count
    return seconds / inputs if inputs else _SECONDS_PER_INPUT


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostModelVersions": post_model_versions,
    "PostModelVersionsTrainingTimeEstimate": estimate_training_time,
}
BACKGROUND_TASKS: dict[Waiting, BackgroundTask] = {
    Waiting(VERSION_KIND, StatusCode.MODEL_QUEUED_FOR_TRAINING): _train,
    # Cut off by the end of the process: done again from the same examples.
    Waiting(VERSION_KIND, StatusCode.MODEL_TRAINING): _train,
}
