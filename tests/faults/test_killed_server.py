"""A server that is killed (SIGKILL) while a call runs, and started again on its data."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from clarigrpc import Client, errors, v2
from tests.both import Both, ClientKind
from tests.faults.processes import ServerProcess
from tests.faults.test_matrix import KINDS, LATE, Attempt, operation, works_again

TIMEOUT = 8.0


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture
async def both(client_kind: ClientKind, process: ServerProcess) -> AsyncIterator[Both]:
    both = Both(
        client_kind,
        base=process.base,
        pat=process.pat,
        user_id="local-user",
        app_id="local-app",
        timeout=TIMEOUT,
    )
    yield both
    await both.close()


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.15])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_acknowledged_is_there(
    kind: str, delay: float, both: Both, process: ServerProcess, tmp_path: Path
) -> None:
    await works_again(both)
    with Client(
        base=process.base, pat=process.pat, user_id="local-user", app_id="local-app"
    ) as direct:
        run, check = operation(kind, direct, tmp_path)
    attempt = Attempt()

    async def kill() -> None:
        await asyncio.sleep(delay)
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.restart)

    killing = asyncio.create_task(kill())
    try:
        async with asyncio.timeout(TIMEOUT + LATE):
            await run(both, attempt)
    except errors.ApiError as error:
        attempt.error = error
    await killing
    if attempt.error is not None:
        assert isinstance(attempt.error, errors.UnavailableError | errors.DeadlineExceededError), (
            repr(attempt.error)
        )
    await works_again(both)
    await check(both, attempt)


KILLS = 20
BATCH = 3


class Writer(threading.Thread):
    """Writes of one kind, one after the other, until the server goes away."""

    def __init__(self, ledger: Ledger, stub: v2.V2Stub) -> None:
        super().__init__()
        self.ledger = ledger
        self.stub = stub

    def run(self) -> None:
        try:
            while True:
                self.ledger.write(self.stub)
        except grpc.RpcError:
            return


class Ledger:
    """What one writer tried and what the server acknowledged, over all rounds."""

    def __init__(self, name: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self.name = name
        self.options: dict[str, Any] = {"metadata": metadata, "timeout": 20.0}
        self.tried = 0
        self.acknowledged: list[int] = []

    def write(self, stub: v2.V2Stub) -> None:
        self.tried += 1
        number = self.tried
        self.send(stub, number)
        self.acknowledged.append(number)

    def send(self, stub: v2.V2Stub, number: int) -> None:
        raise NotImplementedError

    def check(self, stub: v2.V2Stub) -> None:
        raise NotImplementedError


class Added(Ledger):
    """Inputs, some a request, each with an annotation that comes after."""

    def send(self, stub: v2.V2Stub, number: int) -> None:
        request = v2.PostInputsRequest()
        for index in range(BATCH):
            request.inputs.add(id=f"{self.name}-{number}-{index}").data.text.raw = "x"
        good(stub.PostInputs(request, **self.options))
        label = v2.PostAnnotationsRequest()
        label.annotations.add(id=f"{self.name}-{number}", input_id=request.inputs[0].id)
        good(stub.PostAnnotations(label, **self.options))

    def check(self, stub: v2.V2Stub) -> None:
        kept = set()
        last = ""
        while True:
            request = v2.StreamInputsRequest(last_id=last, per_page=1000)
            inputs = good(stub.StreamInputs(request, **self.options)).inputs
            if not inputs:
                break
            last = inputs[-1].id
            kept |= {item.id for item in inputs}
        for number in self.acknowledged:
            assert {f"{self.name}-{number}-{index}" for index in range(BATCH)} <= kept
            get = v2.GetAnnotationRequest(annotation_id=f"{self.name}-{number}")
            good(stub.GetAnnotation(get, **self.options))


class Counted(Ledger):
    """One concept that says the number of its last patch."""

    def send(self, stub: v2.V2Stub, number: int) -> None:
        concept = v2.Concept(id=self.name, name=str(number))
        if number == 1:
            request = v2.PostConceptsRequest(concepts=[concept])
            good(stub.PostConcepts(request, **self.options))
        else:
            patch = v2.PatchConceptsRequest(concepts=[concept], action="overwrite")
            good(stub.PatchConcepts(patch, **self.options))

    def check(self, stub: v2.V2Stub) -> None:
        get = v2.GetConceptRequest(concept_id=self.name)
        found = int(good(stub.GetConcept(get, **self.options)).concept.name)
        # The write that was cut off may have been kept as well.
        assert self.acknowledged[-1] <= found <= self.tried


class Deleted(Ledger):
    """Inputs that are added to a dataset and deleted again."""

    def send(self, stub: v2.V2Stub, number: int) -> None:
        request = v2.PostInputsRequest()
        request.inputs.add(id=f"{self.name}-{number}").data.text.raw = "x"
        good(stub.PostInputs(request, **self.options))
        doomed = v2.DeleteInputRequest(input_id=f"{self.name}-{number}")
        good(stub.DeleteInput(doomed, **self.options))

    def check(self, stub: v2.V2Stub) -> None:
        end = time.monotonic() + 60
        for number in self.acknowledged[-20:]:
            get = v2.GetInputRequest(input_id=f"{self.name}-{number}")
            while (
                stub.GetInput(get, **self.options).status.code != v2.StatusCode.CONN_DOES_NOT_EXIST
            ):
                assert time.monotonic() < end, f"{get.input_id} was deleted and is there"


def good(response: Any) -> Any:
    assert response.status.code == v2.StatusCode.SUCCESS, response.status
    return response


def test_twenty_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(7)
    with ServerProcess(tmp_path) as process:
        metadata = (("authorization", f"Key {process.pat}"),)
        ledgers = [
            Added("added", metadata),
            Counted("counted", metadata),
            Deleted("gone", metadata),
        ]
        for _ in range(KILLS):
            with grpc.insecure_channel(process.address) as channel:
                stub = v2.V2Stub(channel)
                writers = [Writer(ledger, stub) for ledger in ledgers]
                before = [len(ledger.acknowledged) for ledger in ledgers]
                for writer in writers:
                    writer.start()
                while any(
                    len(ledger.acknowledged) == had
                    for ledger, had in zip(ledgers, before, strict=True)
                ):
                    assert all(writer.is_alive() for writer in writers)
                    time.sleep(0.005)
                time.sleep(dice.uniform(0, 0.05))
                process.kill()
                for writer in writers:
                    writer.join()
            process.restart()
            with grpc.insecure_channel(process.address) as channel:
                for ledger in ledgers:
                    ledger.check(v2.V2Stub(channel))
    assert min(len(ledger.acknowledged) for ledger in ledgers) >= KILLS
