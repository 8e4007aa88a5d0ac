"""A server in a process of its own, to be killed and restarted by tests."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.socket_server import kept_port

Command = Callable[[int, Path], Sequence[str]]
"""Makes a command line of a port and a data folder."""

_BASE = re.compile(r"http://127\.0\.0\.1:(\d+)")
_PAT = re.compile(r"PAT=(\S+)")


def serve_command(port: int, data_dir: Path) -> Sequence[str]:
    """The command line of the local server."""
    serve = [sys.executable, "-m", "clarigrpc.cli", "serve"]
    return [*serve, "--port", str(port), "--data", str(data_dir)]


class ServerProcess:
    """A server in a subprocess, started on entering the `with` block and killed on leaving it.

    The first start takes a free port; later ones take the same port and data folder again. Nobody
    else gets the port in between.

    Args:
        data_dir: Folder that the server keeps its data in; survives the process.
        command: Makes the command line, of a server that sets SO_REUSEADDR.
        base: Pattern of the printed base address, its first group the port. The first match
            in what the server prints counts; it must be listening by then.
        env: Variables added to the environment of the process.
        timeout: Seconds to wait for the base address, and for the process to end.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        command: Command = serve_command,
        base: re.Pattern[str] = _BASE,
        env: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> None:
        self._data_dir = data_dir
        self._command = command
        self._pattern = base
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._port = 0
        self._keeper = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._close_output()
        self._keeper.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        """Target for a gRPC channel: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self._port}"

    @property
    def base(self) -> str:
        """Base address for a client: "http://127.0.0.1:PORT"."""
        return f"http://{self.address}"

    @property
    def pat(self) -> str | None:
        """The access token that the server printed as `PAT=...`, if it has."""
        found = _PAT.search(self._read_output())
        return found and found[1]

    @property
    def pid(self) -> int | None:
        """Process id; None while no process runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What the latest process has printed to both of its outputs, without the token."""
        return _PAT.sub("PAT=***", self._read_output())

    def start(self) -> None:
        """Start the process and wait for its base address.

        Raises:
            RuntimeError: It is running already, or it ended or was silent for too long.
        """
        if self.running:
            raise RuntimeError("the server is running already")
        if not self._port:
            self._port = self._keeper.enter_context(kept_port())
        self._close_output()
        # A file, not a pipe: the server never blocks on what nobody reads.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _close_output
        self._process = subprocess.Popen(
            self._command(self._port, self._data_dir),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=self._env,
        )
        deadline = time.monotonic() + self._timeout
        while (found := self._pattern.search(self._read_output())) is None:
            if self._process.poll() is not None:
                raise self._failed(f"the server ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"no base address in {self._timeout} s")
            time.sleep(0.01)
        self._port = int(found[1])

    def kill(self) -> None:
        """End the process with SIGKILL and wait until it is gone; nothing if none runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(self._timeout)

    def terminate(self) -> int:
        """End the process with SIGTERM, wait, and return its exit status.

        Raises:
            RuntimeError: No process runs.
            subprocess.TimeoutExpired: It does not end in time.
        """
        if self._process is None or not self.running:
            raise RuntimeError("the server is not running")
        self._process.terminate()
        return self._process.wait(self._timeout)

    def restart(self) -> None:
        """Kill the process if it runs, and start another on the same port and data folder."""
        self.kill()
        self.start()

    def _failed(self, reason: str) -> RuntimeError:
        error = RuntimeError(f"{reason}:\n{self.log()}")
        self.kill()
        self._close_output()
        self._keeper.close()
        return error

    def _read_output(self) -> str:
        if self._output is None:
            return ""
        # By position: the offset of the file is the process's, which writes at it.
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None
