"""Addresses that a front listens on."""

from __future__ import annotations


def host_and_port(host: str, port: int) -> str:
    """``host:port`` with an IPv6 address in brackets: ``[::1]:8080``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
