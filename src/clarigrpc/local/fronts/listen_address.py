"""Addresses that a front listens on."""

from __future__ import annotations

import socket

UNIX_PREFIX = "unix:"
"""Beginning of a host that is the path of a Unix domain socket."""


def host_and_port(host: str, port: int) -> str:
    """``host:port`` with an IPv6 address in brackets: ``[::1]:8080``; ``unix:/path`` as it is."""
    if host.startswith(UNIX_PREFIX):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_unix_socket(host: str) -> None:
    """Refuses a path on which a server listens: gRPC would take it away from that server.

    Raises:
        OSError: The path is in use.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(host.removeprefix(UNIX_PREFIX))
        except (FileNotFoundError, ConnectionRefusedError):
            return  # nothing there, or what a killed server left
        except OSError as error:
            raise OSError(f"cannot listen on {host}: {error.strerror or error}") from error
    raise OSError(f"cannot listen on {host}: another server listens there")
