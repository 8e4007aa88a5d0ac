# mypy: ignore-errors
"""Two programs written against the published ``clarifai-grpc``, as its README shows it.

``program`` and ``async_program`` use only what that package and grpcio have. Run with the channel
of the package (``theirs``) or with a stub of ``client.bind`` (``ours``); they print the same.
"""

import asyncio
import sys
from typing import Any

import grpc
from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel
from clarifai_grpc.grpc.api import resources_pb2, service_pb2, service_pb2_grpc
from clarifai_grpc.grpc.api.status import status_code_pb2

CHANNEL, ADDRESS, PAT, USER_ID, APP_ID = sys.argv[1:]
METADATA = (("authorization", f"Key {PAT}"),)
OWNER = resources_pb2.UserAppIDSet(user_id=USER_ID, app_id=APP_ID)


def predict_request(model_id: str, *texts: str) -> Any:
    public = resources_pb2.UserAppIDSet(user_id="clarifai", app_id="main")
    inputs = [
        resources_pb2.Input(data=resources_pb2.Data(text=resources_pb2.Text(raw=raw)))
        for raw in texts
    ]
    return service_pb2.PostModelOutputsRequest(user_app_id=public, model_id=model_id, inputs=inputs)


def show(title: str, response: Any) -> None:
    if response.status.code != status_code_pb2.SUCCESS:
        print(title, "failed:", response.status.code, response.status.description)
        return
    print(title, "succeeded")


def show_error(title: str, error: Any) -> None:
    print(title, "raised", type(error).__name__, error.code(), error.details())
    print(title, "trailing", "retry-after" in dict(error.trailing_metadata()))


def program(stub: Any) -> None:
    sentiment = predict_request("text-sentiment", "a good day", "a bad day")
    response = stub.PostModelOutputs(sentiment, metadata=METADATA)
    show("predict", response)
    for output in response.outputs:
        print([(concept.name, round(concept.value, 3)) for concept in output.data.concepts])
    show("missing model", stub.PostModelOutputs(predict_request("none", "a"), metadata=METADATA))
    show("wrong key", stub.ListModels(
        service_pb2.ListModelsRequest(user_app_id=OWNER), metadata=(("authorization", "Key no"),)
    ))  # fmt: skip
    added = service_pb2.PostInputsRequest(
        user_app_id=OWNER,
        inputs=[
            resources_pb2.Input(
                id=f"{CHANNEL}-sync", data=resources_pb2.Data(text=resources_pb2.Text(raw="a"))
            )
        ],
    )
    show("add", stub.PostInputs(added, metadata=METADATA))
    show("add again", stub.PostInputs(added, metadata=METADATA))
    response, call = stub.PostModelOutputs.with_call(sentiment, metadata=METADATA)
    show(f"with_call {call.code()}", response)
    future = stub.PostModelOutputs.future(sentiment, metadata=METADATA)
    show(f"future {future.code()}", future.result(timeout=30))
    for response in stub.GenerateModelOutputs(
        predict_request("text-stream", "one two three"), metadata=METADATA
    ):
        print("stream", response.status.code, response.outputs[0].data.text.raw)
    try:
        stub.ListConcepts(service_pb2.ListConceptsRequest(user_app_id=OWNER), metadata=METADATA)
    except grpc.RpcError as error:
        show_error("broken method", error)
    future = stub.ListConcepts.future(
        service_pb2.ListConceptsRequest(user_app_id=OWNER), metadata=METADATA
    )
    failure = future.exception()
    print("future", failure.code(), failure.details(), future.done())


async def async_program(stub: Any) -> None:
    sentiment = predict_request("text-sentiment", "a good day", "a bad day")
    responses = await asyncio.gather(
        *(stub.PostModelOutputs(sentiment, metadata=METADATA) for _ in range(4))
    )
    for response in responses:
        show("async predict", response)
    call = stub.PostModelOutputs(predict_request("none", "a"), metadata=METADATA, timeout=30)
    show("async missing model", await call)
    print("async code", await call.code())
    async for response in stub.GenerateModelOutputs(
        predict_request("text-stream", "one two three"), metadata=METADATA
    ):
        print("async stream", response.status.code, response.outputs[0].data.text.raw)
    try:
        await stub.ListConcepts(
            service_pb2.ListConceptsRequest(user_app_id=OWNER), metadata=METADATA
        )
    except grpc.aio.AioRpcError as error:
        show_error("async broken method", error)


def main() -> None:
    host, port = ADDRESS.split(":")
    if CHANNEL == "theirs":
        program(service_pb2_grpc.V2Stub(ClarifaiChannel.get_insecure_grpc_channel(host, int(port))))

        async def with_channel() -> None:
            async with grpc.aio.insecure_channel(ADDRESS) as channel:
                await async_program(service_pb2_grpc.V2Stub(channel))

        asyncio.run(with_channel())
        return

    from clarigrpc import AsyncClient, Client

    # The client has another credential: that of the program's own metadata counts.
    with Client(base=f"http://{ADDRESS}", pat="not-used") as client:
        program(client.bind(service_pb2_grpc.V2Stub, errors="grpc"))

    async def with_client() -> None:
        async with AsyncClient(base=f"http://{ADDRESS}", pat="not-used") as client:
            await async_program(client.bind(service_pb2_grpc.V2Stub, errors="grpc"))

    asyncio.run(with_client())


main()
