"""The extra that installs a module which is not there."""

from __future__ import annotations

# Module that is missing -> the extra that installs it.
_EXTRAS = {
    "PIL": "local",
    "av": "local",
    "cv2": "local",
    "emoji": "local",
    "grpc_health": "local",
    "grpc_reflection": "local",
    "httpcore": "rest",
    "httpx": "rest",
    "limits": "local",
    "numpy": "local",
    "oauthlib": "local",
    "prometheus_client": "local",
    "python_multipart": "local",
    "rich": "cli",
    "sklearn": "local",
    "starlette": "local",
    "threadpoolctl": "local",
    "uvicorn": "local",
    "vaderSentiment": "local",
    "yaml": "cli",
}


def extra_for(module: str | None) -> str | None:
    """The extra that installs a module; None if no extra does."""
    return _EXTRAS.get((module or "").partition(".")[0])
