"""What a model of the local server is to the methods that predict with it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from clarigrpc import v2
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What a prediction may use besides its data.

    Attributes:
        fetcher: Downloads the URLs of inputs.
        output_config: Limits on the outputs, from the request.
        is_active: False once nobody waits for the result; long work then ends early.
    """

    fetcher: Fetcher
    output_config: v2.OutputConfig
    is_active: Callable[[], bool] = lambda: True


class Runtime(ABC):
    """A model that can run. Each method raises ServiceError for the input that it fails on.

    Attributes:
        crops_regions: Its output has regions with images of their own; what follows it in a
            workflow looks at each of these.
    """

    crops_regions = False

    @abstractmethod
    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        """The output for one input."""

    def predict_each(
        self, data: Sequence[v2.Data], options: PredictOptions
    ) -> Sequence[Callable[[], v2.Data | v2.Output]]:
        """What gives the output for each input; by default ``predict``, one after the other.

        An ``Output`` says besides how many tokens it took, as those of the two methods below can.
        """
        return [partial(self.predict, each, options) for each in data]

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data | v2.Output]:
        """The outputs for one input, piece by piece; by default the one of ``predict``."""
        yield self.predict(data, options)

    def is_duplex(self, data: v2.Data) -> bool:
        """Whether this input opens a conversation: then ``converse`` takes the whole stream."""
        return False

    def converse(
        self, data: Iterator[v2.Data], options: PredictOptions
    ) -> Iterator[v2.Data | v2.Output]:
        """Outputs while inputs arrive, where each depends on those before."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 (most models keep nothing running)
        """Ends what the model keeps running. A model can be used again afterwards."""


def predict(runtime: Runtime, data: v2.Data, options: PredictOptions) -> v2.Data:
    """The output for one input, for work in the background.

    Raises:
        ServiceError: The model refused the input, or MODEL_PREDICTION_FAILED for what it raised.
    """
    try:
        return runtime.predict(data, options)
    except ServiceError:
        raise
    except Exception as error:
        # A model may be anybody's function.
        _logger.exception("a prediction failed")
        details = f"{type(error).__name__}: {error}"
        raise ServiceError(StatusCode.MODEL_PREDICTION_FAILED, details) from error


def data_of(made: v2.Data | v2.Output) -> v2.Data:
    """What a model made, without the tokens that it took."""
    return made.data if isinstance(made, v2.Output) else made


def unknown_concepts(config: v2.OutputConfig, known: Iterable[v2.Concept]) -> list[str]:
    """Which of ``select_concepts`` a model does not have, by the id or name that selects them.

    Nothing is unknown of a model that does not say which concepts it has.
    """
    if not config.select_concepts:
        return []
    have = [(concept.id, concept.name) for concept in known]
    if not have:
        return []
    ids, names = ({pair[place] for pair in have} for place in (0, 1))
    return [
        concept.id or concept.name
        for concept in config.select_concepts
        if not ((concept.id and concept.id in ids) or (concept.name and concept.name in names))
    ]


def limit_concepts(concepts: list[v2.Concept], config: v2.OutputConfig) -> list[v2.Concept]:
    """Applies max_concepts, min_value and select_concepts; concepts come best first."""
    ids = {c.id for c in config.select_concepts if c.id}
    names = {c.name for c in config.select_concepts if c.name}
    kept = [
        c
        for c in concepts
        if c.value >= config.min_value
        and (not config.select_concepts or c.id in ids or c.name in names)
    ]
    return kept[: config.max_concepts or None]


def combined(*configs: v2.OutputConfig) -> v2.OutputConfig:
    """Settings of outputs, where what a later one sets replaces what earlier ones said."""
    result = v2.OutputConfig()
    for config in configs:
        if config.select_concepts:
            del result.select_concepts[:]
        result.MergeFrom(config)
    return result
