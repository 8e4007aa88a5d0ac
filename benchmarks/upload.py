"""How fast a file goes up, against a server that only counts bytes.

One file, one connection at a time, the client on one core and the server on another. The figures
are ratios to what else could carry the file in the same run: a plain TCP socket (``read`` and
``sendall``), ``requests`` with PUT, and a gRPC stream with parts of 127 MB made by nested
constructors, as the incumbent's builder sends them. The counting server is written in C and built
with the machine's compiler. The local server, which keeps and hashes the content, stands beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from benchmarks.harness import (
    CHOICE,
    CLIENT_CORE,
    SERVER_CORE,
    Report,
    Row,
    Scene,
    interleave,
    measured,
    pin,
    pinned,
    spread,
)
from benchmarks.servers import Server, certificate
from benchmarks.workers import SCRIPTS, ours, scene
from clarigrpc import AsyncClient, Client, v2

PAT = "benchmark-token-0000"
MIB = 1 << 20
_LOCAL_SERVER = """
import signal
from clarigrpc.local import LocalServer
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with LocalServer() as server:
    print(server.base, server.pat, flush=True)
    signal.sigwait({signal.SIGTERM})
"""
BLOCK = MIB
LARGE_PART = 127_000_000
MOST_MEMORY = 8
"""MiB that an upload of any size may take."""
GOALS = {
    "sync": {"tcp": ">= 0.6", "requests": ">= 1.3", "127 MB parts": ">= 8"},
    "asyncio": {"tcp": ">= 0.55", "requests": ">= 1.3", "127 MB parts": ">= 8"},
}


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("upload")
    size = int(os.environ.get("UPLOAD_MIB", 512)) * MIB
    rounds = 9 if full else 5
    if CHOICE.get().against is not None:
        with tempfile.TemporaryDirectory() as folder, counting_server(Path(folder)) as port:
            server = Server(f"127.0.0.1:{port}", "")
            payload, title = os.urandom(min(size, 64 * MIB)), "upload of 64 MiB"
            for way in (ours("upload", "sync"), ours("aupload", "asyncio")):
                scene(report, title, server, [way], rounds=rounds, payload=payload)
        return report
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content"
        write(path, size)
        with counting_server(Path(folder)) as port, pinned(CLIENT_CORE):
            found = _measured(report, "upload", path, Peer(port), rounds)
        for variant, goals in GOALS.items():
            for reference, goal in goals.items():
                found.row(variant, reference, "rate", goal)
        public, key = certificate()
        with counting_server(Path(folder), public, key) as port, pinned(CLIENT_CORE):
            found = _measured(report, "upload, TLS", path, Peer(port, public), rounds)
        for variant in GOALS:
            for reference in ("PUT on a socket", "requests"):
                found.row(variant, reference, "rate")
        with counting_server(Path(folder)) as port:
            _memory(
                report, path, (2048 if full else 512) * MIB, Peer(port), rounds=5 if full else 2
            )
        report.notes.append(f"{size // MIB} MiB a call, {rounds} rounds; a call is a MiB")
        report.notes.append(_local(path))
    return report


def _measured(report: Report, title: str, path: Path, peer: Peer, rounds: int) -> Scene:
    variants = ways(path, peer)
    measure = partial(interleave, variants, rounds)
    return measured(report, title, measure, first="sync", again="sync, again", quantities=["rate"])


@dataclass(frozen=True)
class Peer:
    """A counting server.

    Attributes:
        port: Where it listens.
        certificate: To trust; None: no TLS.
    """

    port: int
    certificate: Path | None = None

    @property
    def base(self) -> str:
        """Its address as a URL."""
        return f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}"

    def connected(self) -> socket.socket:
        """A connection to it."""
        plain = socket.create_connection(("127.0.0.1", self.port))
        if self.certificate is None:
            return plain
        context = ssl.create_default_context(cafile=self.certificate)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def identity(self) -> dict[str, Any]:
        """Arguments of a client."""
        roots = None if self.certificate is None else self.certificate.read_bytes()
        return {
            "base": self.base,
            "pat": PAT,
            "user_id": "user",
            "app_id": "app",
            "root_certificates": roots,
        }


def write(path: Path, size: int) -> None:
    """A file of random content."""
    block = os.urandom(min(size, 8 * MIB))
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])


@contextmanager
def counting_server(folder: Path, *files: Path) -> Iterator[int]:
    """The port of a server that counts bytes; with a certificate and its key, over TLS."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("the benchmark of uploads needs a C compiler (cc) for its server")
    program = folder / ("counting_server_tls" if files else "counting_server")
    source = Path(__file__).with_name("native") / "counting_server.c"
    command = [compiler, "-O2", "-D_GNU_SOURCE", "-pthread", "-o", str(program), str(source)]
    command += ["-DTLS", "-lssl", "-lcrypto"] if files else []
    subprocess.run(command, check=True)
    with _process([str(program), *map(str, files)]) as line:
        yield int(line)


