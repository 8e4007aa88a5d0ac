"""The service's REST interface through common HTTP clients, and by hand.

Each call builds its JSON (an image as base64), posts it over a kept connection and parses the
answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

from protocol import Config, Variant, awaiting, blocking, embedding_answer, paced, serve

# Where calls start faster than they end, one for each would use up the files of a process.
_CONNECTIONS = 500


def _headers(config: Config) -> dict[str, str]:
    return {"Authorization": f"Key {config.server['pat']}", "x-inputs": str(config.batch)}


def _body(config: Config) -> dict[str, Any]:
    if config.payload:
        data: dict[str, Any] = {"image": {"base64": base64.b64encode(config.payload).decode()}}
    else:
        data = {"text": {"raw": config.text}}
    return {"inputs": [{"data": data}] * config.batch}


def _post_by_requests(config: Config) -> Callable[[], Any]:
    import requests

    session = requests.Session()
    if config.tls:
        session.verify = config.server["certificate"]
    url, headers = config.rest_base + config.path, _headers(config)

    def call() -> Any:
        response = session.post(url, json=_body(config), headers=headers, timeout=60)
        response.raise_for_status()
        return response.json()

    return call


def by_requests(config: Config) -> Variant:
    """The usual client."""
    call = _post_by_requests(config)
    answer = call()["outputs"][0]["data"]
    run = blocking(call)
    if config.batch == 1:
        return Variant(answer, run)

    def call_and_read() -> None:
        for output in call()["outputs"]:
            output["data"]["concepts"][0]["value"]

    run = blocking(call_and_read)

    def batches(inputs: int, in_flight: int) -> tuple[int, list[float]]:
        calls, latencies = run(max(1, inputs // config.batch), 1)
        return calls * config.batch, latencies

    return Variant(answer, batches)


def by_httpx(config: Config) -> Variant:
    """httpx, blocking."""
    import httpx

    verify: Any = True
    if config.tls:
        verify = ssl.create_default_context(cafile=config.server["certificate"])
    client = httpx.Client(headers=_headers(config), timeout=60, verify=verify)
    url = config.rest_base + config.path

    def call() -> Any:
        response = client.post(url, json=_body(config))
        response.raise_for_status()
        return response.json()

    return Variant(call()["outputs"][0]["data"], blocking(call))


def by_aiohttp(config: Config) -> Variant:
    """aiohttp, as many connections as calls in flight, at most ``_CONNECTIONS``."""
    import aiohttp

    verify: Any = True
    if config.tls:
        verify = ssl.create_default_context(cafile=config.server["certificate"])
    runner = asyncio.Runner()
    url = config.rest_base + config.path

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=_headers(config),
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=verify),
        )

    session = runner.run(open_session())

    async def call() -> Any:
        async with session.post(url, json=_body(config)) as response:
            response.raise_for_status()
            return await response.json()

    answer = runner.run(call())["outputs"][0]["data"]
    return Variant(answer, awaiting(runner, call), paced(runner, call))


def embeddings(config: Config) -> Variant:
    """A batch's embeddings as one array; a call is a batch."""
    import numpy as np

    post = _post_by_requests(config)

    def call() -> Any:
        rows = [output["data"]["embeddings"][0]["vector"] for output in post()["outputs"]]
        return np.array(rows, dtype=np.float32)

    return Variant(embedding_answer(call()), blocking(call))


def by_hand(config: Config) -> Variant:
    """What HTTP can do at best: the image's own bytes as the body, on a socket.

    The service takes images in JSON only; this is a bound, not an alternative.
    """
    host, _, port = config.server["http"].rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fields = "".join(f"{name}: {value}\r\n" for name, value in _headers(config).items())
    head = (
        f"POST {config.path} HTTP/1.1\r\nHost: {host}\r\n{fields}"
        f"Content-Length: {len(config.payload)}\r\n\r\n"
    ).encode()

    def more() -> bytes:
        if not (received := connection.recv(1 << 16)):
            raise ConnectionError("the server closed the connection")
        return received

    def call() -> Any:
        connection.sendall(head)
        connection.sendall(config.payload)
        received = b""
        while b"\r\n\r\n" not in received:
            received += more()
        start, _, body = received.partition(b"\r\n\r\n")
        length = int(start.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += more()
        return json.loads(body)

    return Variant(call()["outputs"][0]["data"], blocking(call))


VARIANTS = {
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "embeddings": embeddings,
    "by_hand": by_hand,
}

if __name__ == "__main__":
    serve(VARIANTS, ("requests", "httpx", "aiohttp"))
