"""A client and a server under everything at once: nothing may be lost, and nothing may grow.

``python -m tests.soak --seconds 600``: 64 threads share a client and do reads, predictions, writes,
streams and uploads, while the server fails calls on purpose, is killed and started again. It ends
with an error if

- a call that may be repeated fails, or any call does not return,
- something that was acknowledged is missing at the end,
- memory, descriptors or threads of either process grow. That is measured in the last half, in which
  the server is not restarted.

What must not be repeated on its own, streams (also of named methods) and the creation of resources,
fails when the server dies meanwhile, as documented, and is counted apart.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from clarigrpc import Client, errors, image, text
from clarigrpc.local import Faults, LocalServer
from tests.faults.processes import ServerProcess

THREADS = 64
TIMEOUT = 120.0
"""Deadline of a call: longer than a restart on a busy machine."""
RESTART_SECONDS = 20.0
FAULT_SECONDS = 1.0
SAMPLE_SECONDS = 1.0

_NOT_REPEATED = ("call", "generate", "create an input", "create a concept")

# A little of this is caches that fill and the allocator's.
_GROWTH = {"MB": 40, "descriptors": 12, "threads": 12}


class Speaker:
    """A model of the server's that streams."""

    def letters(self, words: str) -> Iterator[str]:
        """One after the other."""
        yield from words


def serve(port: int, folder: Path) -> None:
    """The server's process: some calls fail, again and again."""
    dice = random.Random(1)
    faults = Faults()
    server = LocalServer(folder, port=port, models={"speaker": Speaker()}, faults=faults)

    def disturb() -> None:
        while True:
            time.sleep(FAULT_SECONDS)
            faults.unavailable_next = dice.randint(0, 5)
            faults.latency_seconds = dice.choice((0.0, 0.0, 0.02))

    with server:
        print(f"PAT={server.pat}", flush=True)
        print(f"GRPC_BASE={server.base}", flush=True)
        threading.Thread(target=disturb, daemon=True).start()
        server.serve_until_signalled()


def _command(port: int, folder: Path) -> Sequence[str]:
    return [sys.executable, "-m", "tests.soak", "--serve", str(port), str(folder)]


class Usage(NamedTuple):
    """What a process holds."""

    time: float
    megabytes: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """As /proc says."""
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        return cls(
            time.monotonic(),
            int(status["VmRSS"].split()[0]) / 1024,
            len(os.listdir(f"/proc/{pid}/fd")),
            int(status["Threads"]),
        )


class Soak:
    """The work of all threads, and what became of it.

    Args:
        client: Shared by all.
        seconds: How long it takes.
    """

    def __init__(self, client: Client, seconds: float) -> None:
        self._client = client
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.cut_off: Counter[str] = Counter()
        self.failed: list[str] = []
        self.inputs: set[str] = set()
        self.concepts: set[str] = set()
        file = io.BytesIO()
        PIL.Image.new("RGB", (64, 64), "red").save(file, "PNG")
        self._picture = file.getvalue()
        self._operations: dict[str, tuple[int, Callable[[str], None]]] = {
            "status": (30, lambda _: self._status()),
            "list": (15, lambda _: self._list()),
            "predict": (30, lambda _: self._predict()),
            "call": (10, lambda _: self._call()),
            "create an input": (8, self._create_input),
            "create a concept": (8, self._create_concept),
            "generate": (8, lambda _: self._generate()),
            "upload": (1, self._upload),
        }

    def run(self, number: int) -> None:
        """What one thread does."""
        dice = random.Random(number)
        names = list(self._operations)
        weights = [weight for weight, _ in self._operations.values()]
        count = 0
        while time.monotonic() < self._end and len(self.failed) < 20:
            (name,) = dice.choices(names, weights)
            count += 1
            try:
                self._operations[name][1](f"{number}-{count}")
            except errors.UnavailableError as error:
                with self._lock:
                    if name in _NOT_REPEATED:
                        self.cut_off[name] += 1
                    else:
                        self.failed.append(f"{name}: {error!r}")
            except Exception as error:  # noqa: BLE001 - counted, and printed at the end
                with self._lock:
                    self.failed.append(f"{name}: {error!r}")
            else:
                with self._lock:
                    self.done[name] += 1

    def check(self) -> None:
        """Compares what was acknowledged with what is there."""
        client = self._client.with_options(timeout=600)
        for name, acknowledged, there in (
            ("inputs", self.inputs, {item.id for item in client.inputs.stream()}),
            ("concepts", self.concepts, {concept.id for concept in client.concepts.list()}),
        ):
            missing = acknowledged - there
            if missing:
                self.failed.append(f"{len(missing)} acknowledged {name} are missing: {missing}")

    def _status(self) -> None:
        assert self._client.inputs.status().processed >= 0

    def _list(self) -> None:
        assert next(iter(self._client.models.list(per_page=5)), None) is not None

    def _predict(self) -> None:
        model = self._client.model("color-recognition", user_id="clarifai", app_id="main")
        assert model.predict(image(self._picture)).data.colors

    def _call(self) -> None:
        assert "".join(self._client.model("speaker").call("letters", words="abc")) == "abc"

    def _generate(self) -> None:
        model = self._client.model("text-stream", user_id="clarifai", app_id="main")
        assert len(list(model.generate(text("some words to stream")))) == 4

    def _create_input(self, name: str) -> None:
        self._client.inputs.create(text("x", id=name))
        with self._lock:
            self.inputs.add(name)

    def _create_concept(self, name: str) -> None:
        self._client.concepts.create(name)
        with self._lock:
            self.concepts.add(name)

    def _upload(self, name: str) -> None:
        content = random.Random(name).randbytes(300_000)
        self._client.model("uploaded").upload_version(content, resume=False)


