"""Uploads of inputs over bad connections, to a server that is killed, from a client that is."""

from __future__ import annotations

import asyncio
import collections
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import AsyncClient, Client, errors, text, v2
from clarigrpc._bulk.input_journal import Journal, Record
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc.local import LocalServer
from clarigrpc.types import UploadReport
from tests.faults.processes import ServerProcess
from tests.faults.proxy import Fault, FaultProxy
from tests.waiting import until

CLIENT_KINDS = ("sync", "async")
_UPLOADER = Path(__file__).with_name("uploader.py")


def _texts(count: int) -> Iterator[v2.Input]:
    for number in range(count):
        yield text(f"text {number}", id=f"given-{number}" if number % 2 else "")


def _upload(
    client_kind: str,
    base: str,
    pat: str,
    source: Any,
    report: UploadReport,
    **how: Any,
) -> UploadReport:
    settings: dict[str, Any] = {
        "base": base,
        "pat": pat,
        "user_id": "local-user",
        "app_id": "local-app",
        "retry": RetryPolicy(max_backoff=0.3),
        "timeout": 5.0,
    }
    if client_kind == "sync":
        with Client(**settings) as client:
            return client.inputs.upload(source, report=report, **how)

    async def main() -> UploadReport:
        async with AsyncClient(**settings) as client:
            return await client.inputs.upload(source, report=report, **how)

    return asyncio.run(main())


def _stored(base: str, pat: str) -> collections.Counter[str]:
    with Client(base=base, pat=pat, user_id="local-user", app_id="local-app") as client:
        return collections.Counter(one.data.text.raw for one in client.inputs.stream(per_page=1000))


def _finish(arguments: Sequence[str]) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, str(_UPLOADER), *arguments], capture_output=True, check=True, timeout=200
    )
    return json.loads(finished.stdout)  # type: ignore[no-any-return]


def _recorded(journal: Path) -> int:
    """How many inputs a journal, which may be being written, says are added."""
    if not journal.exists():
        return 0
    *lines, _ = journal.read_bytes().split(b"\n")
    return sum(len(json.loads(line).get("added", ())) for line in lines)


