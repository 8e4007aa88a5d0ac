"""The config file of the service's CLI: named contexts of variables, one of them current.

It is YAML: ``current_context`` and ``contexts``, which maps a name to variables such as
``CLARIFAI_PAT``. Other keys of the file are kept, comments are not when it is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from clarigrpc._config.credentials import Secret
from clarigrpc._extras import NeedsExtra
from clarigrpc._replaced_files import replaced
from clarigrpc.errors import ConfigurationError

CONFIG_PATH = "~/.config/clarifai/config"
FROM_ENVIRONMENT = "ENVVAR"
"""As a value: the variable of the environment has it."""

# All others may be secrets.
_SHOWN = {
    *("CLARIFAI_GRPC_BASE", "CLARIFAI_API_BASE", "CLARIFAI_UI"),
    *("CLARIFAI_USER_ID", "CLARIFAI_APP_ID", "CLARIFAI_ROOT_CERTIFICATES_PATH"),
}


def expanded(path: str | os.PathLike[str] | None) -> str:
    """The path of a config file; None: the default one."""
    return os.path.expanduser(os.fspath(path or CONFIG_PATH))


def hidden(values: Any) -> Any:
    """The same, without text that a traceback could show."""
    if isinstance(values, dict):
        return {name: hidden(value) for name, value in values.items()}
    return Secret(values) if isinstance(values, str) else values


def _plain(values: Any) -> Any:
    """The opposite of ``hidden``, for the file."""
    if isinstance(values, dict):
        return {str(name): _plain(value) for name, value in values.items()}
    return str(values) if isinstance(values, str) else values


def variable_name(key: str) -> str:
    """The variable that a key of a context means: ``pat`` is ``CLARIFAI_PAT``."""
    return key if key.startswith("CLARIFAI_") else f"CLARIFAI_{key.upper()}"


def variables_of(context: Mapping[Any, Any]) -> dict[str, str]:
    """The variables of a context, whichever way the file holds them."""
    values = context["env"] if isinstance(context.get("env"), dict) else context
    return {
        variable_name(str(key)): value if isinstance(value, str) else str(value)
        for key, value in values.items()
        if value is not None
    }


class ContextFile:
    """The content of a config file.

    Args:
        path: Its path. A file that does not exist, or is empty, has no contexts.

    Attributes:
        path: Its path.

    Raises:
        ConfigurationError: It cannot be read, is no YAML, its contexts are no mapping, or PyYAML is
            not installed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        content: Any = {"current_context": None, "contexts": {}}
        if os.path.isfile(path):
            with NeedsExtra("cli", f"reading {path}"):
                import yaml
            try:
                with open(path, encoding="utf-8") as file:
                    content = hidden(yaml.safe_load(file))
            except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
                # The parser quotes the file, which holds credentials.
                raise ConfigurationError(
                    f"the config file {path} cannot be read ({type(error).__name__})"
                ) from None
        if content is None:  # an empty file
            content = {}
        contexts = content.get("contexts", {}) if isinstance(content, dict) else None
        if not isinstance(contexts, dict):
            raise ConfigurationError(f"the config file {path} has no contexts as a mapping")
        self._content: dict[Any, Any] = content
        # YAML reads a name such as 1 or "on" without quotes as no text.
        self._contexts: dict[str, Any] = {str(name): value for name, value in contexts.items()}
        content["contexts"] = self._contexts

    @property
    def names(self) -> list[str]:
        """The names of the contexts, in the order of the file."""
        return list(self._contexts)

    @property
    def current(self) -> str | None:
        """The name of the current context."""
        name = self._content.get("current_context")
        return None if name is None else str(name)

    def variables(self, name: str | None) -> dict[str, str]:
        """The variables of a context.

        Raises:
            ConfigurationError: There is no such context.
        """
        if not self._contexts:
            raise ConfigurationError(f"the config file {self.path} has no contexts")
        chosen = None if name is None else self._contexts.get(name)
        if not isinstance(chosen, dict):
            raise ConfigurationError(
                f"the config file {self.path} has no context {_shown(name)}; it has: "
                f"{', '.join(self.names)}"
            )
        return variables_of(chosen)

    def use(self, name: str) -> None:
        """Make a context the current one, in memory.

        Raises:
            ConfigurationError: There is no such context.
        """
        self.variables(name)
        self._content["current_context"] = name

    def put(self, name: str, variables: Mapping[str, str]) -> None:
        """Add or replace a context, in memory."""
        self._contexts[name] = dict(variables)

    def remove(self, name: str) -> None:
        """Remove a context, in memory; no context is current if it was.

        Raises:
            ConfigurationError: There is no such context.
        """
        self.variables(name)
        del self._contexts[name]
        if self.current == name:
            self._content["current_context"] = None

    def save(self) -> None:
        """Write the file, readable by its owner alone. A reader sees the old or the new content.

        Raises:
            ConfigurationError: PyYAML is not installed.
            OSError: The file cannot be written.
        """
        with NeedsExtra("cli", f"writing {self.path}"):
            import yaml

        os.makedirs(os.path.dirname(os.path.realpath(self.path)), exist_ok=True)
        content = yaml.safe_dump(
            _plain(self._content), sort_keys=False, allow_unicode=True, encoding="utf-8"
        )
        with replaced(self.path, private=True) as file:
            file.write(content)


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables, with asterisks in place of what is, or may be, a secret."""
    return {
        name: str(value) if name in _SHOWN or value == FROM_ENVIRONMENT else "********"
        for name, value in variables.items()
    }


def _shown(name: str | None) -> str:
    # Of the file, and so hidden: its repr would not show it.
    return "None" if name is None else repr(str(name))
