"""Files that the service makes for its users, fetched into files here."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from clarigrpc import errors

_CHUNK_BYTES = 1 << 20
_STEP_SECONDS = 30.0


def fetch(url: str, path: Path, *, size: int, deadline: float, local: bool, method: str) -> Path:
    """Write what an address has to a file, which appears when it is complete.

    Args:
        url: ``http://`` or ``https://``, given out by the service; it needs no credentials.
        path: The file; one that is there is replaced.
        size: Bytes that it has; 0: nobody knows.
        deadline: Moment by ``time.monotonic`` at which it has to be there.
        local: Whether the service is on this machine: its ``file:`` addresses are copied.
        method: What the address came from, for errors.

    Returns:
        ``path``.

    Raises:
        ConfigurationError: httpx is not installed.
        ApiError: The file cannot be fetched, or is not as large as it should be.
        OSError: The file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if local and urlsplit(url).scheme == "file":
            shutil.copyfile(url2pathname(urlsplit(url).path), part)
        else:
            _receive(url, part, deadline, method)
        written = part.stat().st_size
        if size and written != size:
            raise errors.InternalError(
                f"{urlsplit(url).netloc} gave {written} of {size} bytes", method=method
            )
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return path


def _receive(url: str, part: Path, deadline: float, method: str) -> None:
    try:
        import httpx
    except ImportError as error:
        raise errors.ConfigurationError(
            "downloads need httpx: pip install 'clarigrpc[rest]'"
        ) from error
    host = urlsplit(url).netloc
    try:
        with (
            httpx.stream("GET", url, follow_redirects=True, timeout=_STEP_SECONDS) as answer,
            part.open("wb") as file,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes(_CHUNK_BYTES):
                if time.monotonic() > deadline:
                    raise errors.DeadlineExceededError(
                        f"the file from {host} was not there in time", method=method
                    )
                file.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The query of such an address is a credential: it is left out.
        what = str(error).replace(url, f"{urlsplit(url).scheme}://{host}/...")
        raise errors.UnavailableError(f"{host}: {what}", method=method) from None
