"""A fast, typed gRPC client for the Clarifai V2 service.

from clarigrpc import Client, image

with Client() as client:
    model = client.model("color-recognition", user_id="clarifai", app_id="main")
    print(model.predict(image("cat.jpg")).data.colors)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clarigrpc._version import __version__ as __version__

if TYPE_CHECKING:
    from clarigrpc import errors as errors
    from clarigrpc import v2 as v2
    from clarigrpc import wellknown as wellknown
    from clarigrpc._config.credentials import ClientCredentials as ClientCredentials
    from clarigrpc._config.retry_policy import RetryPolicy as RetryPolicy
    from clarigrpc.client import AsyncClient as AsyncClient
    from clarigrpc.client import Client as Client
    from clarigrpc.media import audio as audio
    from clarigrpc.media import image as image
    from clarigrpc.media import text as text
    from clarigrpc.media import video as video

# Name -> the module that has it; imported when it is first asked for.
_EXPORTS = {
    "AsyncClient": "clarigrpc.client",
    "Client": "clarigrpc.client",
    "ClientCredentials": "clarigrpc._config.credentials",
    "RetryPolicy": "clarigrpc._config.retry_policy",
    "audio": "clarigrpc.media",
    "image": "clarigrpc.media",
    "text": "clarigrpc.media",
    "video": "clarigrpc.media",
}
_MODULES = ("errors", "v2", "wellknown")

__all__ = [
    "AsyncClient",
    "Client",
    "ClientCredentials",
    "RetryPolicy",
    "audio",
    "errors",
    "image",
    "text",
    "v2",
    "video",
    "wellknown",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
