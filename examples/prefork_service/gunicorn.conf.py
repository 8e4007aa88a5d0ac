"""Settings of gunicorn for ``prefork_service``, which it reads from the current folder."""

import os
from typing import Any

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = os.cpu_count()
worker_class = "gthread"
threads = 16
preload_app = True  # imported once, before the fork: processes share its memory
graceful_timeout = 20  # longer than the client's timeout


def worker_exit(server: Any, worker: Any) -> None:
    """Close the connections of a process before it ends."""
    from prefork_service import client  # type: ignore[import-not-found]

    client.close()
