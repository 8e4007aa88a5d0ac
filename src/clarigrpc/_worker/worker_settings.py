"""The settings of a worker, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from clarigrpc._config.option_types import check_types
from clarigrpc._worker.item_loop import ASK_SECONDS, SETTLE_SECONDS
from clarigrpc.errors import ConfigurationError

_CONCURRENCY = 4
_MOST = 1024


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works; ``clarigrpc.runner.RunnerOptions`` explains the fields.

    Raises:
        ConfigurationError: One is of a wrong type or out of range.
    """

    runner_id: str = ""
    nodepool_id: str = ""
    compute_cluster_id: str = ""
    user_id: str = ""
    model_id: str = ""
    app_id: str = ""
    model_user_id: str = ""
    version_id: str = ""
    replica_id: str = ""
    concurrency: int | None = None
    max_batch: int = 1
    max_delay: float = 0.005
    item_timeout: float = 3600.0
    grace: float = 30.0
    fetch: Callable[[str], bytes] | None = None
    health_port: int | None = None
    health_host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        check_types(self, "a runner")
        if not self.runner_id:
            raise ConfigurationError(
                "there is no runner id: pass runner_id=, or set CLARIFAI_RUNNER_ID"
            )
        if self.concurrency is not None and not 1 <= self.concurrency <= _MOST:
            raise ConfigurationError(f"concurrency must be 1 to {_MOST}, not {self.concurrency}")
        if not 1 <= self.max_batch <= _MOST:
            raise ConfigurationError(f"max_batch must be 1 to {_MOST}, not {self.max_batch}")
        for name in ("max_delay", "grace"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"{name} must be a finite number of seconds, 0 or more, not "
                    f"{getattr(self, name)}"
                )
        if not 0 < self.item_timeout < math.inf:
            raise ConfigurationError(
                f"item_timeout must be a finite number of seconds above 0, not {self.item_timeout}"
            )
        if self.health_port is not None and not 0 <= self.health_port <= 65535:
            raise ConfigurationError(f"health_port must be 0 to 65535, not {self.health_port}")

    @property
    def loops(self) -> int:
        """Number of items that run at once."""
        return self.concurrency or max(_CONCURRENCY, min(_MOST, 2 * self.max_batch))

    @property
    def call_seconds(self) -> float:
        """Deadline of a call that asks for an item and hands its outputs back."""
        return ASK_SECONDS + self.item_timeout + 2 * SETTLE_SECONDS
