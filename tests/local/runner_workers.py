"""Models that run in runners, and workers for them: raw stubs, as other languages have them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, Self

import grpc

from clarigrpc import v2
from tests.local.conftest import Raw, ok

Code = v2.StatusCode


class RemoteModel:
    """A model with a version that runs elsewhere, and a runner for it, both with one id."""

    def __init__(
        self, raw: Raw, name: str, nodepool: str = "", cluster: str = "", *, app_id: str = ""
    ) -> None:
        self.raw = raw
        self.name = name
        self.app = v2.UserAppIDSet(app_id=app_id or raw.server.app_id)
        models = v2.PostModelsRequest(user_app_id=self.app, models=[v2.Model(id=name)])
        ok(raw("PostModels", models))
        request = v2.PostModelVersionsRequest(user_app_id=self.app, model_id=name)
        request.model_versions.add().pretrained_model_config.local_dev = True
        self.version_id: str = ok(raw("PostModelVersions", request)).model.model_version.id
        self.add_runner(name, nodepool, cluster)

    def add_runner(self, runner_id: str, nodepool: str = "", cluster: str = "") -> None:
        request = v2.PostRunnersRequest(nodepool_id=nodepool, compute_cluster_id=cluster)
        runner = request.runners.add(id=runner_id, num_replicas=1)
        runner.worker.model.id = self.name
        runner.worker.model.app_id = self.app.app_id
        runner.worker.model.model_version.id = self.version_id
        ok(self.raw("PostRunners", request))

    def worker(self, **settings: Any) -> Worker:
        return Worker(self.raw, settings.pop("runner_id", self.name), **settings)

    def request(self, *texts: str, method: str = "") -> v2.PostModelOutputsRequest:
        request = v2.PostModelOutputsRequest(user_app_id=self.app, model_id=self.name)
        for text in texts:
            data = request.inputs.add().data
            data.text.raw = text
            if method:
                data.metadata["_method_name"] = method
        return request

    def predict(self, *texts: str, timeout: float = 20) -> v2.MultiOutputResponse:
        return self.raw("PostModelOutputs", self.request(*texts), timeout=timeout)  # type: ignore[no-any-return]

    def generate(self, text: str) -> Any:
        stub, metadata = self.raw.stub, self.raw.metadata
        return stub.GenerateModelOutputs(self.request(text), metadata=metadata, timeout=20)

    def stream(self, requests: Iterator[v2.PostModelOutputsRequest]) -> Any:
        stub, metadata = self.raw.stub, self.raw.metadata
        return stub.StreamModelOutputs(requests, metadata=metadata, timeout=20)

    def counts(self) -> v2.RunnerMetrics:
        response = ok(self.raw("GetRunner", v2.GetRunnerRequest(runner_id=self.name)))
        return response.runner.runner_metrics  # type: ignore[no-any-return]


class Worker:
    """A call for work, which asks for one item when it begins.

    Args:
        raw: The server and a credential.
        runner_id: Whose worker it is.
        replica: Which of the runner's processes it is.
        control: A control call, which brings cancellations.
        user_id: Owner of the runner, by default the owner of the credential.
    """

    def __init__(
        self,
        raw: Raw,
        runner_id: str,
        *,
        replica: str = "one",
        control: bool = False,
        user_id: str = "",
    ) -> None:
        self._runner_id = f"control-{runner_id}" if control else runner_id
        self._outgoing: queue.Queue[v2.PostRunnerItemOutputsRequest | None] = queue.Queue()
        first = v2.PostRunnerItemOutputsRequest(
            runner_id=self._runner_id, runner_replica_id=replica
        )
        first.user_app_id.user_id = user_id
        first.status.code = Code.RUNNER_STREAM_START
        self.outgoing(first)
        self.sent = 0
        self.call = raw.stub.ProcessRunnerItems(self._messages(), metadata=raw.metadata, timeout=60)

    def _messages(self) -> Iterator[v2.PostRunnerItemOutputsRequest]:
        while (message := self._outgoing.get()) is not None:
            yield message
            self.sent += 1

    def outgoing(self, message: v2.PostRunnerItemOutputsRequest) -> None:
        """Sends a message."""
        self._outgoing.put(message)

    def take(self) -> v2.RunnerItem:
        """The next item."""
        response = next(self.call)
        assert response.status.code in (Code.SUCCESS, Code.RUNNER_STREAM_END), response
        (item,) = response.runner_items
        return item

    def ask(self) -> None:
        """Asks for one more item."""
        message = v2.PostRunnerItemOutputsRequest(runner_id=self._runner_id)
        message.status.code = Code.RUNNER_STREAM_START
        self.outgoing(message)

    def answer(self, item: v2.RunnerItem, *texts: str, code: Any = Code.SUCCESS) -> None:
        """Hands back outputs; by default the item's texts in capitals."""
        message = v2.PostRunnerItemOutputsRequest(runner_id=self._runner_id, runner_item_id=item.id)
        message.status.code = code
        given = [each.data.text.raw.upper() for each in item.post_model_outputs_request.inputs]
        if code == Code.SUCCESS:
            response = message.runner_item_outputs.add().multi_output_response
            response.status.code = Code.SUCCESS
            for text in texts or given:
                response.outputs.add(status=v2.Status(code=Code.SUCCESS)).data.text.raw = text
        self.outgoing(message)

    def close(self) -> None:
        """Sends no more, and waits until the server has ended the call."""
        self._outgoing.put(None)
        assert not any(response.runner_items for response in self.call)

    def cut(self) -> None:
        """Breaks the call off."""
        self.call.cancel()
        self._outgoing.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()


class Calling(threading.Thread):
    """A prediction in a thread of its own; ``result`` waits for its end."""

    def __init__(self, model: RemoteModel, *texts: str, timeout: float = 20) -> None:
        super().__init__()
        self._model, self._texts, self._timeout = model, texts, timeout
        self._response: v2.MultiOutputResponse | grpc.RpcError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._response = self._model.predict(*self._texts, timeout=self._timeout)
        except grpc.RpcError as error:
            self._response = error

    def result(self) -> v2.MultiOutputResponse:
        self.join(30)
        assert not self.is_alive()
        assert isinstance(self._response, v2.MultiOutputResponse), self._response
        return self._response

    def texts(self) -> list[str]:
        response = self.result()
        assert response.status.code == Code.SUCCESS, response
        return [output.data.text.raw for output in response.outputs]

    def status(self) -> v2.Status:
        """Of its only output."""
        (output,) = self.result().outputs
        return output.status
