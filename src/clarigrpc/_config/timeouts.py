"""How long a call may take."""

from __future__ import annotations

from clarigrpc.errors import ConfigurationError

MAX_TIMEOUT = 365 * 24 * 3600.0
"""Seconds. Every call ends: larger values, and infinity, are refused."""


def check_timeout(seconds: float, name: str = "timeout") -> None:
    """Check the seconds of a deadline.

    Raises:
        ConfigurationError: They are not above 0, or over a year.
        TypeError: This is no number.
    """
    try:
        fits = 0 < seconds <= MAX_TIMEOUT
    except TypeError:
        raise TypeError(f"{name} has to be a number, not {type(seconds).__name__}") from None
    if not fits:
        raise ConfigurationError(
            f"{name} has to be a number of seconds above 0, at most {MAX_TIMEOUT:.0f} (a year)"
        )
