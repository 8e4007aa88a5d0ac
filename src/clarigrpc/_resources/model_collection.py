"""The models of an app, their versions, and the types of models."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from clarigrpc import errors, v2
from clarigrpc._contract.status_names import code_name
from clarigrpc._resources.base import (
    Action,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_ids,
)
from clarigrpc._resources.evaluations import AsyncModelVersionEvaluations, ModelVersionEvaluations
from clarigrpc._resources.long_running import until
from clarigrpc._resources.sync_async import Async, Lazy, Sync, iteration, nested, operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.plan import ItemPlan, Plan


class ModelTypeOperations(Gets[v2.ModelType], Lists[v2.ModelType]):
    """The types of models that the service has."""

    message = v2.ModelType


class ModelTypes(ModelTypeOperations, Sync): ...


class AsyncModelTypes(ModelTypeOperations, Async): ...


class InputExampleOperations(Gets[v2.ModelVersionInputExample], Lists[v2.ModelVersionInputExample]):
    """Examples of what a model version can be asked."""

    message = v2.ModelVersionInputExample
    noun = "example"

    def _id_field(self, method: str) -> str:
        return "example_id"


class InputExamples(InputExampleOperations, Sync): ...


class AsyncInputExamples(InputExampleOperations, Async): ...


class ModelVersionFilters(Paging, total=False):
    """Which versions are listed, and in which order.

    Attributes:
        concept_ids: Only those with one of these concepts.
        trained_only: Only those that are trained.
        min_replicas: Only those that run at least so many times.
        sort_ascending: Smallest or oldest first.
        sort_by_created_at, sort_by_description, sort_by_num_inputs, sort_by_status_code: What the
            order is by; one at most.
    """

    concept_ids: Sequence[str]
    trained_only: bool
    min_replicas: int
    sort_ascending: bool
    sort_by_created_at: bool
    sort_by_description: bool
    sort_by_num_inputs: bool
    sort_by_status_code: bool


class ModelVersionOperations(
    Gets[v2.ModelVersion], Patches[v2.ModelVersion], Deletes[v2.ModelVersion]
):
    """The versions of a model."""

    message = v2.ModelVersion

    evaluations = nested(
        "model_version_id",
        ModelVersionEvaluations,
        AsyncModelVersionEvaluations,
        "The evaluations of a model version.",
    )
    input_examples = nested(
        "model_version_id",
        InputExamples,
        AsyncInputExamples,
        "Examples of what a model version can be asked.",
    )

    @operation
    def create(
        self,
        version: v2.ModelVersion | Mapping[str, Any] | None = None,
        *,
        description: str = "",
        timeout: float | None = None,
    ) -> Plan[v2.ModelVersion]:
        """Make a version of the model; the service trains it afterwards, where its type is trained.

        Args:
            version: Settings: ``train_info`` says from which dataset and with which parameters,
                ``output_info`` which concepts it has. None: from all inputs of the app.
            description: What is new in it.
            timeout: Seconds; None: the client's.

        Returns:
            The version as far as it is; ``client.models.wait_trained`` waits for it.
        """
        wanted = [self._one_of({} if version is None else version)]
        response: v2.SingleModelResponse = yield from self._invoke(
            "PostModelVersions", timeout, model_versions=wanted, description=description
        )
        return response.model.model_version

    @operation
    def publish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Let everybody see versions, one or many."""
        publications = [v2.ModelVersionPublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostModelVersionsPublish", timeout, publications=publications)

    @operation
    def unpublish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Take the publication of versions back, of one or many."""
        publications = [v2.ModelVersionUnpublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostModelVersionsUnPublish", timeout, publications=publications)

    @operation
    def export(
        self, version_id: str, /, *, timeout: float | None = None
    ) -> Plan[v2.ModelVersionExport]:
        """Have the service make an archive of a version; it does so afterwards.

        Returns:
            The export as far as it is; ``get_export`` tells how far, and where it can be fetched.
        """
        response: v2.SingleModelVersionExportResponse = yield from self._invoke(
            "PutModelVersionExports", timeout, version_id=version_id
        )
        return response.export

    @operation
    def get_export(
        self, version_id: str, /, *, timeout: float | None = None
    ) -> Plan[v2.ModelVersionExport]:
        """The export of a version: its ``status``, ``url`` and ``size`` in bytes.

        Raises:
            NotFoundError: Nobody has asked for it.
        """
        response: v2.SingleModelVersionExportResponse = yield from self._invoke(
            "GetModelVersionExport", timeout, version_id=version_id
        )
        return response.export

    @iteration
    def concepts(
        self, version_id: str, /, *, search: str = "", **options: Unpack[Paging]
    ) -> ItemPlan[v2.Concept]:
        """The concepts that a version predicts.

        Args:
            version_id: The version.
            search: Only those with this in id or name.
            {paging}
        """
        fields = {"version_id": version_id, "search": search, **options}
        return self._pages("ListModelConcepts", "concepts", fields)

    @iteration
    def inputs(self, version_id: str, /, **options: Unpack[Paging]) -> ItemPlan[v2.Input]:
        """The inputs that a version was trained from.

        Args:
            version_id: The version.
            {paging}
        """
        return self._pages("ListModelInputs", "inputs", {"version_id": version_id, **options})

    @iteration
    def list(self, **options: Unpack[ModelVersionFilters]) -> ItemPlan[v2.ModelVersion]:
        """The versions of the model, newest first.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class ModelVersions(ModelVersionOperations, Sync): ...


class AsyncModelVersions(ModelVersionOperations, Async): ...


class ModelFilters(Paging, total=False):
    """Which models are listed, and in which order.

    Attributes:
        all_apps: Those of all apps of the user.
        name: Only those whose name has this in it; ``*`` stands for any letters.
        search: Only those with this in id, name, description or notes.
        model_type_id: Only those of this type.
        model_version_ids: Only those that have one of these versions.
        trained_only: Only those that have a trained version.
        input_fields, output_fields: Only those that take or give these kinds of data.
        toolkits, use_cases, languages: Only those that have all of these.
        license, license_type: Only those with this license.
        source, creator: Only those that come from there.
        featured_only: Only those that the service features.
        starred_only: Only those that the caller has starred.
        bookmark: Those of other users that the app has bookmarked.
        visibility: Only those that are so visible.
        min_replicas: Only those that run at least so many times.
        show_replicas: Say how many times each one runs.
        sort_ascending: Smallest or oldest first.
        sort_by_name: What the order is by; or one of ``sort_by_num_inputs``,
            ``sort_by_created_at``, ``sort_by_modified_at``, ``sort_by_star_count``,
            ``sort_by_relevance``.
        additional_fields: What the service leaves out by default, ``"stars"`` and the like.
    """

    all_apps: bool
    name: str
    search: str
    model_type_id: str
    model_version_ids: Sequence[str]
    trained_only: bool
    input_fields: Sequence[str]
    output_fields: Sequence[str]
    toolkits: Sequence[str]
    use_cases: Sequence[str]
    languages: Sequence[str]
    license: str
    license_type: v2.LicenseType.ValueType
    source: int
    creator: str
    featured_only: bool
    starred_only: bool
    bookmark: bool
    visibility: v2.Visibility
    min_replicas: int
    show_replicas: bool
    sort_ascending: bool
    sort_by_name: bool
    sort_by_num_inputs: bool
    sort_by_created_at: bool
    sort_by_modified_at: bool
    sort_by_star_count: bool
    sort_by_relevance: bool
    additional_fields: Sequence[str]


class ModelCollectionOperations(Patches[v2.Model], Deletes[v2.Model]):
    """The models of an app."""

    message = v2.Model

    types: Lazy[ModelTypes, AsyncModelTypes] = Lazy(
        __name__, "ModelTypes", "The types of models that the service has."
    )
    versions = nested("model_id", ModelVersions, AsyncModelVersions, "The versions of a model.")

    @operation
    def create(
        self, item: v2.Model | str | Mapping[str, Any], *, timeout: float | None = None
    ) -> Plan[v2.Model]:
        """Create a model, without a version yet: ``versions(model_id).create()`` trains one.

        Args:
            item: A v2.Model, a mapping like the JSON of one, or a string for one with this id.
                ``model_type_id`` says what kind of model it is.
            timeout: Seconds; None: the client's.

        Raises:
            AlreadyExistsError: Its id is taken.
        """
        response: v2.SingleModelResponse = yield from self._invoke(
            "PostModels", timeout, models=[self._one_of(item)]
        )
        return response.model

    @operation
    def get(
        self,
        model_id: str,
        /,
        *,
        version_id: str = "",
        language: str = "",
        additional_fields: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Plan[v2.Model]:
        """A model by its id.

        Args:
            model_id: Its id.
            version_id: Which version stands in it; empty: the latest.
            language: The language of its concepts' names.
            additional_fields: What the service leaves out by default, ``"stars"`` and the like.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such model.
        """
        return (
            yield from self._fetch(
                model_id,
                timeout,
                version_id=version_id,
                language=language,
                additional_fields=additional_fields,
            )
        )

    @operation
    def output_info(
        self, model_id: str, /, *, version_id: str = "", timeout: float | None = None
    ) -> Plan[v2.OutputInfo]:
        """What a model gives: its concepts, its settings and their defaults.

        Args:
            model_id: The model.
            version_id: Which version; empty: the latest.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such model.
        """
        response: v2.SingleModelResponse = yield from self._invoke(
            "GetModelOutputInfo", timeout, model_id=model_id, version_id=version_id
        )
        return response.model.model_version.output_info

    @operation
    def wait_trained(
        self, model_id: str, version_id: str = "", *, timeout: float = 3600.0
    ) -> Plan[v2.ModelVersion]:
        """Wait until a version is trained; looks at it at growing intervals.

        Args:
            model_id: The model.
            version_id: The version; empty: the one that is the latest now.
            timeout: Seconds for all of it.

        Returns:
            The trained version.

        Raises:
            ApiError: The training failed; ``code`` and ``details`` say why.
            InvalidArgumentError: The version is not being trained.
            DeadlineExceededError: It is still being trained.
        """
        if not version_id:
            model = yield from self._fetch(model_id)
            version_id = model.model_version.id
        method = "GetModelVersion"

        def look(seconds: float) -> Plan[v2.ModelVersion | None]:
            response: v2.SingleModelVersionResponse = yield from self._invoke(
                method, seconds, model_id=model_id, version_id=version_id
            )
            version = response.model_version
            code = version.status.code
            if code == v2.StatusCode.MODEL_TRAINED:
                return version
            if statuses.kind_of(code) is statuses.Kind.PENDING:
                return None
            failure = statuses.from_item(
                version.status, method=method, request_id=response.status.req_id
            )
            raise failure or errors.InvalidArgumentError(
                f"version {version_id!r} of {model_id!r} is not being trained: {code_name(code)}",
                method=method,
            )

        def late() -> errors.ApiError:
            return errors.DeadlineExceededError(
                f"{model_id!r} is still being trained after {timeout:g} s", method=method
            )

        return (yield from until(look, timeout=timeout, late=late))

    @operation
    def rename(self, model_id: str, new_id: str, *, timeout: float | None = None) -> Plan[v2.Model]:
        """Give a model another id.

        Raises:
            AlreadyExistsError: The new id is taken.
            NotFoundError: There is no such model.
        """
        return (yield from self._rename("PatchModelIds", model_id, new_id, timeout))

    @operation
    def patch_languages(
        self,
        model_id: str,
        languages: Sequence[str],
        *,
        action: Action = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change the languages that a model understands; returns them all."""
        return (
            yield from self._tag("Languages", "languages", model_id, languages, action, timeout)
        )

    @operation
    def patch_toolkits(
        self,
        model_id: str,
        toolkits: Sequence[str],
        *,
        action: Action = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change the toolkits that a model was made with; returns them all."""
        return (yield from self._tag("Toolkits", "toolkits", model_id, toolkits, action, timeout))

    @operation
    def patch_use_cases(
        self,
        model_id: str,
        use_cases: Sequence[str],
        *,
        action: Action = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change what a model is said to be for; returns all of it."""
        return (yield from self._tag("UseCases", "usecases", model_id, use_cases, action, timeout))

    @operation
    def patch_check_consents(
        self,
        model_id: str,
        consents: Sequence[str],
        *,
        action: Action = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change what users of a model have to agree to; returns all of it."""
        plan = self._tag("CheckConsents", "check_consents", model_id, consents, action, timeout)
        return (yield from plan)

    def _tag(
        self,
        name: str,
        field: str,
        model_id: str,
        values: Sequence[str],
        action: Action,
        timeout: float | None,
    ) -> Plan[builtins.list[str]]:
        fields = {"model_id": model_id, field: values, "action": action}
        response = yield from self._invoke(f"PatchModel{name}", timeout, **fields)
        return [*getattr(response, field)]

    @operation
    def licenses(self, *, timeout: float | None = None) -> Plan[builtins.list[str]]:
        """The open source licenses that the service knows."""
        response: v2.ListOpenSourceLicensesResponse = yield from self._invoke(
            "ListOpenSourceLicenses", timeout
        )
        return [*response.licenses]

    @iteration
    def references(
        self, model_id: str, /, **options: Unpack[Paging]
    ) -> ItemPlan[v2.ModelReference]:
        """Where more about a model can be read.

        Args:
            model_id: The model.
            {paging}
        """
        fields = {"model_id": model_id, **options}
        return self._pages("ListModelReferences", "model_references", fields)

    @iteration
    def search(
        self, name: str = "", *, model_type_id: str = "", **options: Unpack[Paging]
    ) -> ItemPlan[v2.Model]:
        """Models by name and type.

        Args:
            name: What to look for; ``*`` stands for any letters.
            model_type_id: Only those of this type.
            {paging}
        """
        query = v2.ModelQuery(name=name, model_type_id=model_type_id)
        return self._pages("PostModelsSearches", "models", {"model_query": query, **options})

    @iteration
    def list(self, **options: Unpack[ModelFilters]) -> ItemPlan[v2.Model]:
        """The models of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Models(ModelCollectionOperations, Sync): ...


class AsyncModels(ModelCollectionOperations, Async): ...
