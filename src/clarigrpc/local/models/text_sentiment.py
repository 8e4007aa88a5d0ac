"""text-sentiment: whether an English text is positive or negative, by the VADER lexicon."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from clarigrpc import v2
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime, limit_concepts
from clarigrpc.local.models.text_stream import text_of

SENTIMENTS = ("positive", "neutral", "negative")


class TextSentiment(Runtime):
    """Concepts ``positive``, ``neutral`` and ``negative``, whose values add up to 1.

    VADER adds up the ratings of known words, with rules for negation, degree and emphasis, to a
    compound score from -1 to 1. What of it is above 0 is the value of ``positive``, what is below
    that of ``negative``, and ``neutral`` has the rest. ``data.metadata`` has the compound.
    """

    @cached_property
    def _analyzer(self) -> Any:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        return SentimentIntensityAnalyzer()

    def compound(self, text: str) -> float:
        """The compound score of a text, -1 to 1."""
        score: float = self._analyzer.polarity_scores(text)["compound"]
        return score

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        compound = self.compound(text_of(data, options.fetcher))
        values = (max(compound, 0.0), 1.0 - abs(compound), max(-compound, 0.0))
        concepts = [
            v2.Concept(id=name, name=name, value=value, app_id="main", user_id="clarifai")
            for value, name in sorted(zip(values, SENTIMENTS, strict=True), reverse=True)
        ]
        result = v2.Data(concepts=limit_concepts(concepts, options.output_config))
        result.metadata.fields["compound"].number_value = compound
        return result
