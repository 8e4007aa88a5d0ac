"""A model in a runner: what the way through the service costs, and how the published one does.

The same function is called in four places, by one client: inside the local server; in a worker of
clarigrpc and in the published runner (``clarifai``), which both fetch their items from that local
server; and in the published model server, which is called directly. The local server shares the
machine with all of them, so the rows say what a runner costs there, not what a service can do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness import CHOICE, Report, Sample, measured, rounds_of
from benchmarks.peers import interpreter
from benchmarks.servers import running
from benchmarks.workers import neutral_environment
from clarigrpc import Client, errors, v2
from clarigrpc.types import Model

T = TypeVar("T")

CALLERS = 16
TOKENS = 200
MODEL = """
from collections.abc import Iterator


class Echo:
    def predict(self, text: str) -> str:
        return text

    def generate(self, text: str) -> Iterator[str]:
        for _ in range(%d):
            yield text
"""
PUBLISHED = """
from typing import Iterator

from clarifai.runners.models.model_class import ModelClass


class Echo(ModelClass):
    def load_model(self):
        pass

    @ModelClass.method
    def predict(self, text: str) -> str:
        return text

    @ModelClass.method
    def generate(self, text: str) -> Iterator[str]:
        for _ in range(%d):
            yield text
"""
CONFIG = """
model: {id: echo, user_id: local-user, app_id: local-app, model_type_id: any-to-any}
build_info: {python_version: "3.11"}
inference_compute_info: {cpu_limit: "1", cpu_memory: 1Gi, num_accelerators: 0}
"""
INSIDE, OURS = "in the local server", "clarigrpc runner"
RUNNER, SERVER = "published runner", "published model server"


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("runners")
    if CHOICE.get().against is not None:
        return report
    with _places() as models:
        again = f"{INSIDE}, again"
        for title, callers, calls in (("one caller", 1, 100), (f"{CALLERS} callers", CALLERS, 400)):
            slices = {
                name: _calls(model, callers, calls * (3 if full else 1))
                for name, model in {**models, again: models[INSIDE]}.items()
            }
            found = measured(
                report,
                title,
                partial(rounds_of, slices, 15 if full else 5),
                first=INSIDE,
                again=again,
                quantities=("rate", "p50"),
            )
            if not found.samples:
                continue
            found.row(OURS, INSIDE, "rate")
            found.row(OURS, INSIDE, "p50")
            found.row(OURS, RUNNER, "rate")
            # With more callers the local server is what both wait for.
            found.row(OURS, RUNNER, "p50", "<= 1" if callers == 1 else "")
            found.row(OURS, SERVER, "rate")
            found.row(OURS, SERVER, "p50")
        slices = {
            name: _tokens(model, 20 if full else 5)
            for name, model in {**models, again: models[INSIDE]}.items()
        }
        found = measured(
            report,
            f"generate, {TOKENS} results",
            lambda: rounds_of(slices, 15 if full else 5),
            first=INSIDE,
            again=again,
            quantities=("rate",),
        )
        if found.samples:
            found.row(OURS, INSIDE, "rate")
            found.row(OURS, RUNNER, "rate")
            found.row(OURS, SERVER, "rate")
    return report


def _calls(model: Model, callers: int, calls: int) -> Callable[[], Sample]:
    """A slice of unary calls."""

    def one(_: int) -> float:
        began = time.perf_counter()
        assert model.call("predict", text="word") == "word"
        return time.perf_counter() - began

    def once() -> Sample:
        with ThreadPoolExecutor(callers) as pool:
            wall, cpu = time.perf_counter(), time.process_time()
            latencies = list(pool.map(one, range(calls)))
            return Sample(
                time.perf_counter() - wall, time.process_time() - cpu, calls, latencies=latencies
            )

    return once


def _tokens(model: Model, calls: int) -> Callable[[], Sample]:
    """A slice of generated results, counted one by one."""

    def once() -> Sample:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            assert sum(1 for _ in model.call("generate", text="word")) == TOKENS
        return Sample(time.perf_counter() - wall, time.process_time() - cpu, calls * TOKENS)

    return once


@contextmanager
def _places() -> Iterator[dict[str, Model]]:
    """A handle on the model in each place where it can be had, by the name of the place."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clarigrpc-bench-")))
        (folder / "inside.py").write_text(MODEL % TOKENS)
        serve = [sys.executable, "-m", "clarigrpc.cli", "serve", "--pat", "benchmark-token-0000"]
        line = stack.enter_context(running([*serve, "--models", str(folder / "inside.py")]))
        base = line.removeprefix("GRPC_BASE=")
        settings: dict[str, Any] = {
            "pat": "benchmark-token-0000",
            "user_id": "local-user",
            "app_id": "local-app",
        }
        client = stack.enter_context(Client(base=base, **settings))
        client.models.create("remote")
        version = v2.ModelVersion()
        version.pretrained_model_config.local_dev = True
        client.models.versions("remote").create(version)
        environment = neutral_environment() | {
            "HOME": str(folder),
            "CLARIFAI_API_BASE": base,
            "CLARIFAI_PAT": settings["pat"],
            "CLARIFAI_USER_ID": settings["user_id"],
            "CLARIFAI_APP_ID": settings["app_id"],
            "CLARIFAI_SKIP_VERSION_CHECK": "true",
        }
        runner = [*serve[:3], "runner", "--quiet", "--runner", "ours", "--model", "remote"]
        target = f"{folder / 'inside.py'}:Echo"
        stack.enter_context(
            _process([*runner, "--concurrency", str(CALLERS), target], environment, folder)
        )
        models = {INSIDE: client.model("Echo"), OURS: client.model("remote")}
        models |= _published(stack, client, environment, folder)
        for model in models.values():
            _await(partial(_answers, model))
        yield models


def _answers(model: Model) -> bool:
    return bool(model.call("predict", text="word") == "word")


def _published(
    stack: ExitStack, client: Client, environment: dict[str, str], folder: Path
) -> dict[str, Model]:
    """The published runner and model server."""
    program = str(Path(interpreter("clarifai")).parent / "clarifai")
    place = folder / "published"
    (place / "1").mkdir(parents=True)
    (place / "1" / "model.py").write_text(PUBLISHED % TOKENS)
    (place / "config.yaml").write_text(CONFIG)
    (place / "requirements.txt").write_text("clarifai\n")
    serve = [program, "model", "serve", str(place), "--concurrency", str(CALLERS)]
    stack.enter_context(_process(serve, environment, folder))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stack.enter_context(_process([*serve, "--grpc", "--port", str(port)], environment, folder))
    direct = stack.enter_context(
        Client(base=f"http://127.0.0.1:{port}", pat="unused", user_id="u", app_id="a")
    )

    def found() -> Model | None:
        for one in client.runners.list():
            model = one.worker.model
            if one.id != "ours":
                return client.model(model.id, user_id=model.user_id, app_id=model.app_id)
        return None

    return {RUNNER: _await(found), SERVER: direct.model("echo")}


@contextmanager
def _process(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """A process, which ends with the block."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await(check: Callable[[], T | None], seconds: float = 90) -> T:
    """What ``check`` returns once it is something."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := check():
                return found
        except errors.ApiError:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise RuntimeError("a model did not start")
        time.sleep(0.2)
