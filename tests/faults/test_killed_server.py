"""A server that is killed (SIGKILL) while a call runs, and started again on its data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from clarigrpc import Client, errors
from tests.both import Both, Colour
from tests.faults.processes import ServerProcess
from tests.faults.test_matrix import KINDS, LATE, Attempt, operation, works_again

TIMEOUT = 8.0


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture
async def both(colour: Colour, process: ServerProcess) -> AsyncIterator[Both]:
    both = Both(
        colour,
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
    started = time.monotonic()
    try:
        await run(both, attempt)
    except errors.ApiError as error:
        attempt.error = error
    elapsed = time.monotonic() - started
    await killing
    assert elapsed < TIMEOUT + LATE
    if attempt.error is not None:
        assert isinstance(attempt.error, errors.UnavailableError | errors.DeadlineExceededError), (
            repr(attempt.error)
        )
    await works_again(both)
    await check(both, attempt)
