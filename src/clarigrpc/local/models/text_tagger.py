"""A stand-in for the hosted moderation of texts: tags for what was counted, and for no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from clarigrpc import v2
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime, limit_concepts
from clarigrpc.local.models.text_sentiment import TextSentiment
from clarigrpc.local.models.text_stream import text_of

_LINK = re.compile(r"https?://|www\.", re.IGNORECASE)


@dataclass(frozen=True)
class TextTag:
    """One tag.

    Attributes:
        id: Id of its concept.
        meaning: What its value is, in a sentence for the documentation.
        value: Computes it, 0 to 1, from the text and its compound sentiment.
    """

    id: str
    meaning: str
    value: Callable[[str, float], float]

    @property
    def name(self) -> str:
        """Name of its concept."""
        return self.id.replace("-", " ")


def _capitals(text: str) -> float:
    letters = [letter for letter in text if letter.lower() != letter.upper()]
    return sum(letter.isupper() for letter in letters) / len(letters) if len(letters) > 7 else 0.0


TEXT_TAGS = (
    TextTag(
        "negative",
        "What VADER's compound score of the text has below 0; English only",
        lambda text, compound: max(-compound, 0.0),
    ),
    TextTag(
        "positive",
        "What the compound score has above 0; English only",
        lambda text, compound: max(compound, 0.0),
    ),
    TextTag(
        "capital-letters",
        "Share of the letters that are capitals, 0 for fewer than 8 letters",
        lambda text, compound: _capitals(text),
    ),
    TextTag(
        "exclamation-marks",
        "Exclamation marks: 0 without, 1 from 5 on",
        lambda text, compound: min(sum(text.count(mark) for mark in "!！¡") / 5, 1.0),
    ),
    TextTag(
        "link",
        "1 if the text has `http://`, `https://` or `www.`, otherwise 0",
        lambda text, compound: float(_LINK.search(text) is not None),
    ),
)
"""All tags. What they mean is documented from here, see ``model_tables``."""


class TextTagger(Runtime):
    """Concepts for all tags, those with the highest values first.

    Args:
        sentiment: Computes the compound score.
    """

    def __init__(self, sentiment: TextSentiment) -> None:
        self._sentiment = sentiment

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        text = text_of(data, options.fetcher)
        compound = self._sentiment.compound(text)
        values = [(tag.value(text, compound), tag) for tag in TEXT_TAGS]
        concepts = [
            v2.Concept(id=tag.id, name=tag.name, value=value, app_id="main", user_id="clarifai")
            for value, tag in sorted(values, key=lambda pair: -pair[0])
        ]
        return v2.Data(concepts=limit_concepts(concepts, options.output_config))
