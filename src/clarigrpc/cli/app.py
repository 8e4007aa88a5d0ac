"""The command group, and how failures become error lines and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click

import clarigrpc
from clarigrpc.cli.call import call
from clarigrpc.cli.conformance import conformance
from clarigrpc.cli.options import extra_for
from clarigrpc.cli.predict import predict
from clarigrpc.cli.serve import serve
from clarigrpc.cli.text import printable
from clarigrpc.cli.upload import upload
from clarigrpc.errors import ClarigrpcError

INTERRUPTED = 130

logger = logging.getLogger("clarigrpc")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="An option takes precedence over the environment (CLARIFAI_PAT, CLARIFAI_USER_ID, "
    "CLARIFAI_APP_ID, CLARIFAI_API_BASE), the environment over ~/.config/clarifai/config.",
)
@click.version_option(clarigrpc.__version__, prog_name="clarigrpc")
def app() -> None:
    """Call the Clarifai V2 service over gRPC, or run a local V2 server.

    \b
    To try it without an account, start a local server, and run the export
    lines that it prints in another terminal:
      clarigrpc serve
      clarigrpc predict cat.jpg --model clarifai/main/color-recognition
    """


app.add_command(serve)
app.add_command(predict)
app.add_command(call)
app.add_command(upload)
app.add_command(conformance)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code, see ``clarigrpc.cli.main``."""
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
        if extra is None:
            raise
        return _failed(f"the package {error.name} is missing: pip install 'clarigrpc[{extra}]'")
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        return _failed(f"{error.filename}: {error.strerror}" if named else str(error))
    except ClarigrpcError as error:
        return _failed(str(error))
    except Exception as error:
        logger.debug("unexpected", exc_info=True)
        return _failed(f"unexpected {type(error).__name__}: {error}")
    return code if isinstance(code, int) else 0


def _failed(text: str) -> int:
    # The text may contain parts of a response.
    click.echo(f"clarigrpc: {printable(' '.join(text.split()))}", err=True)
    return 1
