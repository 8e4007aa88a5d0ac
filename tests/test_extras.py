"""What needs an extra says so, and which, where the package is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.both import ClientKind

# Python treats a module that is None in sys.modules as one that cannot be found.
WITHOUT = """
import sys
for name in sys.argv[1].split():
    sys.modules[name] = None
import asyncio
from clarigrpc import AsyncClient, Client, ClientCredentials, arrays, errors, image, text, v2, video
from clarigrpc.opentelemetry import instrument
REQUEST = v2.GetModelRequest(model_id="m")

def call(kind, method, **settings):
    # The port is never reached.
    settings = {"base": "http://127.0.0.1:9", "timeout": 5, **settings}
    if kind == "sync":
        with Client(**settings) as client:
            return getattr(client.v2, method)(REQUEST)
    async def main():
        async with AsyncClient(**settings) as client:
            return await getattr(client.v2, method)(REQUEST)
    return asyncio.run(main())

try:
    eval(sys.argv[2])
except errors.ConfigurationError as error:
    print(error)
"""


def failure(missing: str, expression: str) -> str:
    """What the ConfigurationError says that an expression raises without these modules."""
    environment = {key: value for key, value in os.environ.items() if "CLARIFAI" not in key}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, expression],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("missing", "expression", "says"),
    [
        ("numpy", "arrays.output_embeddings(v2.MultiOutputResponse())", "output_embeddings()"),
        ("numpy", "arrays.output_concepts(v2.MultiOutputResponse())", "output_concepts()"),
        ("numpy", "arrays.output_regions([])", "output_regions()"),
        ("numpy", "arrays.output_tokens([])", "output_tokens()"),
        ("pyarrow", "arrays.to_arrow([])", "to_arrow()"),
        ("pyarrow", "arrays.to_parquet(None, [], 'f')", "to_parquet()"),
        ("pandas", "arrays.to_pandas([])", "to_pandas()"),
        ("IPython", "__import__('clarigrpc.notebook').notebook.show([])", "show()"),
        ("PIL", "image(b'x', max_side=9)", "image() with max_side, quality or format"),
        ("av", "video(b'x', fps=1)", "video() with clip or fps"),
        ("PIL", "image(__import__('numpy').zeros((4, 4), 'uint8'))", "an array as an image"),
        ("opentelemetry", "instrument()", "instrument()"),
        ("ray", "__import__('clarigrpc.ray').ray.Predictor('m', column='c')", "Predictor()"),
        ("ray", "__import__('clarigrpc.ray').ray.predict(None, 'm')", "predict()"),
        ("ray", "__import__('clarigrpc.ray').ray.read_inputs()", "read_inputs()"),
        ("ray", "__import__('clarigrpc.ray').ray.write_inputs(None, column='c')", "write_inputs()"),
    ],
)
def test_functions(missing: str, expression: str, says: str) -> None:
    extras = {
        "numpy": "arrays",
        "opentelemetry": "otel",
        "IPython": "notebook",
        "PIL": "image",
        "av": "video",
        "pandas": "tables",
        "pyarrow": "tables",
        "ray": "ray",
    }
    extra = extras[missing]
    assert failure(missing, expression) == (
        f"{says}: {missing} is not installed: pip install 'clarigrpc[{extra}]'"
    )


def test_rest(client_kind: ClientKind) -> None:
    expression = f"call({client_kind!r}, 'GetModel', pat='p' * 20, transport='rest')"
    assert failure("httpx", expression) == (
        "transport='rest': httpx is not installed: pip install 'clarigrpc[rest]'"
    )


def test_oauth(client_kind: ClientKind) -> None:
    credentials = "ClientCredentials('id', 'secret' * 4)"
    expression = f"call({client_kind!r}, 'GetModel', oauth={credentials})"
    assert failure("oauthlib.oauth2", expression) == (
        "OAuth2 credentials: oauthlib is not installed: pip install 'clarigrpc[oauth]'"
    )


def test_progress_bar() -> None:
    client = "Client(pat='p' * 20, user_id='u', app_id='a', base='http://127.0.0.1:9')"
    assert failure("rich", f"{client}.inputs.upload([text('a')], progress=True)") == (
        "progress=True (a callback needs no package): rich is not installed: "
        "pip install 'clarigrpc[cli]'"
    )
