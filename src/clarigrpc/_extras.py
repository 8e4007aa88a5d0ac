"""Imports of what is installed only with an extra."""

from __future__ import annotations

from types import TracebackType

from clarigrpc.errors import ConfigurationError


class NeedsExtra:
    """Names the extra to install when an import in its block fails.

    ``with NeedsExtra("rest", "transport='rest'"): import httpx``

    Args:
        extra: Name of the extra that installs what is imported.
        user: What needs the import: an argument, a function.

    Raises:
        ConfigurationError: A module to import is not there.
    """

    def __init__(self, extra: str, user: str) -> None:
        self._extra = extra
        self._user = user

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, ModuleNotFoundError):
            package = (error.name or "a package").partition(".")[0]
            raise ConfigurationError(
                f"{self._user}: {package} is not installed: pip install 'clarigrpc[{self._extra}]'"
            ) from error
