"""The published clients take the local server for the service: their acts, one by one.

Scripts of ``scripts/`` use a server through the public classes of ``clarifai-grpc`` and of
``clarifai`` in an environment of their own, and report how each act went.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clarigrpc.local import LocalServer
from tests.contract import peer
from tests.local.conftest import clip, png

CLUSTER = """
compute_cluster:
  id: cluster
  description: a cluster
  cloud_provider: {id: aws}
  region: us-east-1
  managed_by: clarifai
  cluster_type: shared
  visibility: {gettable: 10}
"""
NODEPOOL = """
nodepool:
  id: pool
  compute_cluster: {id: cluster, user_id: USER}
  description: a pool
  instance_types:
  - id: t3a.medium
    compute_info: {cpu_limit: '1', cpu_memory: 2Gi, num_accelerators: 0}
  node_capacity_type: {capacity_types: [1]}
  max_instances: 1
  min_instances: 0
  visibility: {gettable: 10}
"""
DEPLOYMENT = """
deployment:
  id: deployment
  description: a deployment
  autoscale_config: {min_replicas: 0, max_replicas: 1}
  nodepools:
  - id: pool
    compute_cluster: {id: cluster, user_id: USER}
  worker:
    model:
      id: general-image-recognition
      model_version: {id: aa7f35c01e0642fda5cf400f543e7c40}
      user_id: clarifai
      app_id: main
  scheduling_choice: 4
"""


def acts_of(script: str) -> list[str]:
    """Names of the acts of a script, which is not imported here."""
    text = (peer.SCRIPTS / script).read_text()
    return re.findall(r"^@act\ndef (\w+)", text, re.MULTILINE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with files to upload, and variables that name a server and the folder's address."""
    folder = tmp_path_factory.mktemp("published-clients")
    (folder / "labelled").mkdir()
    for colour in ("red", "blue"):
        (folder / f"{colour}.png").write_bytes(png(colour))
        (folder / "labelled" / f"{colour}.png").write_bytes(png(colour))
    (folder / "clip.mp4").write_bytes(clip(frames=60))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with (
        LocalServer(rest_port=0) as server,
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as web,
    ):
        for name, text in (
            ("cluster", CLUSTER),
            ("nodepool", NODEPOOL),
            ("deployment", DEPLOYMENT),
        ):
            (folder / f"{name}.yaml").write_text(text.replace("USER", server.user_id))
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CLARIFAI_")}
        yield (
            folder,
            kept
            | {
                "HOME": str(folder),
                "WEB": f"http://127.0.0.1:{web.server_port}",
                "CLARIFAI_API_BASE": server.base,
                "CLARIFAI_PAT": server.pat,
                "CLARIFAI_USER_ID": server.user_id,
                "CLARIFAI_APP_ID": server.app_id,
                "CLARIFAI_SKIP_VERSION_CHECK": "true",
                "PORT": server.address.rpartition(":")[2],
                "REST_BASE": str(server.rest_base),
                "API_KEY": server.api_key,
                "SESSION": server.session_token,
            },
        )
        web.shutdown()
        thread.join()


def run(python: Path, script: str, world: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Name of each act of a script -> why it failed, or ""."""
    folder, variables = world
    done = subprocess.run(
        [str(python), str(peer.SCRIPTS / script)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def of_the_grpc_client(
    peer_interpreter: Path, world: tuple[Path, dict[str, str]]
) -> dict[str, str]:
    return run(peer_interpreter, "use_grpc.py", world)


@pytest.fixture(scope="module")
def of_the_sdk(peer_interpreter: Path, world: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return run(peer_interpreter, "use_sdk.py", world)


@pytest.mark.parametrize("channel", ["grpc", "json"])
@pytest.mark.parametrize("act", acts_of("use_grpc.py"))
def test_the_grpc_client(of_the_grpc_client: dict[str, str], channel: str, act: str) -> None:
    assert of_the_grpc_client[f"{channel}: {act}"] == ""


@pytest.mark.parametrize("act", acts_of("use_sdk.py"))
def test_the_sdk(of_the_sdk: dict[str, str], act: str) -> None:
    assert of_the_sdk[act] == ""