def grown(name: str, samples: list[Usage]) -> list[str]:
    """What grew from the first third of the samples to the last."""
    third = len(samples) // 3
    if not third:
        return [f"{name}: too few samples"]
    found = []
    for index, unit in ((1, "MB"), (2, "descriptors"), (3, "threads")):
        before, after = (
            statistics.median(float(sample[index]) for sample in part)
            for part in (samples[:third], samples[-third:])
        )
        line = f"{name}: {before:.0f} -> {after:.0f} {unit}"
        print(line)
        if after - before > _GROWTH[unit] and after > 1.1 * before:
            found.append(f"grew: {line}")
    return found


def soak(seconds: float) -> list[str]:
    """Runs it; returns what went wrong."""
    # What is repeated is logged; here that is nearly everything.
    logging.getLogger("clarigrpc").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder), command=_command) as server,
        Client(
            base=server.base,
            pat=server.pat,
            user_id="local-user",
            app_id="local-app",
            timeout=TIMEOUT,
        ) as client,
    ):
        client.models.create("uploaded")
        work = Soak(client, seconds)
        threads = [
            threading.Thread(target=work.run, args=(number,), daemon=True)
            for number in range(THREADS)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        restarts = 0
        samples: dict[str, list[Usage]] = {"client": [], "server": []}
        while (now := time.monotonic()) < began + seconds and not work.failed:
            if now < began + seconds / 2:
                if now > began + (restarts + 1) * min(RESTART_SECONDS, seconds / 6):
                    server.restart()
                    restarts += 1
            elif now > began + 0.6 * seconds:  # the last server has warmed up
                assert server.pid is not None
                samples["client"].append(Usage.of(os.getpid()))
                samples["server"].append(Usage.of(server.pid))
            time.sleep(SAMPLE_SECONDS)
        for thread in threads:
            thread.join(max(0.0, began + seconds + 2 * TIMEOUT - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in threads)
        if hanging:
            work.failed.append(f"{hanging} calls did not return")
        work.check()
        print(f"{sum(work.done.values())} calls, {restarts} restarts, {seconds:.0f} s")
        for name, count in sorted(work.done.items()):
            print(f"  {count:7} {name}")
        for name, count in sorted(work.cut_off.items()):
            print(f"  {count:7} {name}: cut off by a restart")
        for name, kept in samples.items():
            work.failed += grown(name, kept)
        return work.failed


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(int(arguments.serve[0]), Path(arguments.serve[1]))
        return 0
    failed = soak(arguments.seconds)
    for line in failed:
        print(f"WRONG {line}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
