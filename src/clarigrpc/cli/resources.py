"""Commands for the resources of an app or a user: one row of a table each.

A row makes a group with ``list``, ``get``, ``create`` and ``delete``, as far as the client has
them. Modules beside this one add what one kind of resources has besides.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clarigrpc.cli.cells import field, status_of, time_of
from clarigrpc.cli.message_json import json_of
from clarigrpc.cli.options import client_command, open_client, owned_id
from clarigrpc.cli.output import Column, Output
from clarigrpc.cli.workflow_files import workflow_fields

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from clarigrpc import Client


@dataclass(frozen=True)
class ResourceCommand:
    """A kind of resources.

    Attributes:
        plural: Their name: of the command, and of the client's attribute.
        singular: The name of one.
        text: The text of the command.
        columns: The columns of their table.
        filters: Options of ``list``: the client's option, with a text. A text that begins with
            ``=`` makes a flag.
        fields: Options of ``create``: the field of a resource, with a text.
        example: What ``create`` is shown with.
        parse: Makes a resource of the fields in a file or in JSON. None takes them as they are.
        verbs: What can be done with them.
        of_app: Whether they belong to an app, otherwise to a user.
    """

    plural: str
    singular: str
    text: str
    columns: tuple[Column, ...]
    filters: Mapping[str, str]
    fields: Mapping[str, str]
    example: str = ""
    parse: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    verbs: tuple[str, ...] = ("list", "get", "create", "delete")
    of_app: bool = True

    @property
    def article(self) -> str:
        """The indefinite article."""
        return "an" if self.singular[0] in "aeiou" else "a"


_ALL_APPS = "=Those of all apps of the user."
_TEXT_FILTER = "Those with this text in id, name or description."
_DESCRIPTION = "What it is about."
_OPTION_NAMES = {"model_type_id": "type"}
"""Options that are called otherwise than their field."""

RESOURCE_COMMANDS = {
    kind.plural: kind
    for kind in (
        ResourceCommand(
            "apps",
            "app",
            "The apps of the user.",
            (
                field("Id", "id"),
                field("Base workflow", "default_workflow.id"),
                time_of("Created", "created_at"),
                field("Description", "description"),
            ),
            {"search": _TEXT_FILTER},
            {"description": _DESCRIPTION},
            of_app=False,
        ),
        ResourceCommand(
            "concepts",
            "concept",
            "The concepts of an app.",
            (
                field("Id", "id"),
                field("Name", "name"),
                field("Language", "language"),
                time_of("Created", "created_at"),
            ),
            {},
            {"name": "Its name.  [default: its id]"},
            verbs=("list", "get", "create"),
        ),
        ResourceCommand(
            "datasets",
            "dataset",
            "The datasets of an app.",
            (
                field("Id", "id"),
                time_of("Created", "created_at"),
                field("Description", "description"),
            ),
            {"search": _TEXT_FILTER, "all_apps": _ALL_APPS},
            {"description": _DESCRIPTION},
        ),
        ResourceCommand(
            "models",
            "model",
            "The models of an app.",
            (
                field("Id", "id"),
                field("Type", "model_type_id"),
                status_of("model_version.status"),
                time_of("Created", "created_at"),
            ),
            {
                "search": _TEXT_FILTER,
                "model_type_id": "Those of this type.",
                "trained_only": "=Those with a trained version.",
                "all_apps": _ALL_APPS,
            },
            {
                "model_type_id": "Its type. 'clarigrpc call ListModelTypes' shows them.",
                "description": _DESCRIPTION,
            },
            "clarigrpc models create my-model --type visual-classifier",
        ),
        ResourceCommand(
            "workflows",
            "workflow",
            "The workflows of an app.",
            (
                field("Id", "id"),
                Column("Nodes", lambda one: ", ".join(node.id for node in one.nodes)),
                time_of("Created", "created_at"),
                field("Description", "description"),
            ),
            {"search": _TEXT_FILTER, "all_apps": _ALL_APPS},
            {"description": _DESCRIPTION},
            "clarigrpc workflows create @workflow.yaml",
            parse=workflow_fields,
        ),
    )
}


def resource_group(kind: ResourceCommand) -> click.Group:
    """The command of a kind of resources."""
    group = click.Group(kind.plural, help=kind.text)
    for verb in kind.verbs:
        group.add_command(_VERBS[verb](kind), verb)
    return group


def page_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that list."""
    for option in (
        click.option(
            "--per-page", type=click.IntRange(1, 1000), metavar="N", help="Items per request."
        ),
        click.option(
            "--page", type=click.IntRange(1), metavar="N", help="One page alone, counted from 1."
        ),
        click.option(
            "--limit",
            type=click.IntRange(0),
            metavar="N",
            help="Maximum number of items; 0 means all.  [default: 50 in a table, all as JSON]",
        ),
    ):
        function = option(function)
    return function


