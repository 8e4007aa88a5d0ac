"""What ``client.stats`` returns. Apart from the counts, as only those who ask for it import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clarigrpc._public_names import named_in


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class MethodStats:
    """The calls of one method that have ended. Latencies in seconds, retries included.

    The latencies are those of calls that ended well; of a stream, the time that it was open. The
    quantiles come from a histogram and are off by up to 5 %.

    Attributes:
        method: Name of the method.
        succeeded: Number of calls that ended well.
        failed: Number of calls that raised an error, cancelled ones included.
        retries: Number of attempts after the first ones.
        errors: Number of failed calls by the name of the exception.
        mean: Mean latency. 0 without a call that ended well.
        p50: Latency that half of the calls did not exceed.
        p90: Latency that 90 % did not exceed.
        p99: Latency that 99 % did not exceed.
        max: Longest latency.
    """

    method: str
    succeeded: int
    failed: int
    retries: int
    errors: Mapping[str, int]
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class ClientStats:
    """What ``client.stats`` returns: the client's calls since it was made, its views included.

    In bulk work (``predict_many``, ``inputs.upload``) each attempt of a request counts as a call.

    Attributes:
        methods: By the name of the method; methods that were not called are not there.
        retry_budget: Number of retries that are allowed now; ``inf`` without a limit.
    """

    methods: Mapping[str, MethodStats]
    retry_budget: float

    @property
    def succeeded(self) -> int:
        """Number of calls that ended well."""
        return sum(one.succeeded for one in self.methods.values())

    @property
    def failed(self) -> int:
        """Number of calls that raised an error, cancelled ones included."""
        return sum(one.failed for one in self.methods.values())

    @property
    def retries(self) -> int:
        """Number of attempts after the first ones."""
        return sum(one.retries for one in self.methods.values())
