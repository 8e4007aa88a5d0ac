"""Every command, by the heading that it has in ``clarigrpc --help``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command, which is imported when it is used.

    Attributes:
        place: ``module:attribute`` of the command, the module in this package.
        summary: Its line in the list of commands.
    """

    place: str
    summary: str


COMMANDS: Mapping[str, Mapping[str, CommandEntry]] = {
    "Predict and search": {
        "predict": CommandEntry("predict:predict", "Predict images, texts, videos and audio."),
        "search": CommandEntry("search:search", "Search the inputs of an app."),
    },
    "Resources": {
        "apps": CommandEntry("resources:apps", "List, create and delete apps."),
        "concepts": CommandEntry("resources:concepts", "List and create concepts."),
        "datasets": CommandEntry(
            "datasets:datasets", "List, create, fill, version and delete datasets."
        ),
        "inputs": CommandEntry("inputs:inputs", "Add, list, search and delete inputs."),
        "models": CommandEntry("models:models", "List, create, train and evaluate models."),
        "workflows": CommandEntry("resources:workflows", "List, create and delete workflows."),
        "upload": CommandEntry("upload:upload", "Upload a file or a folder."),
    },
    "The service": {
        "call": CommandEntry("call:call", "Call or describe any method of the service."),
        "conformance": CommandEntry(
            "conformance:conformance", "Compare a service with what is known of the hosted one."
        ),
        "ping": CommandEntry("ping:ping", "Check the connection and the credentials."),
        "runner": CommandEntry("runner:runner", "Serve a model of your own to the service."),
    },
    "Setting up": {
        "config": CommandEntry("config:config", "Show and change the contexts of the config file."),
        "completion": CommandEntry("completion:completion", "Print completion for a shell."),
        "serve": CommandEntry("serve:serve", "Run a local V2 server."),
    },
}
"""A new command needs a line here, and nothing else."""
