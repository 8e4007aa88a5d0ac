"""The functions and classes of Python files and modules, to be served as models."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click

_TABLE = "MODELS"


def models_of_file(path: Path) -> dict[str, Any]:
    """What a Python file offers as models, by model id.

    If it has a mapping ``MODELS``, that; otherwise its own public functions and classes, with
    their names as ids. The file is run. Its folder can be imported from.

    Raises:
        ClickException: It cannot be run, or offers nothing.
    """
    module = _run_file(path)
    name = module.__name__
    table = getattr(module, _TABLE, None)
    if table is None:
        table = {
            key: value
            for key, value in vars(module).items()
            if not key.startswith("_")
            and (inspect.isfunction(value) or inspect.isclass(value))
            and value.__module__ == name
        }
    elif not isinstance(table, Mapping) or not all(isinstance(key, str) for key in table):
        raise click.ClickException(f"{path}: {_TABLE} has to be a mapping of model ids to models")
    if not table:
        raise click.ClickException(f"{path} has no public function or class, and no {_TABLE}")
    return dict(table)


def model_of_target(target: str) -> Any:
    """The function or class that ``MODULE:NAME`` or ``FILE.py:NAME`` names.

    Modules are looked for in the working directory, too.

    Raises:
        BadParameter: It names none.
        ClickException: The module cannot be imported.
    """
    place, colon, name = target.rpartition(":")
    if not (place and colon and name):
        raise click.BadParameter(f"{target!r} must be MODULE:NAME or FILE.py:NAME")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise click.BadParameter(f"there is no file {place}")
        module = _run_file(Path(place))
    else:
        sys.path.insert(0, str(Path.cwd()))
        try:
            module = importlib.import_module(place)
        except Exception as error:  # whatever the user's code raises
            raise click.ClickException(
                f"{place} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise click.BadParameter(f"{place} has no {name}")
    return found


def _run_file(path: Path) -> ModuleType:
    """The module that a file makes; its folder can be imported from."""
    name = path.stem if path.stem.isidentifier() else "models_to_serve"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module  # for dataclasses and pickle, which look there
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise click.ClickException(f"{path} ended the process: {error}") from None
    except Exception as error:  # whatever the user's code raises
        place = _place(error, path)
        raise click.ClickException(f"{place}: {type(error).__name__}: {error}") from error
    return module


def _place(error: BaseException, path: Path) -> str:
    """File and line of an error in a file."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}, line {error.lineno}"
    lines = []
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    return f"{path}, line {lines[-1]}" if lines else str(path)
