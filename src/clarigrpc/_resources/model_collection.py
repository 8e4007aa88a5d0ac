"""The models of an app, their versions, and the types of models."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from clarigrpc import errors, v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._contract.status_names import code_name
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Deletes,
    Gets,
    Lists,
    Paging,
    PatchAction,
    Patches,
    as_ids,
    filled,
)
from clarigrpc._resources.evaluations import AsyncModelVersionEvaluations, ModelVersionEvaluations
from clarigrpc._resources.long_running import (
    FollowsWork,
    Work,
    following,
    succeeded,
    work_on_export,
)
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, lazy, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan

_NEARLY = 0.9
"""How alike a misspelt type and the one that was meant are, by ``difflib``."""


class ModelTypeOperations(Gets[v2.ModelType], Lists[v2.ModelType]):
    """The types of models that the service offers."""

    _message = v2.ModelType
    _get_rpc = "GetModelType"
    _list_rpc = "ListModelTypes"


class ModelTypes(ModelTypeOperations, Sync): ...


class AsyncModelTypes(ModelTypeOperations, Async): ...


class InputExampleOperations(Gets[v2.ModelVersionInputExample], Lists[v2.ModelVersionInputExample]):
    """The example inputs of a model version."""

    _message = v2.ModelVersionInputExample
    _get_rpc = "GetModelVersionInputExample"
    _list_rpc = "ListModelVersionInputExamples"


class InputExamples(InputExampleOperations, Sync): ...


class AsyncInputExamples(InputExampleOperations, Async): ...


@named_in("clarigrpc.types")
class ModelVersionFilters(Paging, total=False):
    """Options of ``client.models.versions(model_id).list``."""

    concept_ids: Sequence[str]
    trained_only: bool
    min_replicas: int
    sort_ascending: bool
    sort_by_created_at: bool
    sort_by_description: bool
    sort_by_num_inputs: bool
    sort_by_status_code: bool


class ModelVersionOperations(
    Gets[v2.ModelVersion],
    Patches[v2.ModelVersion],
    Deletes[v2.ModelVersion],
    FollowsWork[v2.ModelVersion],
):
    """The versions of a model."""

    _message = v2.ModelVersion
    _get_rpc = "GetModelVersion"
    _list_rpc = "ListModelVersions"
    _patch_rpc = "PatchModelVersions"
    _delete_one_rpc = "DeleteModelVersion"
    _work_name = "training of version"
    _work_seconds = 3600.0
    _instead_of_cancel = "delete the version"

    def _ended(self, item: v2.ModelVersion, status: v2.Status) -> v2.ModelVersion:
        if status.code == v2.StatusCode.MODEL_TRAINED:
            return item
        succeeded(item, status, self._get_rpc)
        model_id = self._parents["model_id"]
        raise errors.InvalidArgumentError(
            f"version {item.id!r} of {model_id!r} is not being trained: {code_name(status.code)}",
            method=self._get_rpc,
        )

    @nested(ModelVersionEvaluations, AsyncModelVersionEvaluations)
    def evaluations(self, model_version_id: str) -> Parents:
        """Access the evaluations of a model version.

        Args:
            model_version_id: Id of the model version.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"model_version_id": model_version_id}

    @nested(InputExamples, AsyncInputExamples)
    def input_examples(self, model_version_id: str) -> Parents:
        """Access the example inputs of a model version.

        Args:
            model_version_id: Id of the model version.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"model_version_id": model_version_id}

    @operation
    def create(
        self,
        version: v2.ModelVersion | Mapping[str, Any] | None = None,
        *,
        description: str = "",
        timeout: float | None = None,
    ) -> Plan[v2.ModelVersion]:
        """Create a version of the model. If its type is trained, the service starts training it.

        Args:
            version: Settings: ``train_info`` holds the dataset and the parameters of the training,
                ``output_info`` the concepts. None trains on all inputs of the app.
            description: What is new in this version.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The new version; wait for the training with ``client.models.wait_trained``, or follow it
            with ``follow``.

        Raises:
            NotFoundError: The model does not exist.
            InvalidArgumentError: The service rejects the settings; ``details`` says why.
        """
        wanted = [self._one_of({} if version is None else version)]
        response: v2.SingleModelResponse = yield from self._invoke(
            "PostModelVersions", timeout, model_versions=wanted, description=description
        )
        return response.model.model_version

    @operation
    def publish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Publish versions: make them visible to everybody.

        Args:
            ids: Ids of versions, one or many.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: A version does not exist.
        """
        publications = [v2.ModelVersionPublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostModelVersionsPublish", timeout, publications=publications)

    @operation
    def unpublish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Unpublish versions.

        Args:
            ids: Ids of versions, one or many.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: A version does not exist.
        """
        publications = [v2.ModelVersionUnpublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostModelVersionsUnPublish", timeout, publications=publications)

    @operation
    def export(
        self, version_id: str, /, *, timeout: float | None = None
    ) -> Plan[v2.ModelVersionExport]:
        """Start exporting a version as an archive.

        Args:
            version_id: Id of the version.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The export in progress; ``follow_export`` waits for it, ``get_export`` fetches its state
            and URL.

        Raises:
            NotFoundError: The version does not exist.
        """
        response: v2.SingleModelVersionExportResponse = yield from self._invoke(
            "PutModelVersionExports", timeout, version_id=version_id
        )
        return response.export

    @operation
    def get_export(
        self, version_id: str, /, *, timeout: float | None = None
    ) -> Plan[v2.ModelVersionExport]:
        """Fetch the export of a version.

        Args:
            version_id: Id of the version.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The export, with its ``status``, ``url`` and ``size`` in bytes.

        Raises:
            NotFoundError: The version was not exported.
        """
        response: v2.SingleModelVersionExportResponse = yield from self._invoke(
            "GetModelVersionExport", timeout, version_id=version_id
        )
        return response.export

    @following
    def follow_export(self, version_id: str) -> Work[v2.ModelVersionExport]:
        """Follow the export of a version: ask for its status, or wait for its end.

        Args:
            version_id: Id of the version, after ``export`` was called for it.

        Returns:
            An object with ``status()`` and ``wait()``, which returns the export with the ``url`` of
            its archive and its ``size`` in bytes. Nothing is sent yet.
        """
        name = f"export of version {version_id!r}"
        method = "GetModelVersionExport"

        def fetch_export(seconds: float) -> Plan[v2.ModelVersionExport]:
            return ModelVersionOperations.get_export.plan(self, version_id, timeout=seconds)

        return work_on_export(self, name, method, fetch_export)

    @iteration
    def concepts(
        self, version_id: str, /, *, search: str = "", **options: Unpack[Paging]
    ) -> ItemPlan[v2.Concept]:
        """List the concepts that a version predicts.

        Args:
            version_id: Id of the version.
            search: Filter by text in the id or name.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        fields = {"version_id": version_id, "search": search, **options}
        return self._pages("ListModelConcepts", "concepts", fields)

    @iteration
    def inputs(self, version_id: str, /, **options: Unpack[Paging]) -> ItemPlan[v2.Input]:
        """List the inputs that a version was trained on.

        Args:
            version_id: Id of the version.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._pages("ListModelInputs", "inputs", {"version_id": version_id, **options})

    @iteration
    def list(self, **options: Unpack[ModelVersionFilters]) -> ItemPlan[v2.ModelVersion]:
        """List the versions of the model, newest first.

        Args:
            concept_ids: Filter by concepts.
            trained_only: Whether to list only trained versions. Default False.
            min_replicas: Filter by minimum number of running replicas.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_created_at: Whether to sort by time of creation. Set at most one ``sort_by_``
                option.
            sort_by_description: Whether to sort by description.
            sort_by_num_inputs: Whether to sort by number of inputs.
            sort_by_status_code: Whether to sort by status code.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class ModelVersions(ModelVersionOperations, Sync): ...


class AsyncModelVersions(ModelVersionOperations, Async): ...


@named_in("clarigrpc.types")
class ModelFilters(Paging, total=False):
    """Options of ``client.models.list``."""

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

    _message = v2.Model
    _get_rpc = "GetModel"
    _list_rpc = "ListModels"
    _patch_rpc = "PatchModels"
    _delete_rpc = "DeleteModels"
    _delete_one_rpc = "DeleteModel"

    @lazy
    def types(self) -> tuple[type[ModelTypes], type[AsyncModelTypes]]:
        """The types of models that the service offers."""
        return ModelTypes, AsyncModelTypes

    @nested(ModelVersions, AsyncModelVersions)
    def versions(self, model_id: str) -> Parents:
        """Access the versions of a model.

        Args:
            model_id: Id of the model.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"model_id": model_id}

    @operation
    def create(
        self, item: v2.Model | str | Mapping[str, Any], *, timeout: float | None = None
    ) -> Plan[v2.Model]:
        """Create a model without a version; ``versions(model_id).create()`` adds and trains one.

        Args:
            item: A message, a mapping with the fields of one (as in JSON), or a string: the id of a
                model without further fields. ``model_type_id`` is the type of the model; the
                service's types are asked for first, and a misspelt one is refused.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The model as the service stored it.

        Raises:
            AlreadyExistsError: The id is taken.
            InvalidArgumentError: The service rejects the model (``details`` says why), the type of
                the model is misspelt, or the mapping has unknown fields.
            TypeError: ``item`` is of another type.
        """
        wanted = self._one_of(item)
        if wanted.model_type_id:
            yield from self._check_type(wanted.model_type_id, timeout)
        response: v2.SingleModelResponse = yield from self._invoke(
            "PostModels", timeout, models=[wanted]
        )
        return response.model

    def _check_type(self, model_type_id: str, timeout: float | None) -> Plan[None]:
        """Refuse a type that is nearly, but not quite, one of the service's.

        The service takes any type, and the model never works.
        """
        try:
            listed: v2.MultiModelTypeResponse = yield from self._invoke(
                "ListModelTypes", timeout, page=1, per_page=MAX_ITEMS
            )
        except errors.ApiError:
            return  # who may create models need not be allowed to list their types
        known = [one.id for one in listed.model_types]
        if model_type_id in known:
            return
        from difflib import get_close_matches

        for nearest in get_close_matches(model_type_id, known, 1, _NEARLY):
            raise errors.InvalidArgumentError(
                f"there is no model type {model_type_id!r}; did you mean {nearest!r}? "
                "client.models.types.list() has them all"
            )

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
        """Fetch one model.

        Args:
            model_id: Id of the model.
            version_id: Id of the version to include. Empty includes the latest.
            language: Language code for the names of concepts. Empty uses the app's default
                language.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The model or the version does not exist or is not visible to you.
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
        """Fetch the output settings of a model: its concepts, parameters and their defaults.

        Args:
            model_id: Id of the model.
            version_id: Id of the version. Empty uses the latest.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The model or the version does not exist.
        """
        response: v2.SingleModelResponse = yield from self._invoke(
            "GetModelOutputInfo", timeout, model_id=model_id, version_id=version_id
        )
        return response.model.model_version.output_info

    @operation
    def wait_trained(
        self, model_id: str, version_id: str = "", *, timeout: float = 3600.0
    ) -> Plan[v2.ModelVersion]:
        """Wait until a version is trained.

        Polls its status at growing intervals (0.05 to 5 seconds).

        Args:
            model_id: Id of the model.
            version_id: Id of the version. Empty uses the version that is the latest now.
            timeout: Seconds for the whole wait. Default 3600.

        Returns:
            The trained version.

        Raises:
            ApiError: The training failed; the subclass, ``code`` and ``details`` say why.
            InvalidArgumentError: The version is not being trained.
            DeadlineExceededError: The training is not complete yet.
        """
        if not version_id:
            model = yield from self._fetch(model_id)
            version_id = model.model_version.id
        versions = ModelVersionOperations(
            self._client, self.user_id, self.app_id, {"model_id": model_id}
        )
        return (yield from versions._work_on(version_id).wait(timeout))

    @operation
    def rename(self, model_id: str, new_id: str, *, timeout: float | None = None) -> Plan[v2.Model]:
        """Change the id of a model.

        Args:
            model_id: Current id of the model.
            new_id: New id.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The model with its new id.

        Raises:
            AlreadyExistsError: The new id is taken.
            NotFoundError: The model does not exist.
        """
        return (yield from self._rename("PatchModelIds", model_id, new_id, timeout))

    @operation
    def patch_languages(
        self,
        model_id: str,
        languages: Sequence[str],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change the languages that a model understands.

        Args:
            model_id: Id of the model.
            languages: Language codes.
            action: ``"merge"`` adds the values, ``"remove"`` removes them, ``"overwrite"`` replaces
                all.
            timeout: Seconds. None uses the client's setting.

        Returns:
            All languages of the model after the change.

        Raises:
            NotFoundError: The model does not exist.
        """
        return (
            yield from self._patch_tags(
                "PatchModelLanguages", "languages", model_id, languages, action, timeout
            )
        )

    @operation
    def patch_toolkits(
        self,
        model_id: str,
        toolkits: Sequence[str],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change the toolkits that a model was made with.

        Args:
            model_id: Id of the model.
            toolkits: Names of toolkits.
            action: ``"merge"`` adds the values, ``"remove"`` removes them, ``"overwrite"`` replaces
                all.
            timeout: Seconds. None uses the client's setting.

        Returns:
            All toolkits of the model after the change.

        Raises:
            NotFoundError: The model does not exist.
        """
        return (
            yield from self._patch_tags(
                "PatchModelToolkits", "toolkits", model_id, toolkits, action, timeout
            )
        )

    @operation
    def patch_use_cases(
        self,
        model_id: str,
        use_cases: Sequence[str],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change the use cases of a model.

        Args:
            model_id: Id of the model.
            use_cases: Names of use cases.
            action: ``"merge"`` adds the values, ``"remove"`` removes them, ``"overwrite"`` replaces
                all.
            timeout: Seconds. None uses the client's setting.

        Returns:
            All use cases of the model after the change.

        Raises:
            NotFoundError: The model does not exist.
        """
        return (
            yield from self._patch_tags(
                "PatchModelUseCases", "usecases", model_id, use_cases, action, timeout
            )
        )

    @operation
    def patch_check_consents(
        self,
        model_id: str,
        consents: Sequence[str],
        *,
        action: PatchAction = "merge",
        timeout: float | None = None,
    ) -> Plan[builtins.list[str]]:
        """Change the consents that users of a model have to give.

        Args:
            model_id: Id of the model.
            consents: Names of consents.
            action: ``"merge"`` adds the values, ``"remove"`` removes them, ``"overwrite"`` replaces
                all.
            timeout: Seconds. None uses the client's setting.

        Returns:
            All consents of the model after the change.

        Raises:
            NotFoundError: The model does not exist.
        """
        plan = self._patch_tags(
            "PatchModelCheckConsents", "check_consents", model_id, consents, action, timeout
        )
        return (yield from plan)

    def _patch_tags(
        self,
        method: str,
        field: str,
        model_id: str,
        values: Sequence[str],
        action: PatchAction,
        timeout: float | None,
    ) -> Plan[builtins.list[str]]:
        fields = {"model_id": model_id, field: values, "action": action}
        response = yield from self._invoke(method, timeout, **fields)
        return [*getattr(response, field)]

    @operation
    def licenses(self, *, timeout: float | None = None) -> Plan[builtins.list[str]]:
        """List the open-source licenses that the service knows.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            Their names.
        """
        response: v2.ListOpenSourceLicensesResponse = yield from self._invoke(
            "ListOpenSourceLicenses", timeout
        )
        return [*response.licenses]

    @iteration
    def references(
        self, model_id: str, /, **options: Unpack[Paging]
    ) -> ItemPlan[v2.ModelReference]:
        """List the references of a model: links to further reading.

        Args:
            model_id: Id of the model.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        fields = {"model_id": model_id, **options}
        return self._pages("ListModelReferences", "model_references", fields)

    @iteration
    def search(
        self, name: str = "", *, model_type_id: str = "", **options: Unpack[Paging]
    ) -> ItemPlan[v2.Model]:
        """Search for models by name and type.

        Args:
            name: Name to look for; ``*`` matches any characters. Empty matches all names.
            model_type_id: Filter by type of model.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        method = "PostModelsSearches"
        query = filled(method, v2.ModelQuery, name=name, model_type_id=model_type_id)
        return self._pages(method, "models", {"model_query": query, **options})

    @iteration
    def list(self, **options: Unpack[ModelFilters]) -> ItemPlan[v2.Model]:
        """List the models of the app.

        Args:
            all_apps: Whether to list the models of all apps of the user. Default False.
            name: Filter by text in the name; ``*`` matches any characters.
            search: Filter by text in the id, name, description or notes.
            model_type_id: Filter by type of model.
            model_version_ids: Filter by model versions.
            trained_only: Whether to list only models with a trained version. Default False.
            input_fields: Filter by kinds of data that the models take.
            output_fields: Filter by kinds of data that the models return.
            toolkits: Filter by toolkits; a model must have all of them.
            use_cases: Filter by use cases; a model must have all of them.
            languages: Filter by languages; a model must have all of them.
            license: Filter by license.
            license_type: Filter by type of license, a value of ``v2.LicenseType``.
            source: Filter by source.
            creator: Filter by creator.
            featured_only: Whether to list only models featured by the service. Default False.
            starred_only: Whether to list only models that you starred. Default False.
            bookmark: Whether to list only models bookmarked from other users. Default False.
            visibility: Filter by visibility.
            min_replicas: Filter by minimum number of running replicas.
            show_replicas: Whether to include the number of running replicas. Default False.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_name: Whether to sort by name. Set at most one ``sort_by_`` option.
            sort_by_num_inputs: Whether to sort by number of inputs.
            sort_by_created_at: Whether to sort by time of creation.
            sort_by_modified_at: Whether to sort by time of the last change.
            sort_by_star_count: Whether to sort by number of stars.
            sort_by_relevance: Whether to sort by relevance to ``search``.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Models(ModelCollectionOperations, Sync): ...


class AsyncModels(ModelCollectionOperations, Async): ...
