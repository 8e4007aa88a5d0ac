"""Models that run in runners: which runners may take a prediction, and what becomes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

from clarigrpc import v2
from clarigrpc._rpc import statuses
from clarigrpc._rpc.request_facts import METHOD_NAME
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.resource_kinds import nodepools_of
from clarigrpc.local.engine.runner_queues import RunnerPlace, RunnerQueues, UnavailableRunnerError
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.resource_facts import is_public, new_id
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode


def serves(worker: v2.Model, model: v2.Model) -> bool:
    """Whether a worker, of a runner or a deployment, is this version of this model.

    What either leaves open fits.
    """
    pairs = (
        (worker.user_id, model.user_id),
        (worker.app_id, model.app_id),
        (worker.model_version.id, model.model_version.id),
    )
    return worker.id == model.id and all(not a or not b or a == b for a, b in pairs)


def runners_of(context: Context, user_id: str, model: v2.Model) -> list[v2.Runner]:
    """The runners of a user that serve this version of a model, newest first."""
    rows = context.state.store.walk(StoredCollection("runner", user_id, ""))
    found = (v2.Runner.FromString(row.body) for row in rows)
    return [runner for runner in found if serves(runner.worker.model, model)]


def replica_count(context: Context, model: v2.Model) -> int:
    """Workers of the runners of a model's owner that serve it, or the version that it names."""
    owner = model.user_id
    return sum(
        context.state.runners.counts((owner, runner.id)).running
        for runner in runners_of(context, owner, model)
    )


def place_of(user_id: str, runner: v2.Runner) -> RunnerPlace:
    """A runner as the queues know it."""
    pool = runner.nodepool
    return RunnerPlace(
        (user_id, runner.id),
        (user_id, pool.compute_cluster.id, pool.id) if pool.id else (user_id, runner.id),
    )


def selected_deployment(context: Context, selector: v2.RunnerSelector) -> v2.Deployment | None:
    """The deployment that a request names, None where it names none.

    Raises:
        ServiceError: There is none that the caller may use, or it is disabled.
    """
    wanted = selector.deployment
    if not wanted.id:
        return None
    user_id = wanted.user_id or context.caller.user_id
    row = context.state.store.get(StoredCollection("deployment", user_id, ""), wanted.id)
    found = None if row is None else v2.Deployment.FromString(row.body)
    if found is None or (user_id != context.caller.user_id and not is_public(found)):
        raise ServiceError(
            StatusCode.DEPLOYMENT_DOES_NOT_EXIST, f"deployment {wanted.id!r} does not exist"
        )
    if found.status == v2.Deployment.DISABLED:
        raise ServiceError(StatusCode.DEPLOYMENT_DISABLED, f"deployment {wanted.id!r} is disabled")
    return found


def remote_runtime(
    context: Context,
    request: v2.PostModelOutputsRequest,
    app: UserApp,
    model_id: str,
    version: v2.ModelVersion,
) -> RemoteRuntime:
    """The runners that a prediction may go to.

    Args:
        context: The call of the prediction.
        request: The prediction; its selector may leave out runners.
        app: Where its model is.
        model_id: Id of the model.
        version: The version of the model that is asked for.

    Raises:
        ServiceError: Nothing runs the model, or what the selector names does not.
    """
    model = v2.Model(id=model_id, user_id=app.user_id, app_id=app.app_id)
    model.model_version.id = version.id
    selector = request.runner_selector
    deployment = selected_deployment(context, selector)
    if deployment is not None and not serves(deployment.worker.model, model):
        raise ServiceError(
            StatusCode.DEPLOYMENT_INVALID_REQUEST,
            f"deployment {deployment.id!r} does not serve version {version.id!r} of "
            f"model {model.id!r}",
        )
    owner = app.user_id
    if deployment is not None:
        owner = deployment.user_id
    elif selector.nodepool.compute_cluster.user_id == context.caller.user_id:
        owner = context.caller.user_id
    runners = [
        runner
        for runner in runners_of(context, owner, model)
        if _is_selected(runner, selector, deployment)
    ]
    deployments = [] if deployment is not None else _deployments_of(context, owner, model)
    enabled = [runner for runner in runners if _is_enabled(runner, deployments)]
    if runners and not enabled:
        raise ServiceError(
            StatusCode.DEPLOYMENT_DISABLED, f"the deployments of model {model.id!r} are disabled"
        )
    if enabled:
        places = [place_of(owner, runner) for runner in enabled]
        named = v2.PostModelOutputsRequest(model_id=model.id, version_id=version.id)
        named.user_app_id.user_id, named.user_app_id.app_id = app.user_id, app.app_id
        if request.HasField("model"):
            named.model.CopyFrom(request.model)
        return RemoteRuntime(context.state.runners, places, named, version, context.call.remaining)
    if deployment is not None:
        deployments = [deployment]
    raise _none(model, selector, deployments)


def _none(
    model: v2.Model, selector: v2.RunnerSelector, deployments: Sequence[v2.Deployment]
) -> ServiceError:
    """Why no runner may take a prediction."""
    if not selector.runner.id and any(_is_on(found, selector.nodepool) for found in deployments):
        return ServiceError(
            StatusCode.MODEL_DEPLOYING, f"no runner of model {model.id!r} is there yet"
        )
    if selector.ByteSize():
        return ServiceError(
            StatusCode.RUNNER_DOES_NOT_EXIST,
            f"nothing that the runner selector names serves model {model.id!r}",
        )
    return ServiceError(
        StatusCode.NOT_IMPLEMENTED,
        "the local server does not run uploaded versions; start a runner for the model",
    )


