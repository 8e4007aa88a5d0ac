"""text-stream: a text model that streams. It learned nothing: it says what it was told."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clarigrpc import v2
from clarigrpc.local.media import media_content
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_WORD_WITH_SPACE = re.compile(r"\s*\S+|\s+$")


class TextStream(Runtime):
    """Gives its prompt back, one word with the white space before it at a time."""

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        return _text(text_of(data, options.fetcher))

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data]:
        for token in _WORD_WITH_SPACE.findall(text_of(data, options.fetcher)):
            yield _text(token)


def _text(text: str) -> v2.Data:
    data = v2.Data()
    data.text.raw = text
    return data


def text_of(data: v2.Data, fetcher: Fetcher) -> str:
    """The text of an input.

    Raises:
        ServiceError: INPUT_INVALID_ARGUMENT (30104) for no data, INPUT_UNSUPPORTED_FORMAT (30101)
            for data without text, or not in UTF-8.
    """
    media_content.require_data(data)
    if not data.HasField("text"):
        raise ServiceError(StatusCode.INPUT_UNSUPPORTED_FORMAT, "this model needs data.text")
    media_content.check(data)
    return media_content.decode_text(media_content.content_of(data, fetcher))
