"""The command group, and how failures become error lines and exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from clarigrpc._version import __version__
from clarigrpc.cli import completion
from clarigrpc.cli.commands import COMMANDS
from clarigrpc.cli.missing_extras import extra_for
from clarigrpc.cli.text import printable
from clarigrpc.errors import ClarigrpcError

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used: ``--help`` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for commands in COMMANDS.values() for name in commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in COMMANDS.values():
            if cmd_name in commands:
                module, _, attribute = commands[cmd_name].place.partition(":")
                command: click.Command = getattr(
                    import_module(f"clarigrpc.cli.{module}"), attribute
                )
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # not for commands that exist

            # click looks at the commands that were imported, and older releases at none.
            for close in get_close_matches(args[0], self.list_commands(ctx), 1):
                text = f"{error.message} Did you mean {close!r}?"
                raise click.UsageError(text, error.ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(name.ljust(width), entry.summary) for name, entry in commands.items()]
                )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="An option takes precedence over the environment (CLARIFAI_PAT, CLARIFAI_USER_ID, "
    "CLARIFAI_APP_ID, CLARIFAI_API_BASE), the environment over ~/.config/clarifai/config.",
)
@click.version_option(__version__, prog_name="clarigrpc")
def app() -> None:
    """Call the Clarifai V2 service over gRPC, or run a local V2 server.

    \b
    To try it without an account, start a local server, and run the export
    lines that it prints in another terminal:
      clarigrpc serve
      clarigrpc predict cat.jpg --model clarifai/main/color-recognition

    \b
    Exit codes: 0 success, 1 failure (the reason is on stderr), 2 wrong usage,
    130 interrupted.
    """


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code, see ``clarigrpc.cli.main``."""
    if getattr(sys, "stdout", None) is None:  # the first file opened would get its number
        return _failed("stdout is closed; to drop what is printed, use > /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that are no UTF-8
    completion.register()
    try:
        code = app.main(arguments, prog_name="clarigrpc", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe is an exit code
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _failed(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has gone; without this the flush at exit would fail, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        extra = extra_for(error.name)
        advice = f": pip install 'clarigrpc[{extra}]'" if extra else ""
        return _failed(f"the package {error.name} is missing{advice}")
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        return _failed(f"{error.filename}: {error.strerror}" if named else str(error))
    except ClarigrpcError as error:
        return _failed(str(error))
    except RecursionError:
        return _failed("a value is nested too deeply")
    except Exception as error:  # noqa: BLE001 - said in one line; --debug has shown the rest
        return _failed(f"unexpected {type(error).__name__}: {error}")
    return code if isinstance(code, int) else 0


def _failed(text: str) -> int:
    # The text may contain parts of a response.
    click.echo(f"clarigrpc: {printable(' '.join(text.split()))}", err=True)
    return 1