def _is_selected(
    runner: v2.Runner, selector: v2.RunnerSelector, deployment: v2.Deployment | None
) -> bool:
    if selector.runner.id and selector.runner.id != runner.id:
        return False
    place = (runner.nodepool.compute_cluster.id, runner.nodepool.id)
    pool = selector.nodepool
    if pool.id and (pool.id != place[1] or pool.compute_cluster.id not in ("", place[0])):
        return False
    return deployment is None or place in nodepools_of(deployment)


def _deployments_of(context: Context, user_id: str, model: v2.Model) -> list[v2.Deployment]:
    rows = context.state.store.walk(StoredCollection("deployment", user_id, ""))
    found = (v2.Deployment.FromString(row.body) for row in rows)
    return [deployment for deployment in found if serves(deployment.worker.model, model)]


def _is_enabled(runner: v2.Runner, deployments: Sequence[v2.Deployment]) -> bool:
    """Whether a runner is in no deployment, or in one that is enabled."""
    place = (runner.nodepool.compute_cluster.id, runner.nodepool.id)
    its = [deployment for deployment in deployments if place in nodepools_of(deployment)]
    return not its or any(deployment.status != v2.Deployment.DISABLED for deployment in its)


def _is_on(deployment: v2.Deployment, pool: v2.Nodepool) -> bool:
    """Whether a deployment is on a nodepool; on any if none is named."""
    return not pool.id or pool.id in {pool_id for _, pool_id in nodepools_of(deployment)}


class RemoteRuntime(Runtime):
    """A model that runs in a runner.

    Args:
        queues: Where its work waits.
        places: The runners that may take it.
        request: The items' requests, but for the inputs.
        version: The version that is asked for, with the signatures of its methods if it has any.
        remaining: Seconds left until the caller's deadline, None without one.
    """

    def __init__(
        self,
        queues: RunnerQueues,
        places: Sequence[RunnerPlace],
        request: v2.PostModelOutputsRequest,
        version: v2.ModelVersion,
        remaining: Callable[[], float | None],
    ) -> None:
        self._queues = queues
        self._places = places
        self._request = request
        self._version = version
        self._remaining = remaining

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        (work,) = self.predict_each([data], options)
        return work().data

    def predict_each(
        self, data: Sequence[v2.Data], options: PredictOptions
    ) -> list[Callable[[], v2.Output]]:
        """All inputs are one item, as the caller sent them."""
        try:
            outputs = self._run(data, v2.RunnerMethodType.UNARY_UNARY, options)
            with contextlib.closing(outputs):
                response = next(outputs, None)
            return _results(response, len(data))
        except UnavailableRunnerError:
            raise
        except ServiceError as error:
            return [partial(_fail, error)] * len(data)

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Output]:
        yield from _each(self._run([data], v2.RunnerMethodType.UNARY_STREAMING, options))

    def is_duplex(self, data: v2.Data) -> bool:
        """Whether the method takes a stream; one that nothing is known of does."""
        name = (
            data.metadata.fields[METHOD_NAME].string_value if METHOD_NAME in data.metadata else ""
        )
        for signature in self._version.method_signatures:
            if signature.name == (name or "stream"):
                return signature.method_type in (
                    v2.RunnerMethodType.STREAMING_STREAMING,
                    v2.RunnerMethodType.STREAMING_UNARY,
                )
        return True

    def converse(self, data: Iterator[v2.Data], options: PredictOptions) -> Iterator[v2.Output]:
        first = next(data)
        rest = (self._request_of([each]) for each in data)
        yield from _each(self._run([first], v2.RunnerMethodType.STREAMING_STREAMING, options, rest))

    def _run(
        self,
        data: Sequence[v2.Data],
        method_type: v2.RunnerMethodType.ValueType,
        options: PredictOptions,
        rest: Iterator[v2.PostModelOutputsRequest] | None = None,
    ) -> Generator[v2.MultiOutputResponse]:
        item = v2.RunnerItem()
        item.processing_info.runner_method_type = method_type
        if rest is not None:
            item.processing_info.status.code = StatusCode.RUNNER_STREAM_START
        item.post_model_outputs_request.CopyFrom(self._request_of(data))
        return self._queues.run(self._places, item, options.is_active, self._remaining(), rest)

    def _request_of(self, data: Sequence[v2.Data]) -> v2.PostModelOutputsRequest:
        request = v2.PostModelOutputsRequest()
        request.CopyFrom(self._request)
        for each in data:
            request.inputs.add(id=new_id()).data.CopyFrom(each)
        return request


def _each(responses: Generator[v2.MultiOutputResponse]) -> Iterator[v2.Output]:
    """The outputs of a stream for one input."""
    with contextlib.closing(responses):
        for response in responses:
            yield _results(response, 1)[0]()


def _results(response: v2.MultiOutputResponse | None, count: int) -> list[Callable[[], v2.Output]]:
    """What a runner answered for each input: gives the output, or raises ServiceError."""
    outputs = response.outputs if response is not None else ()
    if len(outputs) != count:
        status = response.status if response is not None else v2.Status()
        is_reason = status.code not in statuses.PASSING and status.code
        raise ServiceError(
            status.code if is_reason else StatusCode.RUNNER_PROCESSING_FAILED,
            (status.details if is_reason else "")
            or f"the runner returned {len(outputs)} outputs for {count} inputs",
        )
    return [partial(_result, output) for output in outputs]


def _result(output: v2.Output) -> v2.Output:
    if output.status.code not in statuses.PASSING and output.status.code:
        raise ServiceError(output.status.code, output.status.details)
    return output


def _fail(error: ServiceError) -> v2.Output:
    raise error
