"""Call a server with every minor release of grpcio, with the fast paths and without.

The fast paths use names that grpcio does not promise. For the newest release of each minor version
from the lowest that pyproject.toml allows to the newest there is, grpcio goes into a folder of its
own, before the other packages of this environment, and a client calls a server of this process:
sync and async, the way that a user gets, with the fast path, and without it. Printed is which way
was taken. Fails when a call fails, when a fast path is not taken with a release that is said to be
tested, or when a release words the failure to connect, or a server's GOAWAY, in a way that is not
understood.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
MODES = ("default", "on", "off")
KINDS = ("sync", "async")
ROW = "{:9} {:8} {:8} {:8}  {:8} {:8} {}"

# Runs with another grpcio. Prints of each call: kind, mode of the fast path, way, error, reasons.
PROBE = r"""
import asyncio, json, logging, socket, sys
import grpc
from clarigrpc import AsyncClient, Client, RetryPolicy, errors, text, v2
from clarigrpc._rpc import grpcio_internals

base, pat, version, root = sys.argv[1:]
sys.path.append(root)
from tests.faults import http2_server as http2
assert grpc.__version__ == version, grpc.__file__
notes = []
handler = logging.Handler(logging.DEBUG)
handler.emit = lambda record: notes.append(record.getMessage())
logging.getLogger("clarigrpc").addHandler(handler)
logging.getLogger("clarigrpc").setLevel(logging.DEBUG)
tested, usable = grpcio_internals.TESTED_VERSIONS, grpcio_internals.usable
once = RetryPolicy(max_attempts=1)
with socket.create_server(("127.0.0.1", 0)) as taken:
    refusing = "http://127.0.0.1:%d" % taken.getsockname()[1]

WORDS = [text("one"), text("two")]
SPEAKER = {"model_id": "text-stream", "user_id": "clarifai", "app_id": "main"}

def sync_calls(base):
    with Client(base=base, pat=pat, retry=once, timeout=20) as client:
        assert client.v2.ListModels(v2.ListModelsRequest()).status.code == 10000
        request = v2.StreamInputsRequest(per_page=1)
        assert client.v2.StreamInputs(request).status.code == 10000
        assert list(client.model(**SPEAKER).generate(WORDS[0]))
        assert list(client.model(**SPEAKER).stream(WORDS))
        return client.v2.ListModels._direct

async def async_calls(base):
    async with AsyncClient(base=base, pat=pat, retry=once, timeout=20) as client:
        assert (await client.v2.ListModels(v2.ListModelsRequest())).status.code == 10000
        assert [one async for one in client.model(**SPEAKER).generate(WORDS[0])]
        assert [one async for one in client.model(**SPEAKER).stream(WORDS)]
        return client.v2.ListModels.direct

DONE = v2.MultiConceptResponse(status=v2.Status(code=10000)).SerializeToString()
WRITE = v2.PostConceptsRequest(concepts=[v2.Concept(id="c")])
SOON = RetryPolicy(initial_backoff=0.01)

# Whether a write to a server that ends it, and takes the next, came to an answer.
def written(kind, ending):
    async def write(base):
        async with AsyncClient(base=base, pat="p", retry=SOON, timeout=20) as client:
            await client.v2.PostConcepts(WRITE)
    with http2.Http2Server([ending, http2.take(DONE)]) as server:
        try:
            if kind == "async":
                asyncio.run(write(server.base))
            else:
                with Client(base=server.base, pat="p", retry=SOON, timeout=20) as client:
                    client.v2.PostConcepts(WRITE)
        except errors.UnavailableError:
            assert server.arrived == 1, "sent twice, and failed"
            return False
    assert server.arrived == 2 and server.taken == 1, "worked on twice"
    return True

# Check what is sent again of writes to a server that goes away.
def repeats(kind):
    for ending in (http2.lose, http2.lose_garbled):
        assert not written(kind, ending), "sent again after " + ending.__name__
    # gRPC may tell late that the connection ends.
    excluded = any(written(kind, http2.refuse) for _ in range(10))
    told = tuple(map(int, version.split(".")[:2])) >= (1, 81)
    assert excluded == told, f"what a GOAWAY excludes is sent again: {excluded}"

def run(kind, base):
    return sync_calls(base) if kind == "sync" else asyncio.run(async_calls(base))

