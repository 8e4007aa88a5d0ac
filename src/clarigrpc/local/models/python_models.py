"""A user's own Python function or class as a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc

from clarigrpc import v2
from clarigrpc._named_methods.annotations import MethodInputError
from clarigrpc._named_methods.method_loop import CallerGoneError
from clarigrpc._named_methods.python_methods import PythonMethods
from clarigrpc._named_methods.values import MediaReader
from clarigrpc.local.media import media_content
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.service_errors import CallAborted, ServiceError
from clarigrpc.v2 import StatusCode


class PythonModel(Runtime):
    """A function, or the public methods of an object, as a model.

    Args:
        source: A function; a class, of which one object is made; or an object.

    Calls come from several threads at once; asynchronous methods run on one event loop.
    """

    def __init__(self, source: Any) -> None:
        self._methods = PythonMethods(source)

    @property
    def signatures(self) -> list[v2.MethodSignature]:
        """What callers may call."""
        return self._methods.signatures

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        with _service_errors():
            run = self._methods.prepare(data, "predict", _Reader(options.fetcher))
            return next(run.results(options.is_active))

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data]:
        with _service_errors():
            run = self._methods.prepare(data, "generate", _Reader(options.fetcher))
            yield from run.results(options.is_active)

    def is_duplex(self, data: v2.Data) -> bool:
        with _service_errors():
            return self._methods.takes_stream(data)

    def converse(self, data: Iterator[v2.Data], options: PredictOptions) -> Iterator[v2.Data]:
        with _service_errors():
            first, reader = next(data), _Reader(options.fetcher)
            run = self._methods.prepare(first, "stream", reader)
            yield from run.results(options.is_active, _chained(first, data), reader)

    def close(self) -> None:
        self._methods.close()


@contextlib.contextmanager
def _service_errors() -> Iterator[None]:
    """What goes wrong in methods as failures of the service."""
    try:
        yield
    except MethodInputError as error:
        raise ServiceError(StatusCode.INPUT_INVALID_ARGUMENT, str(error)) from error
    except CallerGoneError as error:
        raise CallAborted(grpc.StatusCode.CANCELLED, str(error)) from error


def _chained(first: v2.Data, rest: Iterator[v2.Data]) -> Iterator[v2.Data]:
    yield first
    yield from rest


class _Reader(MediaReader):
    """Fetches the content that is a URL, and checks what it decodes."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def text(self, data: v2.Data) -> str:
        return media_content.content_of(data, self._fetcher).decode()

    def image(self, data: v2.Data) -> Any:
        content = media_content.content_of(data, self._fetcher)
        # From then on it is the model's.
        with media_content.open_image(content, self._fetcher.budget) as image:
            return image