def _when(
    report: UploadReport, thresholds: Sequence[int], act: Callable[[], None]
) -> threading.Thread:
    """Acts each time that the report passes a threshold."""

    def watch() -> None:
        for threshold in thresholds:
            while report.added < threshold:
                time.sleep(0.005)
            act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_each_of_20000_inputs_is_there_once(client_kind: str, tmp_path: Path) -> None:
    count = 20_000
    report = UploadReport()
    with (
        ServerProcess(tmp_path / "data") as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
    ):
        pat = server.pat or ""
        proxy.chaos(
            7,
            every_seconds=0.15,
            faults=(Fault.CUT, Fault.RESET, Fault.CUT_BEFORE_RESPONSE, Fault.DELAY, Fault.GOAWAY),
        )
        restarts = _when(report, (4_000, 9_000, 14_000), server.restart)
        _upload(client_kind, proxy.base, pat, _texts(count), report)
        restarts.join(60)
        assert not restarts.is_alive()
        stored = _stored(server.base, pat)
        faults = proxy.counters.faults
    assert report.failed_inputs == []
    assert (report.taken, report.added, report.succeeded) == (count, count, True)
    assert report.recognised > 0
    assert report.retries > 0
    assert faults[Fault.CUT_BEFORE_RESPONSE] > 0
    assert stored == collections.Counter(f"text {number}" for number in range(count))


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_lost_answers_are_recognised_and_true_duplicates_are_not(
    client_kind: str,
) -> None:
    with LocalServer() as server:
        with server.client() as client:
            client.inputs.create([text("other", id="given-1"), text("text 3", id="given-3")])
        with FaultProxy("127.0.0.1", server.port) as proxy:
            # Response and status of the first batch pass, the second batch's are lost.
            proxy.cut_before_response(skip=2)
            source = (text(f"text {number}", id=f"given-{number}") for number in range(8))
            report = _upload(
                client_kind,
                proxy.base,
                server.pat,
                source,
                UploadReport(),
                batch_size=4,
                in_flight=1,
            )
        # given-1 and given-3 were refused at the first try of their batch: nothing to find out.
        assert [(one.index, one.id) for one in report.failed_inputs] == [
            (1, "given-1"),
            (3, "given-3"),
        ]
        assert {one.status.code for one in report.failed_inputs} == {v2.StatusCode.INPUT_DUPLICATE}
        assert (report.added, report.recognised) == (6, 4)
        assert sum(_stored(server.base, server.pat).values()) == 8


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_another_input_of_the_id_is_told_from_ours_after_a_retry(client_kind: str) -> None:
    with LocalServer() as server:
        with server.client() as client:
            client.inputs.create(text("other", id="given-1"))
        with FaultProxy("127.0.0.1", server.port) as proxy:
            proxy.cut_before_response()
            source = (text(f"text {number}", id=f"given-{number}") for number in range(3))
            report = _upload(client_kind, proxy.base, server.pat, source, UploadReport())
        (failed,) = report.failed_inputs
        assert (failed.id, failed.status.code) == ("given-1", v2.StatusCode.INPUT_DUPLICATE)
        assert not failed.maybe_added
        assert (report.added, report.recognised) == (2, 2)


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_two_uploads_do_not_share_a_journal(client_kind: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    refused: list[errors.ConfigurationError] = []

    with LocalServer() as server, server.client() as client:

        def source() -> Iterator[v2.Input]:
            yield text("a", id="a")
            with pytest.raises(errors.ConfigurationError, match="in use by another") as caught:
                client.inputs.upload([text("b", id="b")], journal=journal)
            refused.append(caught.value)
            yield text("c", id="c")

        report = UploadReport()
        _upload(client_kind, server.base, server.pat, source(), report, journal=journal)
        assert report.added_ids == ["a", "c"]
        assert len(refused) == 1
        # Once it has ended, another may go on with it.
        again = client.inputs.upload([text("a", id="a"), text("b", id="b")], journal=journal)
        assert (again.resumed, again.added) == (1, 1)
        assert {one.id for one in client.inputs.list()} == {"a", "b", "c"}
        lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
        assert {one for line in lines for one in line.get("added", ())} == {"a", "b", "c"}


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_one_input_on_the_server_is_added_once_by_its_journal(
    client_kind: str, tmp_path: Path
) -> None:
    """Of two values with the same id, whose outcome a crash left open, the first is recognised."""
    path = tmp_path / "journal"
    with LocalServer() as server, server.client() as client:
        target = {"base": server.base, "user_id": "local-user", "app_id": "local-app"}
        with Journal(path, target, now=time.time()) as journal:
            journal.write([Record("sent", ["a"]), Record("sent", ["a"])])
        client.inputs.create(text("x", id="a"))
        source = [text("x", id="a"), text("x", id="a")]
        how: dict[str, Any] = {"journal": path, "batch_size": 1, "in_flight": 1}
        report = _upload(client_kind, server.base, server.pat, source, UploadReport(), **how)
        assert (report.added, report.recognised) == (1, 1)
        (failed,) = report.failed_inputs
        assert (failed.index, failed.status.code) == (1, v2.StatusCode.INPUT_DUPLICATE)


@pytest.mark.parametrize(
    ("client_kind", "raised"),
    [("sync", KeyboardInterrupt), ("sync", RuntimeError), ("async", RuntimeError)],
)
def test_what_ended_an_upload_is_raised_though_the_disk_is_full(
    client_kind: str, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def source() -> Iterator[v2.Input]:
        yield text("a", id="a")
        monkeypatch.setattr(Journal, "write", full)
        raise raised("first")

    report = UploadReport()
    with LocalServer() as server:
        settings = (client_kind, server.base, server.pat)
        with pytest.raises(raised, match="first") as caught:
            _upload(*settings, source(), report, journal=tmp_path / "journal")
        assert "No space left on device" in caught.value.__notes__[-1]
        assert not report.complete
        monkeypatch.undo()  # and the file was closed: the next upload may have it
        again = _upload(*settings, _texts(1), UploadReport(), journal=tmp_path / "journal")
        assert again.complete


def test_a_cancelled_upload_leaves_a_journal_that_is_true(tmp_path: Path) -> None:
    """Cancelled at many moments, it says what is true at each, and goes on until all is there."""
    path = tmp_path / "journal"

    async def attempt(base: str, pat: str, seconds: float) -> bool:
        source = [text(str(number), id=f"i{number}") for number in range(60)]
        async with AsyncClient(
            base=base, pat=pat, user_id="local-user", app_id="local-app"
        ) as client:
            run = asyncio.ensure_future(client.inputs.upload(source, journal=path, batch_size=4))
            await asyncio.wait([run], timeout=seconds)
            if run.done():
                return (await run).failed_inputs == []
            run.cancel()
            await asyncio.wait([run])
            return False

    with LocalServer() as server, server.client() as client:
        for step in itertools.count(1):
            assert step < 200
            if asyncio.run(attempt(server.base, server.pat, 0.02 + step * 0.002)):
                break
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            added = {one for line in lines for one in line.get("added", ())}
            sent = {one for line in lines for one in line.get("sent", ())}
            assert added <= {one.id for one in client.inputs.list()} <= sent
        assert len(list(client.inputs.list())) == 60


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_a_killed_upload_goes_on_from_its_journal(client_kind: str, tmp_path: Path) -> None:
    count = 6_000
    journal = tmp_path / "journal"
    with LocalServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.delay(0.02)
        arguments = [client_kind, proxy.base, server.pat, str(journal), str(count)]
        for enough in (1_000, 3_000):
            process = subprocess.Popen([sys.executable, str(_UPLOADER), *arguments])
            try:
                while not process.poll() and _recorded(journal) < enough:
                    time.sleep(0.01)
            finally:
                process.kill()
                process.wait(60)
            assert _recorded(journal) >= enough
        outcome = _finish(arguments)
        assert outcome["failed"] == []
        assert outcome["added"] + outcome["resumed"] == count
        assert outcome["resumed"] >= 3_000
        assert outcome["complete"]
        stored = _stored(server.base, server.pat)
        assert stored == collections.Counter(f"text {number}" for number in range(count))
        # Once it is complete there is nothing left to send.
        outcome = _finish(arguments)
        assert (outcome["added"], outcome["resumed"], outcome["failed"]) == (0, count, [])


@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_an_upload_that_gives_up_can_be_fed_back(client_kind: str) -> None:
    report = UploadReport()
    with LocalServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.cut_before_response(skip=2, times=None)

        def source() -> Iterator[v2.Input]:
            for number, value in enumerate(_texts(1_000)):
                if number == 600:
                    proxy.refuse()  # the answers that are still lost are lost for good
                yield value

        # The second one where the deadline falls into the last attempt.
        with pytest.raises((errors.UnavailableError, errors.DeadlineExceededError)) as raised:
            _upload(
                client_kind,
                proxy.base,
                server.pat,
                source(),
                report,
                batch_size=50,
                timeout=0.7,
            )
        assert not report.complete
        assert f"{report.added} inputs added" in raised.value.__notes__[0]
        assert report.taken == report.settled < 1_000
        assert any(one.maybe_added for one in report.failed_inputs)
        again = _upload(
            client_kind,
            server.base,
            server.pat,
            report.failed_inputs,
            UploadReport(),
        )
        assert again.succeeded
        assert again.recognised > 0
        assert again.added + report.added == report.taken
        assert sum(_stored(server.base, server.pat).values()) == report.taken


def _interrupt(report: UploadReport, began: list[float]) -> None:
    """Ctrl-C for this process, once a window of requests is on its way; ``began`` keeps when."""
    until(lambda: report.taken >= 512)
    time.sleep(0.5)
    began.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal; a shell starts what runs in the background without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Interrupting(UploadReport):
    """Ctrl-C while the outcome of the first batch is being counted."""

    @property
    def added(self) -> int:
        return self._count

    @added.setter
    def added(self, count: int) -> None:
        if count and not self._count:
            signal.raise_signal(signal.SIGINT)
        self._count = count

    _count = 0


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_loses_no_outcome() -> None:
    report = _Interrupting()
    with LocalServer() as server:
        with pytest.raises(KeyboardInterrupt):
            _upload("sync", server.base, server.pat, _texts(1_000), report, batch_size=10)
        assert report.added > 0
        assert report.taken == report.settled < 1_000
        again = _upload("sync", server.base, server.pat, report.failed_inputs, UploadReport())
        assert again.added + report.added == report.taken
        assert sum(_stored(server.base, server.pat).values()) == report.taken


@pytest.mark.measures
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("client_kind", CLIENT_KINDS)
def test_an_interrupted_upload_ends_at_once(client_kind: str) -> None:
    report = UploadReport()
    began: list[float] = []
    ended: list[float] = []
    with LocalServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.blackhole()
        settings = {"base": proxy.base, "pat": server.pat, "timeout": 30.0}
        if client_kind == "sync":
            interrupt = threading.Thread(target=_interrupt, args=(report, began))
            with Client(**settings) as client:  # type: ignore[arg-type]
                with pytest.raises(KeyboardInterrupt):
                    interrupt.start()
                    client.inputs.upload(_texts(5_000), report=report)
                ended.append(time.monotonic())
            interrupt.join()
        else:

            async def main() -> None:
                async with AsyncClient(**settings) as client:  # type: ignore[arg-type]
                    upload = client.inputs.upload(_texts(5_000), report=report)
                    task = asyncio.ensure_future(upload)
                    await asyncio.to_thread(until, lambda: report.taken >= 512)
                    await asyncio.sleep(0.5)
                    task.cancel()
                    began.append(time.monotonic())
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    ended.append(time.monotonic())
                    assert asyncio.all_tasks() == {asyncio.current_task()}

            asyncio.run(main())
    assert ended[0] - began[0] < 1
    # Four requests on their way, and one batch that was prepared.
    assert report.taken == report.settled == len(report.failed_inputs) == 640
    sent = sorted(one.index for one in report.failed_inputs if one.maybe_added)
    assert sent == list(range(512))