found = []
for mode in ("default", "on", "off"):
    grpcio_internals.TESTED_VERSIONS = ((0, 0), (10**6, 0)) if mode == "on" else tested
    grpcio_internals.usable = (lambda: False) if mode == "off" else usable
    for kind in ("sync", "async"):
        notes.clear()
        grpcio_internals.log_public_way.cache_clear()
        error, direct = "", None
        try:
            direct = run(kind, base)
            try:
                run(kind, refusing)
            except errors.UnavailableError as refused:
                assert refused.not_sent, "not seen that nothing was sent: " + refused.details
            else:
                raise AssertionError("a closed port answers")
            repeats(kind)
        except BaseException as caught:
            error = f"{type(caught).__name__}: {caught}"
        reasons = [note for note in notes if "not with grpcio" in note]
        way = "public" if direct is None or reasons else "fast"
        found.append((kind, mode, way, error, reasons))
major, minor = (int(part) for part in version.split(".")[:2])
in_range = tested[0] <= (major, minor) <= tested[1]
print(json.dumps({"tested": in_range, "calls": found}))
"""


def lowest() -> tuple[int, int]:
    """The lowest minor version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        if match := re.match(r"grpcio>=(\d+)\.(\d+)", requirement):
            return int(match[1]), int(match[2])
    raise SystemExit("pyproject.toml does not say which grpcio is the lowest")


def releases(least: tuple[int, int]) -> list[str]:
    """The newest release of each minor version from ``least`` on."""
    command = (*PIP, "index", "versions", "grpcio")
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"Available versions: (.*)", told)
    if match is None:
        raise SystemExit(f"pip does not list the versions of grpcio:\n{told}")
    newest: dict[tuple[int, ...], tuple[int, ...]] = {}
    for text in match[1].split(","):
        if re.fullmatch(r"\d+\.\d+\.\d+", text.strip()):
            version = tuple(map(int, text.strip().split(".")))
            newest[version[:2]] = max(version, newest.get(version[:2], version))
    return [".".join(map(str, newest[minor])) for minor in sorted(newest) if minor >= least]


def install(version: str, folder: Path) -> None:
    """Install grpcio alone."""
    options = ("--quiet", "--no-deps", "--only-binary", "grpcio", "--target", str(folder))
    command = (*PIP, "install", *options, f"grpcio=={version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"grpcio {version} is not installed: {done.stderr}")


def probe(version: str, base: str, pat: str) -> dict[str, Any]:
    """What the calls with a version came to."""
    with tempfile.TemporaryDirectory() as name:
        install(version, Path(name))
        # First in the path, before the grpcio of this environment.
        code = f"import sys; sys.path.insert(0, {name!r})\n{PROBE}"
        command = (sys.executable, "-c", code, base, pat, version, str(ROOT))
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        return {"tested": True, "calls": [], "crash": done.stderr}
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def report(version: str, outcome: dict[str, Any]) -> list[str]:
    """Print a line; returns what is wrong."""
    if "crash" in outcome:
        print(ROW.format(version, *["fails"] * 6))
        return [f"grpcio {version}: {outcome['crash']}"]
    wrong, ways, notes = [], {}, set()
    for kind, mode, way, error, reasons in outcome["calls"]:
        ways[kind, mode] = "fails" if error else way
        notes.update(reasons)
        call = f"grpcio {version}, {kind}, fast path {mode}"
        # What only shows how an untested release would do.
        trial = mode == "on" and not outcome["tested"]
        if error and not trial:
            wrong.append(f"{call}: {error}")
        elif way == "public" and mode != "off" and outcome["tested"]:
            wrong.append(f"{call}: the public way is taken: {reasons}")
        elif way == "fast" and mode == "off":
            wrong.append(f"{call}: the fast path is taken")
    print(ROW.format(version, *(ways[kind, mode] for kind in KINDS for mode in MODES)))
    for note in sorted(notes):
        print(f"{'':9} {note}")
    if not outcome["tested"]:
        print(f"{'':9} not among the TESTED_VERSIONS; raise them if 'on' is fast")
    return wrong


def main() -> int:
    """Try all versions."""
    from clarigrpc.local import LocalServer

    wrong = []
    with LocalServer() as server, ThreadPoolExecutor(2) as pool:
        versions = releases(lowest())
        print("Way of the calls with the fast path as a user gets it, on and off")
        print(ROW.format("grpcio", *(kind for kind in KINDS for _ in MODES)))
        print(ROW.format("", *(mode for _ in KINDS for mode in MODES)))
        outcomes = pool.map(lambda version: probe(version, server.base, server.pat), versions)
        for version, outcome in zip(versions, outcomes, strict=True):
            wrong += report(version, outcome)
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
