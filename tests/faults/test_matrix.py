"""Every kind of stream x every fault x both clients.

Whatever happens on the way, a call ends within its deadline: with its full result, or with one
error of ours after a true beginning of the result. Then the fault is gone, the server's content is
looked at, and the same client works again.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from clarigrpc import Client, errors, image, text, v2
from clarigrpc.local import LocalServer
from tests.both import Both, ClientKind
from tests.faults.proxy import Direction, FaultProxy

TIMEOUT = 3.0
LATE = 20.0  # a busy machine; what does not end waits much longer
"""Seconds after its deadline by which a call has to be over."""

PUBLIC = v2.UserAppIDSet(user_id="clarifai", app_id="main")
WORDS = [f"word-{number}" for number in range(400)]


def _png() -> bytes:
    noise = Image.effect_noise((160, 160), 90).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = _png()
CONTENT = hashlib.sha256(b"seed").digest() * (3 * 32768)  # 3 MiB


class Attempt:
    """What an operation got before it ended."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.error: errors.ApiError | None = None


Operation = Callable[[Both, Attempt], Awaitable[None]]
Check = Callable[[Both, Attempt], Awaitable[None]]


async def predict(both: Both, attempt: Attempt) -> None:
    model = both.client.model("color-recognition", user_id="clarifai", app_id="main")
    attempt.items.append(await both.run(model.predict, image(PICTURE), timeout=TIMEOUT))


async def check_predict(both: Both, attempt: Attempt) -> None:
    if attempt.error is None:
        assert attempt.items[0].data.colors


