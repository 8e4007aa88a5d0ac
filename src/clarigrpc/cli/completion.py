"""Completion in shells: the script for a shell, and what is completed besides commands.

Click has the protocol between a shell and a program, and the scripts.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

_VARIABLE = "_CLARIGRPC_COMPLETE"


class _AssignmentBash(BashComplete):
    """Click's completion for bash, which also completes ``FIELD=VALUE``.

    Bash takes ``=`` for a word of its own, and adds a space to what it completes.
    """

    source_template = BashComplete.source_template.replace(
        "    return 0\n",
        "    [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace\n"
        "    return 0\n",
    )
    _assigned = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        joined: list[str] = []
        for word in (*words, incomplete):
            if joined and (word == "=" or joined[-1].endswith("=")):
                joined[-1] += word
            else:
                joined.append(word)
        incomplete = joined.pop() if joined else ""
        self._assigned = incomplete[: incomplete.find("=") + 1]
        return joined, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value.removeprefix(self._assigned)}"


def register() -> None:
    """Have Click use the completion of this module for bash."""
    add_completion_class(_AssignmentBash)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, methods and their fields.

    \b
    For every new shell:
      bash  echo 'eval "$(clarigrpc completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(clarigrpc completion zsh)"' >> ~/.zshrc
      fish  clarigrpc completion fish > ~/.config/fish/completions/clarigrpc.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    root = click.get_current_context().find_root().command
    # Not source(): it also runs bash to see how old that is.
    complete = made(root, {}, "clarigrpc", _VARIABLE)
    click.echo(complete.source_template % complete.source_vars())


def complete_method(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The methods that begin like this, in any case."""
    from clarigrpc._contract import methods
    from clarigrpc.cli.text import first_sentence

    return [
        CompletionItem(name, help=first_sentence(methods.lookup(name).documentation()))
        for name in methods.names()
        if name.lower().startswith(incomplete.lower())
    ]


def complete_assignment(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """``FIELD=`` for the fields of the method's request, and the values of enumerations."""
    from clarigrpc._contract import methods
    from clarigrpc.cli.message_json import has_fields
    from clarigrpc.v2._field_docs import FIELD_DOCS

    if incomplete.startswith("@"):
        return [CompletionItem(incomplete, type="file")]
    try:
        descriptor = methods.lookup(ctx.params["method"] or "").request_class().DESCRIPTOR
    except KeyError:
        return []
    path, equals, value = incomplete.partition("=")
    *outer, last = path.split(".")
    for name in outer:
        field = descriptor.fields_by_name.get(name)
        if field is None or not has_fields(field):
            return []
        descriptor = field.message_type
    before = "".join(f"{name}." for name in outer)
    if not equals:
        return [
            CompletionItem(
                f"{before}{field.name}{'.' if has_fields(field) else '='}",
                help=FIELD_DOCS.get(f"{descriptor.name}.{field.name}"),
            )
            for field in descriptor.fields
            if field.name.startswith(last)
        ]
    field = descriptor.fields_by_name.get(last)
    if field is None:
        return []
    if field.enum_type is not None:
        names = [one.name for one in field.enum_type.values]
    else:
        names = ["true", "false"] if field.type == field.TYPE_BOOL else []
    return [CompletionItem(f"{path}={name}") for name in names if name.startswith(value)]
