"""The published package ``clarifai-grpc`` in an environment of its own.

It is never imported here: scripts of ``scripts/`` run in its interpreter and hand over bytes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from tests.child_process import ChildProcess

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).resolve().parent / "scripts"
PEERS = ROOT / ".peers"
REQUIREMENT = "clarifai-grpc==12.6.0"

CLIENT_REQUIREMENTS = ("clarifai==12.5.0", "clarifai-grpc==12.6.0", "protobuf<7", "rich")
"""The published clients and runner. Their JSON channel needs what protobuf 7 no longer has."""

# Test data of the package itself, not part of the service's contract.
IGNORED_FILES = {"proto/clarifai/api/utils/test_proto.proto"}


def environment(name: str = "clarifai-grpc", requirements: Sequence[str] = (REQUIREMENT,)) -> Path:
    """The interpreter of the environment with these packages, which is made when it is not there.

    Without arguments that of the published package.
    """
    home = PEERS / name
    python = home / "bin" / "python"
    # Written last, so that an interrupted installation is not taken for a finished one.
    stamp = home / "requirement.txt"
    wanted = "\n".join(requirements)
    with locked(name):
        if not (stamp.is_file() and stamp.read_text() == wanted and python.exists()):
            shutil.rmtree(home, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(home)])
            run([str(python), "-m", "pip", "install", "--quiet", *requirements])
            stamp.write_text(wanted)
    return python


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other processes out of the environment of this name."""
    PEERS.mkdir(exist_ok=True)
    with (PEERS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str]) -> None:
    """Run a command that installs something."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            "the contract tests need packages from a package registry, and\n"
            f"  {' '.join(command)}\nfailed:\n{done.stdout}{done.stderr}"
        )


def run_script(python: Path, name: str, *arguments: str, ours: bool = False) -> bytes:
    """Run a script in the peer's environment, warnings as errors; with ``ours``, src is added."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src") if ours else ""}
    done = subprocess.run(
        [str(python), "-W", "error", str(SCRIPTS / name), *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def descriptors(python: Path) -> list[FileDescriptor]:
    """The package's files, in a pool of their own in this process."""
    files = FileDescriptorSet.FromString(run_script(python, "describe.py")).file
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return [
        pool.FindFileByName(file.name)
        for file in files
        if not file.name.startswith("google/") and file.name not in IGNORED_FILES
    ]


class Echo(ChildProcess):
    """A long-lived process that parses messages with the package's classes.

    It answers with their deterministic serialization, without fields that it does not know.
    """

    def __init__(self, python: Path) -> None:
        super().__init__([str(python), str(SCRIPTS / "echo.py")])

    def __call__(self, full_name: str, data: bytes) -> bytes:
        name = full_name.encode()
        self._stdin.write(struct.pack("<II", len(name), len(data)) + name + data)
        self._stdin.flush()
        header = self._stdout.read(4)
        if len(header) < 4:
            raise RuntimeError(f"the peer died on a {full_name}: exit {self._process.wait(30)}")
        answer = self._stdout.read(struct.unpack("<I", header)[0])
        return bytes(answer)
