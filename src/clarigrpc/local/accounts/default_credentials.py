"""The credentials of the default user, kept over restarts."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from clarigrpc._replaced_files import replaced

_NAMES = ("pat", "api_key", "session_token", "client_id", "client_secret")


class DefaultCredentials:
    """The user of a local server, its app, and the secrets that prove to be that user.

    Args:
        user_id: The one user.
        app_id: The app that requests mean when they name none.
        pat: Personal access token; by default the stored one, else a random one.
        api_key: Key of the app; likewise.
        session_token: Session token of the user; likewise.
        client_id: Id of the app's application of the first API generation; likewise.
        client_secret: Its secret; likewise.
        path: File that keeps the secrets over a restart, readable by its owner only.

    Raises:
        OSError: The file cannot be read, or one cannot be made.
        ValueError: It does not hold credentials.
    """

    def __init__(
        self,
        user_id: str,
        app_id: str,
        *,
        pat: str | None = None,
        api_key: str | None = None,
        session_token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        path: Path | None = None,
    ) -> None:
        stored = _read(path)
        self.user_id = user_id
        self.app_id = app_id
        self.pat: str = pat or stored.get("pat") or secrets.token_hex(16)
        self.api_key: str = api_key or stored.get("api_key") or secrets.token_hex(16)
        self.session_token: str = (
            session_token or stored.get("session_token") or secrets.token_urlsafe(24)
        )
        self.client_id: str = client_id or stored.get("client_id") or secrets.token_urlsafe(16)
        self.client_secret: str = (
            client_secret or stored.get("client_secret") or secrets.token_urlsafe(24)
        )
        self._path = path
        if path is not None and not path.exists():
            self.keep()

    def keep(self) -> None:
        """Writes the file, with what was given for this run.

        Where there is a file already, only a server that has the folder may: another one may run.

        Raises:
            OSError: The file cannot be written.
        """
        if self._path is not None:
            _write(self._path, {name: getattr(self, name) for name in _NAMES})


def _read(path: Path | None) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(_damaged(path, str(error))) from error
    if not isinstance(stored, dict):
        raise ValueError(_damaged(path, "it must hold a JSON object"))  # noqa: TRY004 (of a file)
    for name in _NAMES:
        value = stored.get(name, "")
        # What a header cannot carry proves nothing.
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise ValueError(_damaged(path, f"{name} must be a string of printable ASCII"))
    return stored


def _damaged(path: Path, why: str) -> str:
    return f"{path} holds no credentials: {why}; delete it to get new ones"


def _write(path: Path, values: dict[str, str]) -> None:
    with replaced(path, private=True) as file:
        file.write(json.dumps(values).encode())