def nested_list(
    group: click.Group,
    name: str,
    text: str,
    columns: tuple[Column, ...],
    listing: Callable[[Client, tuple[str, str, str]], Callable[..., Iterator[Message]]],
) -> None:
    """Add a command that lists what lies below a resource.

    Args:
        group: The group of the resource.
        name: The name of the command.
        text: Its text.
        columns: The columns of the table.
        listing: Returns the method that lists, of a client and the user, app and id given.
    """

    @click.argument("parent", metavar="[USER/APP/]ID")
    @page_options
    def function(
        output: Output,
        parent: str,
        limit: int | None,
        page: int | None,
        per_page: int | None,
        **settings: Any,
    ) -> None:
        owned = owned_id(parent)
        with open_client(**settings) as client:
            output.items(listing(client, owned)(page=page, per_page=per_page), columns, limit)

    group.add_command(_finished(function, text, name))


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set."""
    return {name: one for name, one in values.items() if one not in (None, False, "", ())}


def confirm(text: str, *, assumed: bool) -> None:
    """Ask before what cannot be undone.

    Args:
        text: What will happen.
        assumed: Whether ``--yes`` was given.

    Raises:
        UsageError: There is no terminal to ask on.
        Abort: The answer is no.
    """
    if assumed:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{text} cannot be undone; confirm it with --yes")
    click.confirm(f"{text}?", abort=True, err=True)


def ids_from(words: tuple[str, ...]) -> list[str]:
    """The ids given as words; ``-`` alone reads them from stdin, one per line."""
    if words == ("-",):
        return [line.strip() for line in sys.stdin if line.strip()]
    return list(words)


def _list(kind: ResourceCommand) -> click.Command:
    @page_options
    def function(
        output: Output,
        limit: int | None,
        page: int | None,
        per_page: int | None,
        **settings: Any,
    ) -> None:
        filters = given({name: settings.pop(name) for name in kind.filters})
        with open_client(**settings) as client:
            items = getattr(client, kind.plural).list(page=page, per_page=per_page, **filters)
            output.items(items, kind.columns, limit)

    return _finished(_with_options(function, kind.filters), f"List {kind.plural}.", "list")


def _get(kind: ResourceCommand) -> click.Command:
    @click.argument("resource_id", metavar=_id_metavar(kind))
    def function(output: Output, resource_id: str, **settings: Any) -> None:
        owner, app_id, found = owned_id(resource_id)
        with open_client(**settings) as client:
            collection = getattr(client, kind.plural).within(user_id=owner, app_id=app_id)
            output.one(collection.get(found))

    return _finished(function, f"Show {kind.article} {kind.singular}.", "get")


def _create(kind: ResourceCommand) -> click.Command:
    @click.argument("resource", metavar="ID|JSON|@FILE")
    def function(output: Output, resource: str, **settings: Any) -> None:
        item = resource_of(resource)
        if kind.parse is not None and isinstance(item, dict):
            item = kind.parse(item)
        if fields := given({name: settings.pop(name) for name in kind.fields}):
            item = {**({"id": item} if isinstance(item, str) else item), **fields}
        with open_client(**settings) as client:
            output.one(getattr(client, kind.plural).create(item))

    text = (
        f"Create {kind.article} {kind.singular}: an id, or its fields as JSON or in a file (JSON "
        f"or YAML)."
    )
    if kind.example:
        text += f"\n\n\b\nExample:\n  {kind.example}"
    return _finished(_with_options(function, kind.fields), text, "create")


def _delete(kind: ResourceCommand) -> click.Command:
    @click.argument("ids", nargs=-1, required=True, metavar="ID...")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    def function(output: Output, ids: tuple[str, ...], yes: bool, **settings: Any) -> None:
        wanted = ids_from(ids)
        if not wanted:
            output.note("no ids, nothing deleted")
            return
        confirm(f"deleting {counted(len(wanted), kind.singular, kind.plural)}", assumed=yes)
        with open_client(**settings) as client:
            getattr(client, kind.plural).delete(wanted)
        output.note(f"deleted {counted(len(wanted), kind.singular, kind.plural)}")

    text = f"Delete {kind.plural} by their ids; - reads them from stdin, one per line."
    return _finished(function, text, "delete")


def resource_of(text: str) -> Any:
    """An id, or the fields of a resource: as JSON, or in a file (``@FILE``, JSON or YAML).

    Raises:
        UsageError: It is neither, or the file is malformed.
    """
    if text.startswith("@"):
        import yaml

        content = Path(text[1:]).read_bytes()
        try:
            found = yaml.safe_load(content)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise click.UsageError(f"{text[1:]} is neither JSON nor YAML: {reason}") from None
    elif text.startswith("{"):
        found = json_of(text, "the resource")
    else:
        return text
    if not isinstance(found, dict):
        raise click.UsageError(f"{text} has no fields, but {type(found).__name__}")
    return found


def _with_options(function: Callable[..., Any], texts: Mapping[str, str]) -> Callable[..., Any]:
    """A function with an option for each field; a text that begins with ``=`` makes a flag."""
    for name, text in reversed(list(texts.items())):
        flag = text.startswith("=")
        function = click.option(
            f"--{_OPTION_NAMES.get(name, name).replace('_', '-')}",
            name,
            is_flag=flag,
            metavar=None if flag else "TEXT",
            help=text.removeprefix("="),
        )(function)
    return function


def _finished(function: Callable[..., Any], text: str, name: str) -> click.Command:
    function.__doc__ = text
    function.__name__ = name
    return client_command()(function)


def _id_metavar(kind: ResourceCommand) -> str:
    return "[USER/APP/]ID" if kind.of_app else "ID"


def counted(count: int, singular: str, plural: str) -> str:
    """A number of things: ``1 input``, ``2 inputs``."""
    return f"{count} {singular if count == 1 else plural}"


_VERBS: Mapping[str, Callable[[ResourceCommand], click.Command]] = {
    "list": _list,
    "get": _get,
    "create": _create,
    "delete": _delete,
}

apps = resource_group(RESOURCE_COMMANDS["apps"])
concepts = resource_group(RESOURCE_COMMANDS["concepts"])
workflows = resource_group(RESOURCE_COMMANDS["workflows"])
