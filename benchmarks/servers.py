"""Servers that cost next to nothing, so that the client is what is measured.

``python -m benchmarks.servers KIND`` pins itself to the server's core, prints its address and
serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc

from benchmarks.harness import SERVER_CORE, pin
from clarigrpc import v2


def canned_outputs(concepts: int = 5) -> v2.MultiOutputResponse:
    """A small answer to a prediction."""
    response = v2.MultiOutputResponse()
    response.status.code = v2.StatusCode.SUCCESS
    response.status.description = "Ok"
    output = response.outputs.add(id="output")
    output.status.code = v2.StatusCode.SUCCESS
    for index in range(concepts):
        output.data.concepts.add(id=f"concept-{index}", name=f"concept {index}", value=0.5)
    return response


class _Canned(grpc.GenericRpcHandler):
    """Answers every unary method with the same bytes, without looking at the request."""

    def __init__(self, answer: bytes) -> None:
        async def respond(request: bytes, context: Any) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(respond)

    def service(self, handler_call_details: Any) -> Any:
        return self._handler


async def canned() -> None:
    """A gRPC server with one pre-serialized answer."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((_Canned(canned_outputs().SerializeToString()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(None)


KINDS = {"canned": canned}

if __name__ == "__main__":
    pin(SERVER_CORE)
    asyncio.run(KINDS[sys.argv[1]]())
