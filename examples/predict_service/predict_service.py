"""A web service that predicts: ``POST /predict`` takes a picture and answers with its colours.

Run with ``uvicorn predict_service:app --timeout-graceful-shutdown 20``. Address and credentials
come from the environment; ``MODEL`` names another model, as ``user/app/model``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from clarigrpc import AsyncClient, errors, image

MODEL = os.environ.get("MODEL", "clarifai/main/color-recognition")

SECONDS = 10.0
"""How long a caller waits at most, retries included. Below the timeout of the proxy in front."""

MAX_BYTES = 10 * 2**20


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for as long as this process serves; closed after the last request."""
    user_id, app_id, model_id = os.environ.get("MODEL", "clarifai/main/color-recognition").split(
        "/"
    )
    async with AsyncClient(timeout=SECONDS) as client:
        # Requests of different callers that are there at the same time share calls.
        app.state.model = client.model(model_id, user_id=user_id, app_id=app_id, coalesce=True)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """The main colours of the picture in the body."""
    picture = await body_of(request)
    output = await request.app.state.model.predict(image(picture))
    return {
        "colors": [
            {"name": color.w3c.name, "share": round(color.value, 3)} for color in output.data.colors
        ]
    }


@app.get("/live")
async def live() -> dict[str, bool]:
    """Whether the process works. Asks nobody else: a restart would not help them."""
    return {"live": True}


@app.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Whether the model answers now."""
    answers = await request.app.state.model.ready(timeout=2)
    return JSONResponse({"ready": answers}, status_code=200 if answers else 503)


async def body_of(request: Request) -> bytes:
    """The body, read no further than the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            raise HTTPException(413, f"a picture may have {MAX_BYTES} bytes")
        parts.append(part)
    if not size:
        raise HTTPException(422, "the body has to be a picture")
    return b"".join(parts)


def http_status(error: errors.ApiError) -> int:
    """What a failure of the model is to the caller of this service."""
    if isinstance(error, errors.DeadlineExceededError):
        return 504
    if error.retryable:  # a throttle, an outage, a model that is being deployed
        return 503
    if isinstance(error, errors.InvalidArgumentError):  # no picture, or one of an unknown format
        return 422
    return 502  # wrong credentials, a missing model: nothing that the caller could mend


@app.exception_handler(errors.ApiError)
async def failed(request: Request, error: errors.ApiError) -> JSONResponse:
    """A failed prediction as a response: what happened, and the id to ask about."""
    status = http_status(error)
    headers = {"Retry-After": str(int(error.retry_after or 1))} if status == 503 else None
    content = {"error": error.description, "request_id": error.request_id}
    return JSONResponse(content, status_code=status, headers=headers)
