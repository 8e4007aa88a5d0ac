"""What a runner sends: who it is, the outputs of an item, and why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from clarigrpc import v2
from clarigrpc.v2 import StatusCode


@dataclass(frozen=True, slots=True)
class RunnerIdentity:
    """Which replica of which runner a process is.

    Attributes:
        user_id: Owner of the runner.
        compute_cluster_id: Cluster of its nodepool.
        nodepool_id: Its nodepool.
        runner_id: Its id.
        replica_id: Tells replicas of the runner apart.
    """

    user_id: str
    compute_cluster_id: str
    nodepool_id: str
    runner_id: str
    replica_id: str

    def _message(self, code: StatusCode.ValueType) -> v2.PostRunnerItemOutputsRequest:
        return v2.PostRunnerItemOutputsRequest(
            user_app_id=v2.UserAppIDSet(user_id=self.user_id),
            compute_cluster_id=self.compute_cluster_id,
            nodepool_id=self.nodepool_id,
            runner_id=self.runner_id,
            runner_replica_id=self.replica_id,
            status=v2.Status(code=code),
        )

    def hello(self) -> v2.PostRunnerItemOutputsRequest:
        """The first message of a call that asks for an item."""
        return self._message(StatusCode.RUNNER_STREAM_START)

    def control_hello(self) -> v2.PostRunnerItemOutputsRequest:
        """The first message of the call over which cancellations come."""
        message = self.hello()
        message.runner_id = f"control-{self.runner_id}"
        return message

    def outputs(
        self, item_id: str, response: v2.MultiOutputResponse
    ) -> v2.PostRunnerItemOutputsRequest:
        """The outputs of an item, or one part of them."""
        message = self._message(StatusCode.SUCCESS)
        message.runner_item_id = item_id
        message.runner_item_outputs.add().multi_output_response.CopyFrom(response)
        return message

    def end(
        self, item_id: str, code: StatusCode.ValueType, details: str = ""
    ) -> v2.PostRunnerItemOutputsRequest:
        """No further outputs of an item come.

        Args:
            item_id: Id of the item.
            code: RUNNER_STREAM_END after all of them; else why there are none.
            details: Text for the caller.
        """
        message = self._message(code)
        message.status.details = details
        message.runner_item_id = item_id
        return message
