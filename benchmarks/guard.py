"""``python -m benchmarks.guard``: fail when a hot path has become slower.

What is measured is what clarigrpc itself adds: the channel below is replaced by one that answers
at once, so there is no network, no server and no waiting, only CPU. Each path is compared with the
plain way to do the same in the same process (the generated stub over that same channel, protobuf,
``list(vector)``), so that the figure is a ratio, which differs between machines by a third at most
(2.8 to 3.8 for ``client.v2``). The bounds in ``guard.json`` are the ratios of a good state times
``MARGIN``, on the machine where they are highest; a path that is above its bound is measured again
before it counts. ``--update`` writes new bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from benchmarks.workers import neutral_environment
from clarigrpc import AsyncClient, Client, text, v2
from clarigrpc._rpc.encoding import PredictEncoder
from clarigrpc.arrays import output_embeddings

BOUNDS = Path(__file__).with_name("guard.json")
MARGIN = 1.3
ROUNDS = 15
TRIES = 3
TOKENS = 500
BATCH = 128

Work = Callable[[], Any]


class _Call:
    """A call that is over, in every way that a channel hands one out."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._answer
        yield  # makes this a generator

    def result(self, timeout: float | None = None) -> bytes:
        return self._answer

    def cancel(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def trailing_metadata(self) -> tuple[()]:
        return ()


class _Stream:
    """A server stream that is there already."""

    def __init__(self, answers: Iterator[bytes]) -> None:
        self._answers = answers

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._answers)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def cancel(self) -> bool:
        return False


class _Method:
    """A multicallable of the channel below."""

    def __init__(self, answers: dict[int, bytes], serialize: Any, deserialize: Any) -> None:
        self._answers = answers
        self._serialize = serialize
        self._deserialize = deserialize

    def _one(self, request: Any) -> Any:
        payload = self._serialize(request) if self._serialize else request
        # Requests of one input are short; the others of this file have BATCH.
        answer = self._answers[1 if len(payload) < 200 else BATCH]
        return self._deserialize(answer) if self._deserialize else answer

    def __call__(self, request: Any, *options: Any, **named: Any) -> Any:
        return self._one(request)

    def with_call(self, request: Any, *options: Any, **named: Any) -> Any:
        answer = self._one(request)
        return answer, _Call(answer)

    def future(self, request: Any, *options: Any, **named: Any) -> Any:
        return _Call(self._one(request))


class _AioMethod(_Method):
    def __call__(self, request: Any, *options: Any, **named: Any) -> Any:
        return _Call(self._one(request))


class _StreamMethod(_Method):
    def __call__(self, request: Any, *options: Any, **named: Any) -> Any:
        deserialize = self._deserialize or (lambda answer: answer)
        return _Stream(map(deserialize, itertools.repeat(self._one_token, TOKENS)))

    @property
    def _one_token(self) -> bytes:
        return self._answers[1]


