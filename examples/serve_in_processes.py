"""A web service on all cores: ``serve_in_processes.py MODEL [--port N] [--processes N]``.

``POST /predict`` with a text as the body is answered with its concepts as JSON. Every process has a
client of its own and listens on the same port: with ``SO_REUSEPORT`` the kernel hands each
connection to one of them. Requests of a process that arrive at the same time share calls of the
model (``coalesce=True``).

A pre-fork server does the same: ``MODEL_ID=m uvicorn --workers 4 serve_in_processes:app``. The
client is made when a process starts (``lifespan``) and not on import, so that each has its own.
Needs ``starlette`` and ``uvicorn``, which the extra ``local`` brings.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import get_context
from multiprocessing.connection import wait

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clarigrpc import AsyncClient, errors, text


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """A client for as long as this process serves."""
    async with AsyncClient() as client:
        app.state.model = client.model(os.environ["MODEL_ID"], coalesce=True)
        yield


async def predict(request: Request) -> JSONResponse:
    """The concepts of a text."""
    words = (await request.body()).decode(errors="replace")
    try:
        output = await request.app.state.model.predict(text(words))
    except errors.ApiError as error:
        return JSONResponse({"error": error.description}, status_code=502)
    concepts = {concept.id: round(concept.value, 3) for concept in output.data.concepts}
    return JSONResponse({"concepts": concepts, "process": os.getpid()})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])], lifespan=lifespan)


def listening(port: int) -> socket.socket:
    """A socket of this process on a port that others listen on, too."""
    return socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=1024)


def serve(port: int) -> None:
    """Serve in this process until SIGTERM or Ctrl-C."""
    with listening(port) as listener:
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def main() -> None:
    """Start the processes, and end them when this one is told to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="id of a model in the app of the environment")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    os.environ["MODEL_ID"] = arguments.model
    # Bound but not listening: keeps the port, and gets no connections.
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", arguments.port))
        port = place.getsockname()[1]
        context = get_context("spawn")
        processes = [
            context.Process(target=serve, args=(port,)) for _ in range(arguments.processes)
        ]
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        try:
            for process in processes:
                process.start()
            print(f"http://127.0.0.1:{port}", flush=True)
            wait([process.sentinel for process in processes])
            sys.exit("a process ended")  # whoever supervises this one starts it again
        except KeyboardInterrupt:
            pass
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()  # uvicorn answers what it has begun
            for process in processes:
                if process.pid is not None:
                    process.join()


if __name__ == "__main__":
    main()