class Write:
    """Inputs with ids of their own."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex
        self.ids = [f"{mark}-{number}" for number in range(12)]

    async def run(self, both: Both, attempt: Attempt) -> None:
        inputs = [image(PICTURE, id=one) for one in self.ids]
        attempt.items += await both.run(both.client.inputs.create, inputs, timeout=TIMEOUT)

    async def check(self, both: Both, attempt: Attempt) -> None:
        listed = [one.id async for one in both.items(both.client.inputs.list())]
        found = [one for one in listed if one in set(self.ids)]
        assert len(found) == len(set(found)), "an input is there twice"
        if attempt.error is None:
            assert sorted(found) == sorted(self.ids)
        else:
            assert len(found) in (0, len(self.ids)), "a request was done by half"


async def generate(both: Both, attempt: Attempt) -> None:
    request = v2.PostModelOutputsRequest(
        user_app_id=PUBLIC, model_id="text-stream", inputs=[text(" ".join(WORDS))]
    )
    stream = both.open("GenerateModelOutputs", request, timeout=TIMEOUT)
    await both.collect(stream, into=attempt.items)


async def check_generate(both: Both, attempt: Attempt) -> None:
    words = [item.outputs[0].data.text.raw.strip() for item in attempt.items]
    assert words == WORDS[: len(words)]
    assert attempt.error is not None or len(words) == len(WORDS)


async def duplex(both: Both, attempt: Attempt) -> None:
    requests = (
        v2.PostModelOutputsRequest(
            user_app_id=PUBLIC, model_id="text-stream", inputs=[text(word + "." + "x" * 2000)]
        )
        for word in WORDS[:60]
    )
    stream = both.open("StreamModelOutputs", requests, timeout=TIMEOUT)
    await both.collect(stream, into=attempt.items)


async def check_duplex(both: Both, attempt: Attempt) -> None:
    words = [item.outputs[0].data.text.raw.partition(".")[0] for item in attempt.items]
    assert words == WORDS[: len(words)]
    assert attempt.error is not None or len(words) == 60


class Upload:
    """A version of a model, resumed when the first call did not finish it."""

    def __init__(self, direct: Client, folder: Path) -> None:
        self.path = folder / "model.bin"
        self.path.write_bytes(CONTENT)
        self.model_id = f"model-{uuid.uuid4().hex}"
        model = v2.Model(id=self.model_id, model_type_id="any-to-any")
        direct.v2.PostModels(v2.PostModelsRequest(models=[model]))

    async def run(self, both: Both, attempt: Attempt) -> None:
        model = both.client.model(self.model_id)
        result = await both.run(
            model.upload_version, self.path, part_size=128 * 1024, timeout=TIMEOUT
        )
        attempt.items.append(result)

    async def check(self, both: Both, attempt: Attempt) -> None:
        if attempt.error is not None:
            assert not attempt.items
            await self.run(both, attempt)
        result = attempt.items[-1]
        request = v2.GetModelVersionRequest(model_id=self.model_id, version_id=result.version_id)
        version = (await both.call("GetModelVersion", request)).model_version
        assert version.metadata["content_sha256"] == hashlib.sha256(CONTENT).hexdigest()
        assert version.metadata["content_size"] == len(CONTENT)


KINDS = ["predict", "write", "generate", "duplex", "upload"]


def operation(kind: str, direct: Client, folder: Path) -> tuple[Operation, Check]:
    if kind == "write":
        write = Write()
        return write.run, write.check
    if kind == "upload":
        upload = Upload(direct, folder)
        return upload.run, upload.check
    table: dict[str, tuple[Operation, Check]] = {
        "predict": (predict, check_predict),
        "generate": (generate, check_generate),
        "duplex": (duplex, check_duplex),
    }
    return table[kind]


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "none": lambda proxy: None,
    "cut a request": lambda proxy: proxy.cut_after(bytes=20_000),
    "cut a response": lambda proxy: proxy.cut_after(bytes=150, direction=Direction.TO_CLIENT),
    "reset a request": lambda proxy: proxy.cut_after(bytes=20_000, reset=True),
    "lose an answer": lambda proxy: proxy.cut_before_response(half_closed=False),
    "cut every connection": lambda proxy: proxy.cut_after(bytes=30_000, times=None),
    "goaway": lambda proxy: proxy.goaway(),
    "goaway and drain": lambda proxy: proxy.goaway(close_when_drained=True),
    "delay": lambda proxy: proxy.delay(0.02),
    "throttle": lambda proxy: proxy.throttle(4_000_000),
    "refuse": lambda proxy: (proxy.cut(), proxy.refuse()),  # type: ignore[dict-item, func-returns-value]
    "blackhole": lambda proxy: proxy.blackhole(),
    "blackhole of answers": lambda proxy: proxy.blackhole(Direction.TO_CLIENT),
}
HARMLESS = {"none", "goaway", "delay", "throttle"}
SURVIVED = {
    "cut a request",
    "cut a response",
    "reset a request",
    "lose an answer",
    "goaway and drain",
}
"""Faults that strike once: what may be repeated gets over them."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(data_dir=tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture
async def through(
    client_kind: ClientKind, server: LocalServer
) -> AsyncIterator[tuple[Both, FaultProxy]]:
    """A client of either kind, and the proxy between it and the server."""
    host, port = server.address.rsplit(":", 1)
    with FaultProxy(host, int(port)) as proxy:
        both = Both(
            client_kind,
            base=proxy.base,
            pat=server.pat,
            user_id=server.user_id,
            app_id=server.app_id,
            timeout=TIMEOUT,
        )
        await both.call("GetInputCount", v2.GetInputCountRequest())  # the connection is there
        try:
            yield both, proxy
        finally:
            await both.close()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_ends_in_the_result_or_in_one_error(
    kind: str,
    fault: str,
    through: tuple[Both, FaultProxy],
    server: LocalServer,
    tmp_path: Path,
) -> None:
    both, proxy = through
    with server.client() as direct:
        run, check = operation(kind, direct, tmp_path)
    attempt = Attempt()
    FAULTS[fault](proxy)
    try:
        async with asyncio.timeout(TIMEOUT + LATE):
            await run(both, attempt)
    except errors.ApiError as error:
        attempt.error = error
    if kind == "duplex" and fault == "goaway" and attempt.error is not None:
        # It was opened just before the GOAWAY came. The server has not taken it, and its requests
        # are gone.
        assert not attempt.items
    elif fault in HARMLESS or (fault in SURVIVED and kind in ("predict", "upload")):
        assert attempt.error is None, attempt.error
    if fault in ("refuse", "blackhole"):
        assert attempt.error is not None
    if attempt.error is not None:
        assert isinstance(attempt.error, errors.UnavailableError | errors.DeadlineExceededError), (
            repr(attempt.error)
        )
        assert str(attempt.error)
    proxy.restore()
    await works_again(both)
    await check(both, attempt)


async def works_again(both: Both) -> None:
    """The same client reaches the server as soon as gRPC has connected again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await both.call("GetInputCount", v2.GetInputCountRequest(), timeout=TIMEOUT)
            except errors.UnavailableError:
                await asyncio.sleep(0.3)  # the retry budget may be used up
            else:
                return