class _Channel:
    """The channel of the stub, and the transport of the client: it answers at once."""

    def __init__(self, method: type[_Method]) -> None:
        self._method = method
        self._answers = {count: _response(count).SerializeToString() for count in (1, BATCH)}

    def multicallable(self, kind: str, path: str) -> _Method:
        """For a client, whose transport this is."""
        return getattr(self, kind)(path)  # type: ignore[no-any-return]

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> _Method:
        return self._method(self._answers, request_serializer, response_deserializer)

    def unary_stream(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> _Method:
        return _StreamMethod(self._answers, request_serializer, response_deserializer)

    stream_stream = stream_unary = unary_unary

    def close(self) -> None:
        """Nothing is open."""


def _response(count: int) -> v2.MultiOutputResponse:
    response = v2.MultiOutputResponse()
    response.status.code = v2.StatusCode.SUCCESS
    for number in range(count):
        output = response.outputs.add(id=f"output-{number}")
        output.status.code = v2.StatusCode.SUCCESS
        output.data.text.raw = "token"
    return response


def _request(count: int = 1) -> v2.PostModelOutputsRequest:
    return v2.PostModelOutputsRequest(
        user_app_id=v2.UserAppIDSet(user_id="user", app_id="app"),
        model_id="model",
        inputs=[text("a short text")] * count,
    )


SETTINGS: dict[str, Any] = {
    "base": "http://127.0.0.1:1",
    "pat": "benchmark-token-0000",
    "user_id": "user",
    "app_id": "app",
}
METADATA = (("authorization", "Key benchmark-token-0000"),)


def _times(count: int, work: Work) -> Work:
    def repeated() -> None:
        for _ in range(count):
            work()

    return repeated


def _blocking() -> dict[str, tuple[Work, Work]]:
    channel: Any = _Channel(_Method)
    client = Client(**SETTINGS)
    client.channel.shared.current = channel
    model, value, request = client.model("model"), text("a short text"), _request()
    stub = v2.V2Stub(channel)
    many = _request(BATCH)
    raw = _times(1000, lambda: stub.PostModelOutputs(request, timeout=60, metadata=METADATA))
    raw_stream = stub.GenerateModelOutputs
    return {
        "client.v2 / stub": (_times(1000, lambda: client.v2.PostModelOutputs(request)), raw),
        "model.predict / stub": (_times(1000, lambda: model.predict(value)), raw),
        "predict_many / stub with lists": (
            lambda: sum(1 for _ in model.predict_many([value] * BATCH * 20, batch_size=BATCH)),
            _times(20, lambda: list(stub.PostModelOutputs(many).outputs)),
        ),
        "generate / stub": (
            _times(4, lambda: sum(1 for _ in model.generate(value))),
            _times(4, lambda: sum(1 for _ in raw_stream(request, timeout=60))),
        ),
    }


def _awaiting(runner: asyncio.Runner) -> dict[str, tuple[Work, Work]]:
    channel: Any = _Channel(_AioMethod)
    request = _request()

    async def make() -> AsyncClient:
        client = AsyncClient(**SETTINGS)
        client.channel.shared.transport()
        real, client.channel.shared.current = client.channel.shared.current, channel
        assert real is not None
        await real.close(None)
        return client

    client = runner.run(make())
    post = client.v2.PostModelOutputs
    raw = channel.unary_unary(
        "",
        request_serializer=v2.PostModelOutputsRequest.SerializeToString,
        response_deserializer=v2.MultiOutputResponse.FromString,
    )

    def loop(call: Callable[[], Any]) -> Work:
        async def calls() -> None:
            for _ in range(1000):
                await call()

        return lambda: runner.run(calls())

    return {
        "asyncio: client.v2 / stub": (
            loop(lambda: post(request)),
            loop(lambda: raw(request, timeout=60, metadata=METADATA)),
        )
    }


def _encodings() -> dict[str, tuple[Work, Work]]:
    encoder, content = PredictEncoder(_request(0)), bytes(1_000_000)
    embedded = v2.MultiOutputResponse()
    for _ in range(16):
        embedded.outputs.add().data.embeddings.add(vector=[0.5] * 1024)

    def by_protobuf() -> bytes:
        request = _request(0)
        request.inputs.add().data.image.base64 = content
        return request.SerializeToString()

    return {
        "1 MB image / protobuf": (
            _times(20, lambda: encoder.encode((content,))),
            _times(20, by_protobuf),
        ),
        "output_embeddings / list(vector)": (
            _times(20, lambda: output_embeddings(embedded)),
            _times(5, lambda: [list(o.data.embeddings[0].vector) for o in embedded.outputs]),
        ),
    }


def _importing(statement: str) -> Work:
    def work() -> float:
        code = f"import time; s = time.process_time(); {statement}; print(time.process_time() - s)"
        output = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=neutral_environment(),
        )
        return float(output.stdout)

    return work


def _ratio(variant: Work, reference: Work) -> float:
    """CPU of the one over CPU of the other, each at its best: what disturbs only adds."""
    best = {variant: float("inf"), reference: float("inf")}
    for number in range(ROUNDS + 1):
        for work in (variant, reference) if number % 2 else (reference, variant):
            start = time.process_time()
            told = work()
            taken = told if isinstance(told, float) else time.process_time() - start
            if number:
                best[work] = min(best[work], taken)
    return best[variant] / best[reference]


def main() -> int:
    """Measure all paths and compare them with their bounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the bounds anew")
    arguments = parser.parse_args()
    bounds: dict[str, float] = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {}
    found: dict[str, float] = {}
    lost = []
    with asyncio.Runner() as runner:
        paths = {
            **_blocking(),
            **_awaiting(runner),
            **_encodings(),
            "import of Client / grpc": (
                _importing("import clarigrpc; clarigrpc.Client"),
                _importing("import grpc"),
            ),
        }
        for name, pair in paths.items():
            bound = bounds.get(name, 0.0)
            for _ in range(1 if arguments.update else TRIES):
                found[name] = min(found.get(name, float("inf")), _ratio(*pair))
                if found[name] <= bound:
                    break
            else:
                lost.append(name)
            print(f"{name:34} {found[name]:7.3f}   bound {bound:7.3f}", flush=True)
    if arguments.update:
        new = {name: float(f"{ratio * MARGIN:.3g}") for name, ratio in found.items()}
        BOUNDS.write_text(json.dumps(new, indent=1) + "\n")
        return 0
    for name in lost:
        print(f"SLOWER: {name}: {found[name]:.3f}, bound {bounds.get(name, 0.0):.3f}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
