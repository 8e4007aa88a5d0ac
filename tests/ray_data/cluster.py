"""A cluster of Ray on this machine, and drivers of it; all end with their ``with`` block."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from tests.child_process import ChildProcess
from tests.contract.peer import ROOT

# Ray must not tell others of itself, or make a token in the home directory.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(16),
    "PYTHONWARNINGS": "ignore",
}


_PATIENCE = 300.0
"""Seconds after which a driver that does not answer is killed, and the test fails."""


def ray_environment() -> dict[str, str]:
    """The environment of the cluster and its drivers, which import this checkout."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**others, **QUIET, "PYTHONPATH": str(ROOT / "src")}


class Cluster:
    """A head node with four logical CPUs, however many the machine has: each has a process."""

    def __init__(self, python: Path) -> None:
        self._python = python
        # Paths of sockets must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        command = [str(python.parent / "ray"), "start", "--head", "--block", "--port=0"]
        command += ["--num-cpus=4", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        command += ["--object-store-memory=100000000", f"--temp-dir={self._folder}"]
        with (self._folder / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=ray_environment()
            )

    def _address(self) -> str:
        """The address of the cluster, once it has started."""
        deadline = time.monotonic() + 120
        log, address = self._folder / "start.log", self._folder / "ray_current_cluster"
        # The file is there a moment before its content.
        while not ("Ray runtime started" in log.read_text() and address.read_text()):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return address.read_text()

    def driver(self) -> Driver:
        """A new driver of the cluster."""
        return Driver(self._python, self.address)

    def workers(self, doing: str) -> list[int]:
        """Process ids of the cluster's workers whose task has this in its name."""
        return [pid for pid in descendants(self._process.pid) if f"ray::{doing}" in title(pid)]

    def __enter__(self) -> Self:
        try:
            self.address = self._address()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        # SIGTERM would let it wait half a minute for its workers.
        for pid in (*descendants(self._process.pid), self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def descendants(root: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def title(pid: int) -> str:
    """The command line of a process, which Ray's workers replace; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


class DriverError(RuntimeError):
    """A driver reported an error: its type and its text."""


class Driver(ChildProcess):
    """A process that runs ``driver.py``.

    Args:
        python: The interpreter.
        address: Address of the cluster.
    """

    def __init__(self, python: Path, address: str) -> None:
        script = str(Path(__file__).with_name("driver.py"))
        super().__init__([str(python), script, address], text=True, env=ray_environment())

    def begin(self, do: str, /, **values: Any) -> None:
        """Let it do something."""
        self._stdin.write(json.dumps({"do": do, **values}) + "\n")
        self._stdin.flush()

    def end(self) -> Any:
        """The answer to what it does."""
        stuck = threading.Timer(_PATIENCE, self._process.kill)
        stuck.start()
        try:
            line = self._stdout.readline()
        finally:
            stuck.cancel()
        assert line, f"the driver ended with {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer["answer"]

    def do(self, do: str, /, **values: Any) -> Any:
        """What it answers."""
        self.begin(do, **values)
        return self.end()