@contextmanager
def _process(command: list[str]) -> Iterator[str]:
    """A server on its core; the first line that it prints."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(SERVER_CORE)
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process.stdout.readline()
    finally:
        process.terminate()
        process.wait(10)


def ways(path: Path, peer: Peer) -> dict[str, Callable[[], int]]:
    """Ways to upload a file to a counting server, by name; each returns its MiB."""
    import requests

    size = path.stat().st_size
    verify = True if peer.certificate is None else str(peer.certificate)

    def tcp() -> None:
        with peer.connected() as sock, path.open("rb", 0) as file:
            while block := file.read(BLOCK):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            assert int.from_bytes(sock.recv(8), "little") == size

    def put_by_hand() -> None:
        with peer.connected() as sock, path.open("rb", 0) as file:
            sock.sendall(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
            while block := file.read(BLOCK):
                sock.sendall(block)
            assert b" 200 " in sock.recv(4096)

    def put() -> None:
        with path.open("rb") as file:
            requests.put(peer.base, data=file, timeout=600, verify=verify).raise_for_status()

    def blocking() -> None:
        with Client(**peer.identity()) as client:
            client.model("model").upload_version(path)

    async def awaiting() -> None:
        async with AsyncClient(**peer.identity()) as client:
            await client.model("model").upload_version(path)

    def counted(send: Callable[[], object]) -> Callable[[], int]:
        def once() -> int:
            send()
            return size // MIB

        return once

    variants = {
        "sync": counted(blocking),
        "sync, again": counted(blocking),
        "asyncio": counted(lambda: asyncio.run(awaiting())),
        "requests": counted(put),
    }
    if peer.certificate is not None:  # where a socket cannot be shut down in one direction
        return {**variants, "PUT on a socket": counted(put_by_hand)}
    parts = counted(lambda: _large_parts(path, peer.port))
    return {**variants, "tcp": counted(tcp), "127 MB parts": parts}


def _large_parts(path: Path, port: int) -> None:
    def messages() -> Iterator[v2.PostModelVersionsUploadRequest]:
        yield v2.PostModelVersionsUploadRequest(
            upload_config=v2.PostModelVersionsUploadConfig(
                model_id="model", total_size=path.stat().st_size
            )
        )
        with path.open("rb") as file:
            number = start = 0
            while data := file.read(LARGE_PART):
                number += 1
                yield v2.PostModelVersionsUploadRequest(
                    content_part=v2.UploadContentPart(
                        data=data, part_number=number, range_start=start
                    )
                )
                start += len(data)

    with grpc.insecure_channel(
        f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)]
    ) as channel:
        for last in v2.V2Stub(channel).PostModelVersionsUpload(messages(), timeout=600):
            answer = last
    assert answer.status.code == v2.StatusCode.MODEL_BUILDING


def _memory(report: Report, path: Path, size: int, peer: Peer, rounds: int) -> None:
    """What anonymous memory an upload takes, beside what a smaller one before has left."""
    before, large = path.with_name("before"), path.with_name("large")
    write(before, 16 * MIB)
    write(large, size)
    script = SCRIPTS / "upload_memory.py"
    for kind in GOALS:
        command = [sys.executable, str(script), kind, f"127.0.0.1:{peer.port}", PAT]
        found = []
        for _ in range(rounds):
            output = subprocess.run(
                [*command, str(before), str(large)], check=True, capture_output=True, text=True
            )
            found.append(json.loads(output.stdout)["mib"])
        ratio, low, high = spread([mib / MOST_MEMORY for mib in found])
        report.rows.append(
            Row(
                f"{size // MIB} MiB, {kind}: extra anonymous memory / {MOST_MEMORY} MiB",
                ratio,
                low,
                high,
                (statistics.median(found), MOST_MEMORY),
                "MiB",
                "<= 1",
            )
        )
    large.unlink()


def _local(path: Path) -> str:
    """The figure of the local server, which keeps and hashes the content, on the server's core."""
    best = 0.0
    with (
        _process([sys.executable, "-c", _LOCAL_SERVER]) as line,
        pinned(CLIENT_CORE),
    ):
        base, pat = line.split()
        with Client(base=base, pat=pat, user_id="local-user", app_id="local-app") as client:
            client.v2.PostModels(v2.PostModelsRequest(models=[v2.Model(id="model")]))
            for _ in range(3):
                start = time.perf_counter()
                result = client.model("model").upload_version(path, verify=True)
                best = max(best, result.size / MIB / (time.perf_counter() - start))
    return f"to the local server (kept, hashed on both sides, compared): {best:.0f} MiB/s"
