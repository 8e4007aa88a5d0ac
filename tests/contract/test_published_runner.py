"""The published runner takes the local server for the service, and serves its dummy model there.

Its own command starts it, and makes the model, the nodepool, the runner and the deployment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.runner import RunnerWorker
from tests.both import Both, ClientKind
from tests.contract import peer
from tests.waiting import until

MORE_METHODS = '''
    @ModelClass.method
    def shout(self, words: Iterator[str]) -> Iterator[str]:
        """Each word as it comes."""
        for word in words:
            yield word.upper()

    @ModelClass.method
    def endless(self) -> Iterator[int]:
        """Numbers, until the item is aborted."""
        import itertools, pathlib, time
        from clarifai_protocol import register_item_abort_callback

        register_item_abort_callback(lambda item_id: pathlib.Path("aborted").write_text(item_id))
        for number in itertools.count():
            if pathlib.Path("aborted").exists():
                return
            yield number
            time.sleep(0.02)
'''
EXPECTED = {
    "predict": "Echo: a cat",
    "generate": ["Echo: ", "a ", "cat "],
    "shout": ["A", "B"],
}
DEPLOYMENT = "local-dummy"


@dataclass
class Served:
    """A server, and a runner of the published package in a process of its own."""

    server: LocalServer
    python: Path
    folder: Path
    process: subprocess.Popen[bytes]
    runner: v2.Runner

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.server, self.folder)

    def deployment(self) -> v2.Deployment:
        with self.server.client() as client:
            return client.deployments.get(DEPLOYMENT)

    def call_with_sdk(self) -> dict[str, Any]:
        """What the published client gets from each method."""
        model = self.runner.worker.model
        url = f"https://clarifai.com/{model.user_id}/{model.app_id}/models/{model.id}"
        script = str(peer.SCRIPTS / "call_runner.py")
        done = subprocess.run(
            [str(self.python), script, url, DEPLOYMENT],
            env=self.environment,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def environment(server: LocalServer, folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLARIFAI_")}
    return kept | {
        "HOME": str(folder),
        "CLARIFAI_API_BASE": server.base,
        "CLARIFAI_PAT": server.pat,
        "CLARIFAI_USER_ID": server.user_id,
        "CLARIFAI_SKIP_VERSION_CHECK": "true",
    }


@pytest.fixture(scope="module")
def served(peer_interpreter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("published-runner")
    command = str(peer_interpreter.parent / "clarifai")
    with LocalServer(record_calls=1000) as server, (folder / "output").open("w+b") as output:
        settings: dict[str, Any] = {"cwd": folder, "env": environment(server, folder)}
        subprocess.run(
            [command, "model", "init", "dummy"],
            check=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **settings,
        )
        with (folder / "dummy" / "1" / "model.py").open("a") as code:
            code.write(MORE_METHODS)
        process = subprocess.Popen(
            [command, "model", "serve", "dummy", "--concurrency", "3"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **settings,
        )
        try:
            with server.client() as client:

                def live() -> v2.Runner | None:
                    if process.poll() is not None:
                        pytest.fail((folder / "output").read_text()[-4000:])
                    found = list(client.runners.list())
                    return next((r for r in found if r.runner_metrics.pods_running), None)

                runner = until(live, 120)
            yield Served(server, peer_interpreter, folder, process, runner)
        finally:
            process.kill()
            process.wait()


def test_what_it_makes(served: Served) -> None:
    with served.server.client() as client:
        (cluster,) = client.compute_clusters.list()
        assert cluster.cluster_type == "local-dev"
        model = served.runner.worker.model
        of_app = client.with_options(user_id=model.user_id, app_id=model.app_id)
        version = of_app.models.versions(model.id).get(model.model_version.id)
        assert version.pretrained_model_config.local_dev
        assert {method.name for method in version.method_signatures} >= {"predict", "shout"}
    metrics = served.deployment().deployment_metrics
    assert (metrics.aggregate.live_replicas, metrics.aggregate.desired_replicas) == (1, 1)


def test_the_first_messages(served: Served) -> None:
    """The page about runners says what they look like."""

    def all_firsts() -> list[Any]:
        calls = served.server.calls("ProcessRunnerItems")
        found = [call.requests[0] for call in calls if call.requests]
        # Its streams begin one after another.
        return found if len({first.runner_id for first in found}) > 1 else []

    firsts = until(all_firsts)
    assert {first.status.code for first in firsts} == {v2.StatusCode.RUNNER_STREAM_START}
    assert len({first.runner_replica_id for first in firsts}) == 1
    assert all(not first.runner_item_id for first in firsts)
    names = {first.runner_id for first in firsts}
    assert names == {served.runner.id, f"control-{served.runner.id}"}
    assert {first.nodepool_id for first in firsts} == {served.runner.nodepool.id}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_our_clients(served: Served, kind: ClientKind) -> None:
    server, named = served.server, served.runner.worker.model
    both = Both(kind, base=server.base, pat=server.pat, user_id=server.user_id)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(both.run, both.client.close)
        model = both.client.model(named.id, user_id=named.user_id, app_id=named.app_id)
        found = {
            "predict": await both.run(model.call, "predict", prompt="a cat"),
            "generate": await both.collect(await both.run(model.call, "generate", prompt="a cat")),
            "shout": await both.collect(await both.run(model.call, "shout", words=["a", "b"])),
        }
        assert found == EXPECTED


def test_the_published_client(served: Served) -> None:
    assert served.call_with_sdk() == EXPECTED


def test_more_callers_than_it_has_calls_open(served: Served) -> None:
    named = served.runner.worker.model
    with served.server.client(retry=False) as client, ThreadPoolExecutor(12) as pool:
        model = client.model(named.id, user_id=named.user_id, app_id=named.app_id)
        generate = lambda number: list(model.call("generate", prompt=f"{number} cats"))  # noqa: E731
        found = list(pool.map(generate, range(60)))
    assert found == [["Echo: ", f"{number} ", "cats "] for number in range(60)]


def test_it_hears_of_a_caller_that_leaves(served: Served) -> None:
    named = served.runner.worker.model
    with served.server.client() as client:
        model = client.model(named.id, user_id=named.user_id, app_id=named.app_id)
        numbers = model.call("endless")
        assert next(numbers) == 0
        numbers.close()
        aborted = served.folder / "aborted"
        assert until(lambda: aborted.exists() and aborted.read_text())


def test_its_log(served: Served) -> None:
    command = str(served.python.parent / "clarifai")
    done = subprocess.run(
        [command, "deployment", "logs", DEPLOYMENT, "--log-type", "events", "--no-follow"],
        env=served.environment,
        cwd=served.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "The worker has connected" in done.stdout, done.stderr[-4000:]


def test_ours_stands_in_for_it(served: Served) -> None:
    """Last: it ends the published runner."""

    class Dummy:
        def predict(self, prompt: str) -> str:
            return f"Echo: {prompt}"

        def generate(self, prompt: str) -> Iterator[str]:
            yield from (f"{word} " for word in f"Echo: {prompt}".split())

        def shout(self, words: Iterator[str]) -> Iterator[str]:
            yield from (word.upper() for word in words)

    served.process.send_signal(signal.SIGKILL)
    until(lambda: not served.deployment().deployment_metrics.aggregate.live_replicas)
    pool = served.runner.nodepool
    with (
        served.server.client() as client,
        RunnerWorker(
            client,
            Dummy,
            runner_id=served.runner.id,
            nodepool_id=pool.id,
            compute_cluster_id=pool.compute_cluster.id,
        ),
    ):
        assert served.call_with_sdk() == EXPECTED
