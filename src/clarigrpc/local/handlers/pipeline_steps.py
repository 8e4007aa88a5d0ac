"""Pipeline steps and their versions: create, get, list. Their code comes by uploads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.core import (
    Context,
    Scope,
    ServiceError,
    is_built,
    make_status,
    new_id,
    page_bounds,
)
from clarigrpc.local.store import Collection, DuplicateIdError

_Code = v2.StatusCode


def steps(scope: Scope) -> Collection:
    """Where the pipeline steps of an app are kept."""
    return Collection("pipeline_step", scope.user_id, scope.app_id)


def step_versions(scope: Scope, step_id: str) -> Collection:
    """Where the versions of a pipeline step are kept."""
    return Collection("pipeline_step_version", scope.user_id, scope.app_id, step_id)


def post_pipeline_steps(
    context: Context, request: v2.PostPipelineStepsRequest
) -> v2.MultiPipelineStepResponse:
    scope = context.writable(request.user_app_id)
    if not request.pipeline_steps:
        raise ServiceError(_Code.PIPELINE_STEP_INVALID_REQUEST, "the request has no steps")
    response = v2.MultiPipelineStepResponse(status=make_status(_Code.SUCCESS))
    # A step has no status of its own to say that it failed: all are made, or none.
    with context.state.store.transaction():
        for given in request.pipeline_steps:
            made = response.pipeline_steps.add()
            made.CopyFrom(given)
            made.ClearField("pipeline_step_version")
            made.id = given.id or new_id()
            made.user_id = scope.user_id
            made.created_at.GetCurrentTime()
            made.modified_at.CopyFrom(made.created_at)
            try:
                context.state.store.insert(steps(scope), made.id, made.SerializeToString())
            except DuplicateIdError:
                raise ServiceError(
                    _Code.DATABASE_DUPLICATE_KEY, f"there is a step {made.id!r} already"
                ) from None
    return response


def get_pipeline_step(
    context: Context, request: v2.GetPipelineStepRequest
) -> v2.SinglePipelineStepResponse:
    scope = context.scope(request.user_app_id)
    row = context.state.store.get(steps(scope), request.pipeline_step_id)
    if row is None:
        raise _no_step(request.pipeline_step_id)
    return v2.SinglePipelineStepResponse(
        status=make_status(_Code.SUCCESS), pipeline_step=_described(context, scope, row.body)
    )


def list_pipeline_steps(
    context: Context, request: v2.ListPipelineStepsRequest
) -> v2.MultiPipelineStepResponse:
    scope = context.scope(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    rows = context.state.store.page(steps(scope), offset, limit)
    return v2.MultiPipelineStepResponse(
        status=make_status(_Code.SUCCESS),
        pipeline_steps=[_described(context, scope, row.body) for row in rows],
    )


def _described(context: Context, scope: Scope, body: bytes) -> v2.PipelineStep:
    """The step with its newest version in it."""
    step = v2.PipelineStep.FromString(body)
    newest = context.state.store.page(step_versions(scope, step.id), 0, 1)
    if newest:
        step.pipeline_step_version.CopyFrom(_version(context, newest[0].body))
    return step


def get_pipeline_step_version(
    context: Context, request: v2.GetPipelineStepVersionRequest
) -> v2.SinglePipelineStepVersionResponse:
    scope = context.scope(request.user_app_id)
    row = context.state.store.get(
        step_versions(scope, request.pipeline_step_id), request.pipeline_step_version_id
    )
    if row is None:
        raise ServiceError(
            _Code.PIPELINE_STEP_DOES_NOT_EXIST,
            f"step {request.pipeline_step_id!r} has no version "
            f"{request.pipeline_step_version_id!r}",
        )
    return v2.SinglePipelineStepVersionResponse(
        status=make_status(_Code.SUCCESS), pipeline_step_version=_version(context, row.body)
    )


def list_pipeline_step_versions(
    context: Context, request: v2.ListPipelineStepVersionsRequest
) -> v2.MultiPipelineStepVersionResponse:
    scope = context.scope(request.user_app_id)
    store = context.state.store
    if store.get(steps(scope), request.pipeline_step_id) is None:
        raise _no_step(request.pipeline_step_id)
    offset, limit = page_bounds(request.page, request.per_page)
    # Not filtered in SQL: what is built becomes ready by the passing of time.
    versions = [
        _version(context, row.body)
        for row in store.page(step_versions(scope, request.pipeline_step_id), 0, -1)
    ]
    wanted = set(request.status_codes)
    kept = [version for version in versions if not wanted or version.status.code in wanted]
    return v2.MultiPipelineStepVersionResponse(
        status=make_status(_Code.SUCCESS), pipeline_step_versions=kept[offset : offset + limit]
    )


def _version(context: Context, body: bytes) -> v2.PipelineStepVersion:
    version = v2.PipelineStepVersion.FromString(body)
    if version.status.code == _Code.PIPELINE_STEP_BUILDING and is_built(
        version.modified_at, context.state.build_seconds
    ):
        version.status.CopyFrom(make_status(_Code.PIPELINE_STEP_READY, version.status.details))
    return version


def _no_step(step_id: str) -> ServiceError:
    return ServiceError(
        _Code.PIPELINE_STEP_DOES_NOT_EXIST, f"there is no pipeline step {step_id!r}"
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostPipelineSteps": post_pipeline_steps,
    "GetPipelineStep": get_pipeline_step,
    "ListPipelineSteps": list_pipeline_steps,
    "GetPipelineStepVersion": get_pipeline_step_version,
    "ListPipelineStepVersions": list_pipeline_step_versions,
}
