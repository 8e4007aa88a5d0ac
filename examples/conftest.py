"""What the tests of the examples share: settings for a local server, and a service to talk to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from clarigrpc.local import LocalServer

EXAMPLES = Path(__file__).parent


class Service(NamedTuple):
    """A service that an example runs."""

    address: str
    process: subprocess.Popen[str]


Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(scope="session")
def environment(clarifai_local: LocalServer) -> dict[str, str]:
    """The environment of a process that uses the local server."""
    return {
        **os.environ,
        "CLARIFAI_API_BASE": clarifai_local.base,
        "CLARIFAI_PAT": clarifai_local.pat,
        "CLARIFAI_USER_ID": clarifai_local.user_id,
        "CLARIFAI_APP_ID": clarifai_local.app_id,
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="session")
def serve(environment: dict[str, str]) -> Serve:
    """Starts ``python -m ARGUMENTS`` in the folder of an example; it has to print its address."""

    @contextmanager
    def serving(folder: str, *arguments: str, **variables: str) -> Iterator[Service]:
        with subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=EXAMPLES / folder,
            env={**environment, **variables},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                said = []
                for line in process.stderr:
                    said.append(line)
                    if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                        yield Service(found[0], process)
                        break
                else:
                    pytest.fail("".join(said))
            finally:
                process.kill()

    return serving
