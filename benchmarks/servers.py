"""The servers that benchmarks call.

``canned()`` costs next to nothing, so that the client is what is measured: answers are serialized
beforehand. It is native (``native/canned.cc``) where the machine has a compiler and gRPC's C++
library, else Python. ``local()`` is the local server, what its users see.

``python -m benchmarks.servers canned FOLDER CERTIFICATE KEY | local`` pins itself to the server's
core, prints its ports and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from benchmarks.harness import SERVER_CORE, pin
from clarigrpc import v2

BUILD = Path(__file__).parent / ".build"
SOURCE = Path(__file__).parent / "native" / "canned.cc"
TOKENS = 1000
"""Messages of one answer to GenerateModelOutputs."""


@dataclass(frozen=True)
class Server:
    """Where a server listens, and what to call there.

    Attributes:
        grpc, http: ``host:port``.
        certificate: PEM file to trust; "": no TLS.
        native: Whether it is the native server.
    """

    grpc: str
    http: str
    certificate: str = ""
    user_id: str = "user"
    app_id: str = "app"
    model_id: str = "model"
    pat: str = "benchmark-token-0000"
    native: bool = False


@contextmanager
def canned(answer: str = "concepts", *, native: bool = True) -> Iterator[tuple[Server, Server]]:
    """The canned server, without and with TLS.

    Args:
        answer: ``concepts`` or ``embeddings``.
        native: False takes the one in Python, which needs no compiler.
    """
    program = _native() if native else None
    with tempfile.TemporaryDirectory(prefix="clarigrpc-bench-") as folder:
        write_answers(Path(folder), answer)
        arguments = [folder, *map(str, certificate())]
        if program is not None:
            command = ["taskset", "--cpu-list", str(SERVER_CORE), str(program), *arguments]
        else:
            command = [sys.executable, "-m", "benchmarks.servers", "canned", *arguments]
        with running(command) as line:
            ports = line.split()
            plain = Server(
                f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[2]}", native=program is not None
            )
            yield (
                plain,
                replace(
                    plain,
                    grpc=f"127.0.0.1:{ports[1]}",
                    http=f"127.0.0.1:{ports[3]}",
                    certificate=arguments[1],
                ),
            )


@contextmanager
def local() -> Iterator[Server]:
    """The local server with its colour model."""
    with running([sys.executable, "-m", "benchmarks.servers", "local"]) as line:
        yield Server(**json.loads(line))


@contextmanager
def running(command: list[str]) -> Iterator[str]:
    """A server process, and the line it prints when it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the server did not start: {' '.join(command)}")
        yield line
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def _native() -> Path | None:
    """The native server, compiled if it is not yet; None where it cannot be."""
    if not all(map(shutil.which, ("g++", "pkg-config", "taskset"))):
        return None
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "grpc++", "openssl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if flags.returncode:
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = BUILD / f"canned-{digest}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        compiler = ["g++", "-O2", "-std=c++17", "-o", str(program), str(SOURCE)]
        subprocess.run([*compiler, *flags.stdout.split(), "-lpthread"], check=True)
    return program


