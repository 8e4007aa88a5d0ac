"""Addresses of the service: what ``base`` may be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from clarigrpc.errors import ConfigurationError

if TYPE_CHECKING:
    import ipaddress

_DNS = "dns:///"
_UNIX = "unix:"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_PLAIN_ADDRESS = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST.pattern})(:(?P<port>[0-9]+))?/?"
)
_NUMERIC_HOST = re.compile(r"[0-9.]+|.*:.*", re.DOTALL)
"""What an IP address may be."""


class Target(NamedTuple):
    """Where the service is.

    Attributes:
        host: Name or address, without brackets; ``unix:/path`` for a Unix domain socket.
        port: TCP port; 0 for a Unix domain socket.
        tls: Whether the connection is encrypted.
    """

    host: str
    port: int
    tls: bool

    @property
    def address(self) -> str:
        """``host:port`` as gRPC takes it."""
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``http://host:port`` or ``https://host:port``; ``unix:/path`` stays as it is."""
        if self.is_unix:
            return self.host
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix domain socket."""
        return self.host.startswith(_UNIX)

    @property
    def ip_version(self) -> int | None:
        """4 or 6 for an IP address, None for a name."""
        address = _ip_address(self.host)
        return None if address is None else address.version

    @property
    def is_loopback(self) -> bool:
        """Whether the traffic stays on this machine."""
        host = self.host
        if self.is_unix or host in ("localhost", "127.0.0.1") or host.endswith(".localhost"):
            return True
        address = _ip_address(host)
        return address is not None and address.is_loopback


def parse_base(base: str) -> Target:
    """Read a base address.

    ``http://host:port`` is plaintext; ``https://host[:port]`` and a bare ``host[:port]`` are TLS.
    ``unix:/path`` is a Unix domain socket, without TLS.

    Raises:
        ConfigurationError: The text is not of these forms.
    """
    example = "for example https://api.clarifai.com or http://127.0.0.1:8080"
    text = base.strip()
    if not text:
        raise ConfigurationError(f"base is empty; give an address, {example}")
    if text.startswith(_UNIX):
        if not (text.removeprefix(_UNIX).startswith("/") and text.isprintable()):
            raise ConfigurationError(f"base {base!r} has no absolute path; write it as unix:/path")
        return Target(host=text, port=0, tls=False)
    if "://" not in text:
        text = f"https://{text}"
    if plain := _PLAIN_ADDRESS.fullmatch(text):  # what nearly all are, read without another module
        tls = plain["scheme"] == "https"
        given = int(plain["port"] or (443 if tls else 80))
        if 0 < given < 2**16:
            return Target(host=plain["host"].lower(), port=given, tls=tls)
    if "@" in text:  # before anything that would show it
        raise ConfigurationError("base holds a user name or password; give the credential as pat=")
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if port == 0:
            raise ValueError("port 0")  # noqa: TRY301 - as urlsplit does with other ports
    except ValueError as error:
        raise ConfigurationError(f"base {base!r} has {error}; write it as {example}") from error
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"base {base!r} has the scheme {parts.scheme!r}; use http (plaintext) or https (TLS)"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.netloc}"  # what follows may hold a credential
        raise ConfigurationError(f"base is to end after {shown!r}; drop what follows")
    # urlsplit drops line breaks and tabs.
    if not text.isprintable() or not (_is_ipv6(host) or _HOST.fullmatch(host)):
        raise ConfigurationError(f"base {base!r} has no valid host; write it as {example}")
    tls = parts.scheme == "https"
    return Target(host=host, port=port or (443 if tls else 80), tls=tls)


def target_of(url: str) -> Target:
    """Where an address with a path is.

    Raises:
        ConfigurationError: Scheme, host or port are not as in a base address.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parse_base(f"{parts.scheme}://{parts.netloc}")


def parse_bases(base: str | Sequence[str]) -> tuple[tuple[Target, ...], bool]:
    """The addresses of the service, and whether calls are spread over them.

    ``dns:///name[:port]`` stands for all addresses of a name; it is TLS unless the name is this
    machine's. A list of one does the same for an address that says which. A list of several has
    IP addresses, all of one kind.

    Raises:
        ConfigurationError: The text is not of these forms.
    """
    if isinstance(base, str):
        if not base.strip().startswith(_DNS):
            return (parse_base(base),), False
        target = parse_base(base.strip().removeprefix(_DNS))
        if target.is_loopback:
            target = target._replace(tls=False)
        return (target,), True
    targets = tuple(map(parse_base, base))
    if not targets:
        raise ConfigurationError("base is an empty list; give at least one address")
    if len(targets) > 1:
        targets = tuple(
            target._replace(host="127.0.0.1") if target.host == "localhost" else target
            for target in targets
        )
        if len({(target.tls, target.ip_version) for target in targets}) > 1:
            raise ConfigurationError("the addresses of a list have to be of one kind")
        if targets[0].ip_version is None:
            raise ConfigurationError(
                "a list of several addresses takes IP addresses; for a name that has several, "
                "give base='dns:///NAME:PORT'"
            )
    return targets, True


def _is_ipv6(host: str) -> bool:
    return ":" in host and _ip_address(host) is not None


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A host as an IP address, None for a name."""
    if not _NUMERIC_HOST.fullmatch(host):
        return None
    import ipaddress

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
