"""Many calls or streams at once on one client, and streams of grpc.aio: clarigrpc and a stub.

The stub of these variants is that of ``clarigrpc.v2``, bound to a plain channel: for what a call
costs beside the messages, it is any generated stub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import json_format
from protocol import Config, Variant, counting, serve

from clarigrpc import AsyncClient, Client, text, v2


def _client(config: Config) -> dict[str, Any]:
    place = config.server
    ids = {name: place[name] for name in ("pat", "user_id", "app_id")}
    return {"base": config.base, **ids}


def _metadata(config: Config) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Key {config.server['pat']}"),)


def _request(config: Config) -> v2.PostModelOutputsRequest:
    place = config.server
    return v2.PostModelOutputsRequest(
        user_app_id=v2.UserAppIDSet(user_id=place["user_id"], app_id=place["app_id"]),
        model_id=place["model_id"],
        inputs=[v2.Input(data=v2.Data(text=v2.Text(raw=config.text)))],
    )


def _fields(output: v2.Output) -> dict[str, Any]:
    return json_format.MessageToDict(output.data, preserving_proto_field_name=True)


def _threads(call: Callable[[], Any]) -> Any:
    """Slices of calls by so many threads as are in flight, each with one call at a time."""

    def items(calls: int, in_flight: int) -> int:
        share = max(1, calls // in_flight)

        def work() -> None:
            for _ in range(share):
                call()

        with ThreadPoolExecutor(in_flight) as pool:
            for one in [pool.submit(work) for _ in range(in_flight)]:
                one.result()
        return share * in_flight

    return counting(items)


def threads(config: Config) -> Variant:
    """One input a call, from many threads on one client."""
    model, value = Client(**_client(config)).model(config.server["model_id"]), text(config.text)
    return Variant(_fields(model.predict(value)), _threads(lambda: model.predict(value)))


def stub_threads(config: Config) -> Variant:
    """The same by a stub on one channel; the request is built for every call."""
    post = v2.V2Stub(grpc.insecure_channel(config.server["grpc"])).PostModelOutputs
    metadata = _metadata(config)

    def call() -> Any:
        return post(_request(config), metadata=metadata)

    return Variant(_fields(call().outputs[0]), _threads(call))


def _tasks(runner: asyncio.Runner, count_of: Callable[[], Any]) -> Any:
    """Slices of whole streams, so many at once as are in flight; what is counted are tokens."""

    async def repeat(wanted: int) -> int:
        count = 0
        while count < wanted:
            count += await count_of()
        return count

    async def all_of(tokens: int, in_flight: int) -> int:
        share = max(1, tokens // in_flight)
        return sum(await asyncio.gather(*(repeat(share) for _ in range(in_flight))))

    return counting(lambda tokens, in_flight: runner.run(all_of(tokens, in_flight)))


def generates(config: Config) -> Variant:
    """Tokens of many server streams on one asyncio client."""
    runner = asyncio.Runner()
    value = text(config.text)

    async def make() -> Any:
        return AsyncClient(**_client(config)).model(config.server["model_id"])

    model = runner.run(make())

    async def count() -> int:
        found = 0
        async for output in model.generate(value):
            found += bool(output.data.text.raw)
        return found

    async def first() -> v2.Output:
        return await anext(aiter(model.generate(value)))

    return Variant(_fields(runner.run(first())), _tasks(runner, count))


def stub_generates(config: Config) -> Variant:
    """The same by a stub on a channel of grpc.aio."""
    runner = asyncio.Runner()
    metadata, request = _metadata(config), _request(config)

    async def make() -> Any:
        return v2.V2Stub(grpc.aio.insecure_channel(config.server["grpc"])).GenerateModelOutputs

    call = runner.run(make())

    async def count() -> int:
        found = 0
        async for response in call(request, metadata=metadata):
            found += bool(response.outputs[0].data.text.raw)
        return found

    async def first() -> v2.Output:
        response = await anext(aiter(call(request, metadata=metadata)))
        return response.outputs[0]  # type: ignore[no-any-return]

    return Variant(_fields(runner.run(first())), _tasks(runner, count))


VARIANTS = {
    "threads": threads,
    "stub_threads": stub_threads,
    "generates": generates,
    "stub_generates": stub_generates,
}

if __name__ == "__main__":
    serve(VARIANTS, ("clarigrpc", "grpcio", "protobuf"))