def certificate() -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, made if there is none yet."""
    public, key = BUILD / "leaf.pem", BUILD / "leaf-key.pem"
    if not public.exists():
        BUILD.mkdir(exist_ok=True)
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        options = "-days 3650 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        # Some refuse the certificate of an authority as that of a server.
        options += " -addext basicConstraints=critical,CA:FALSE"
        files = ["-out", str(public), "-keyout", str(key)]
        subprocess.run(
            [*command.split(), *options.split(), *files], check=True, capture_output=True
        )
    return public, key


def write_answers(folder: Path, answer: str) -> None:
    """Write the serialized answers of the canned server, as ``native/canned.cc`` reads them."""
    output = v2.Output(id="output")
    output.status.code = v2.StatusCode.SUCCESS
    if answer == "embeddings":
        vector = [random.Random(7).gauss(0, 0.05) for _ in range(1024)]
        output.data.embeddings.add(vector=vector, num_dimensions=1024)
    else:
        for index in range(5):
            output.data.concepts.add(id=f"concept-{index}", name=f"concept {index}", value=0.5)
    head = v2.MultiOutputResponse()
    head.status.code = v2.StatusCode.SUCCESS
    head.status.description = "Ok"
    item = v2.MultiOutputResponse(outputs=[output])
    token = v2.MultiOutputResponse(status=head.status)
    token.outputs.add(status=output.status).data.text.raw = "token"
    model = v2.SingleModelResponse(status=head.status)
    model.model.id, model.model.model_type_id = "model", "visual-classifier"
    model.model.model_version.id = "1"
    for name, message in (("head", head), ("item", item), ("token", token), ("GetModel", model)):
        (folder / name).write_bytes(message.SerializeToString())
    (folder / "json_head").write_text(f'{{"status":{_json(head.status)},"outputs":[')
    (folder / "json_item").write_text(_json(output))
    (folder / "json_tail").write_text("]}")


def _json(message: Any) -> str:
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(fields, separators=(",", ":"))


class _PythonCanned(grpc.GenericRpcHandler):
    """The gRPC half of the canned server, without a compiler."""

    def __init__(self, folder: Path) -> None:
        self._head, self._item, token, model = (
            (folder / name).read_bytes() for name in ("head", "item", "token", "GetModel")
        )

        async def unary(request: bytes, context: Any) -> bytes:
            return self._answer(request)

        async def generate(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for _ in range(TOKENS):
                yield token

        async def duplex(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield self._answer(request)

        async def get_model(request: bytes, context: Any) -> bytes:
            return model

        async def post_inputs(request: bytes, context: Any) -> bytes:
            return self._added(request)

        self._handlers: dict[str, Any] = {
            "PostInputs": grpc.unary_unary_rpc_method_handler(post_inputs),
            "PostModelOutputs": grpc.unary_unary_rpc_method_handler(unary),
            "GenerateModelOutputs": grpc.unary_stream_rpc_method_handler(generate),
            "StreamModelOutputs": grpc.stream_stream_rpc_method_handler(duplex),
            "GetModel": grpc.unary_unary_rpc_method_handler(get_model),
        }

    def _answer(self, request: bytes) -> bytes:
        count = len(v2.PostModelOutputsRequest.FromString(request).inputs)
        return self._head + self._item * count

    def _added(self, request: bytes) -> bytes:
        """What the service answers to inputs: all of them, pending."""
        response = v2.MultiInputResponse(status=v2.Status(code=v2.StatusCode.SUCCESS))
        response.inputs.extend(v2.PostInputsRequest.FromString(request).inputs)
        for one in response.inputs:
            one.status.code = v2.StatusCode.INPUT_PENDING
        return response.SerializeToString()

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method.rpartition("/")[2])


class _PythonHttp(asyncio.Protocol):
    """The HTTP half: drops the body, answers as many items as ``x-inputs`` says."""

    def __init__(self, folder: Path) -> None:
        names = ("json_head", "json_item", "json_tail")
        self._head, self._item, self._tail = ((folder / name).read_bytes() for name in names)
        self._transport: Any = None
        self._buffer = bytearray()
        self._missing = -1  # bytes of the body; negative: still in the head
        self._inputs = 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._buffer += data
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            pairs = (line.partition(b":") for line in head.lower().split(b"\r\n")[1:])
            headers = {key: value for key, _, value in pairs}
            self._inputs = int(headers.get(b"x-inputs", 1))
            self._missing = int(headers.get(b"content-length", 0)) - len(rest)
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self._buffer.clear()
            self._missing = -1
            body = self._head + b",".join([self._item] * self._inputs) + self._tail
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )


async def _serve_canned(folder: Path, certificate: Path, key: Path) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((_PythonCanned(folder),))
    pair = (key.read_bytes(), certificate.read_bytes())
    plain = server.add_insecure_port("127.0.0.1:0")
    secure = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    fronts = [
        await loop.create_server(lambda: _PythonHttp(folder), "127.0.0.1", 0, ssl=tls)
        for tls in (None, context)
    ]
    ports = [plain, secure, *(front.sockets[0].getsockname()[1] for front in fronts)]
    print(*ports, flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    for front in fronts:
        front.close()
    await server.stop(None)


def _serve_local() -> None:
    from clarigrpc.local import LocalServer

    with LocalServer(rest_port=0) as server:
        assert server.rest_base is not None
        place = {
            "grpc": server.base.removeprefix("http://"),
            "http": server.rest_base.removeprefix("http://"),
            "user_id": "clarifai",
            "app_id": "main",
            "model_id": "color-recognition",
            "pat": server.pat,
        }
        print(json.dumps(place), flush=True)
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    pin(SERVER_CORE)
    if sys.argv[1] == "local":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _serve_local()
    else:
        asyncio.run(_serve_canned(*map(Path, sys.argv[2:5])))
