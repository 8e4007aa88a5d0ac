"""A fast, typed gRPC client for the Clarifai V2 service.

from clarigrpc import Client, image

with Client() as client:
    model = client.model("color-recognition", user_id="clarifai", app_id="main")
    print(model.predict(image("cat.jpg")).data.colors)
"""

from typing import TYPE_CHECKING

from clarigrpc._version import __version__ as __version__

if TYPE_CHECKING:
    from clarigrpc import arrays as arrays
    from clarigrpc import errors as errors
    from clarigrpc import ingest as ingest
    from clarigrpc import local as local
    from clarigrpc import media as media
    from clarigrpc import query as query
    from clarigrpc import types as types
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
else:
    from clarigrpc._lazy_names import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "clarigrpc._config.credentials": ("ClientCredentials",),
            "clarigrpc._config.retry_policy": ("RetryPolicy",),
            "clarigrpc.client": ("AsyncClient", "Client"),
            "clarigrpc.media": ("audio", "image", "text", "video"),
        },
        submodules=(
            *("arrays", "errors", "ingest", "local", "media", "query", "types", "v2"),
            "wellknown",
        ),
    )
