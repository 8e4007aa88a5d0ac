"""A WSGI service under gunicorn: ``POST /predict`` takes a text and answers with its sentiment.

``gunicorn prefork_service:app`` reads ``gunicorn.conf.py``, which says how many processes it forks.
Address and credentials come from the environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from clarigrpc import Client, errors, text

# Gunicorn imports this before it forks. The client connects at its first call, so each process
# makes connections of its own. (An AsyncClient would have to be made after the fork.)
client = Client(timeout=10)
model = client.model("text-sentiment", user_id="clarifai", app_id="main", coalesce=True)

MAX_BYTES = 100_000


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """One request; called by the threads of a process."""
    status, content = answer(environ)
    body = json.dumps(content).encode()
    start_response(
        status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


def answer(environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Status line and content of the response."""
    if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("POST", "/predict"):
        return "404 Not Found", {"error": "there is POST /predict"}
    size = int(environ.get("CONTENT_LENGTH") or 0)
    if size > MAX_BYTES:
        return "413 Content Too Large", {"error": f"a text may have {MAX_BYTES} bytes"}
    words = environ["wsgi.input"].read(size).decode(errors="replace")
    try:
        output = model.predict(text(words))
    except errors.InvalidArgumentError as error:
        return "422 Unprocessable Content", {"error": error.description}
    except errors.ApiError as error:
        status = "503 Service Unavailable" if error.retryable else "502 Bad Gateway"
        return status, {"error": error.description, "request_id": error.request_id}
    concepts = {concept.id: round(concept.value, 3) for concept in output.data.concepts}
    return "200 OK", {"concepts": concepts, "process": os.getpid()}
