"""text-stream: a text model that streams. It learned nothing: it says what it was told."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clarigrpc import v2
from clarigrpc.local import media
from clarigrpc.local.core import ServiceError
from clarigrpc.local.runtime import Options, Runtime

_TOKEN = re.compile(r"\s*\S+|\s+$")


class TextStream(Runtime):
    """Gives its prompt back, one word with the white space before it at a time."""

    def predict(self, data: v2.Data, options: Options) -> v2.Data:
        return _text(_prompt(data, options))

    def generate(self, data: v2.Data, options: Options) -> Iterator[v2.Data]:
        for token in _TOKEN.findall(_prompt(data, options)):
            yield _text(token)


def _text(text: str) -> v2.Data:
    data = v2.Data()
    data.text.raw = text
    return data


def _prompt(data: v2.Data, options: Options) -> str:
    if not data.HasField("text"):
        raise ServiceError(v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, "text-stream needs data.text")
    media.check(data)
    try:
        return media.content_of(data, options.fetcher).decode()
    except UnicodeDecodeError as error:
        raise ServiceError(
            v2.StatusCode.INPUT_UNSUPPORTED_FORMAT, "the text is not UTF-8"
        ) from error
