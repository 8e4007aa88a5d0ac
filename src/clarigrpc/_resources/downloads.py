"""Downloads of files that the service made."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from clarigrpc import errors
from clarigrpc._config.addresses import Target
from clarigrpc._config.environment_proxies import environment_proxies
from clarigrpc._extras import NeedsExtra
from clarigrpc._replaced_files import replaced

_CHUNK_BYTES = 1 << 20
_STEP_SECONDS = 30.0


def fetch(url: str, path: Path, *, size: int, deadline: float, local: bool, method: str) -> Path:
    """Download a file; it appears at its path when it is complete.

    Args:
        url: ``http://`` or ``https://`` URL given out by the service; it needs no credentials.
        path: File to write. An existing file is replaced.
        size: Expected size in bytes. 0: unknown.
        deadline: Time by ``time.monotonic`` at which the download must be complete.
        local: Whether the service runs on this machine: its ``file:`` URLs are copied.
        method: Name of the method that gave out the URL, for errors.

    Returns:
        ``path``.

    Raises:
        ConfigurationError: httpx is not installed.
        ApiError: The file cannot be downloaded, or has another size than expected.
        OSError: The file cannot be written.
    """
    written = 0
    with replaced(path, durable=False) as file:
        if local and urlsplit(url).scheme == "file":
            chunks = _copied(url2pathname(urlsplit(url).path))
        else:
            chunks = _received(url, deadline, method)
        with closing(chunks):
            for chunk in chunks:
                written += file.write(chunk)
        if size and written != size:
            raise errors.InternalError(
                f"{urlsplit(url).netloc} sent {written} of {size} bytes", method=method
            )
    return path


def _copied(path: str) -> Generator[bytes, None, None]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _received(url: str, deadline: float, method: str) -> Generator[bytes, None, None]:
    with NeedsExtra("rest", "a download"):
        import httpx
    host = urlsplit(url).netloc
    with environment_proxies():
        client = httpx.Client(
            follow_redirects=True,
            timeout=_STEP_SECONDS,
            # The environment's proxies are not for this machine.
            trust_env=not Target(urlsplit(url).hostname or "", 0, tls=False).is_loopback,
        )
    try:
        with client, client.stream("GET", url) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():  # as it comes, however slowly
                if time.monotonic() > deadline:
                    raise errors.DeadlineExceededError(
                        f"the download from {host} was not complete in time", method=method
                    )
                yield chunk
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The query of such an address is a credential: it is left out.
        what = str(error).replace(url, f"{urlsplit(url).scheme}://{host}/...")
        raise errors.UnavailableError(f"{host}: {what}", method=method) from None
