"""A chat in the browser: words appear as the model writes them, by server-sent events (SSE).

Run with ``uvicorn browser_chat:app`` and open http://127.0.0.1:8000. Address and credentials come
from the environment; ``MODEL`` names another model, as ``user/app/model``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from clarigrpc import AsyncClient, errors, text

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect the words
}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One client for as long as this process serves."""
    user_id, app_id, model_id = os.environ.get("MODEL", "clarifai/main/text-stream").split("/")
    async with AsyncClient(stream_timeout=120) as client:
        app.state.model = client.model(model_id, user_id=user_id, app_id=app_id)
        yield


async def page(request: Request) -> Response:
    """The page of the chat."""
    return FileResponse(Path(__file__).with_name("chat.html"))


async def chat(request: Request) -> Response:
    """The answer to ``?prompt=`` as events: ``word`` for each part, then ``end`` or ``failure``."""
    prompt = request.query_params.get("prompt", "").strip()
    if not prompt:
        return Response("prompt is missing", status_code=422)

    async def events() -> AsyncIterator[str]:
        try:
            # A browser that goes away ends this generator, and so the call.
            async with request.app.state.model.generate(text(prompt)) as outputs:
                async for output in outputs:
                    yield event("word", output.data.text.raw)
        except errors.ApiError as error:
            yield event("failure", error.description)
        else:
            yield event("end", "")

    return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)


def event(name: str, value: str) -> str:
    """A server-sent event. JSON keeps line ends of a text from ending the event."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"


app = Starlette(routes=[Route("/", page), Route("/chat", chat)], lifespan=lifespan)
