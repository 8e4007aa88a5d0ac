"""The upload of inputs without a network: requests, pacing, journal, state machine."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import errors, image, text, v2
from clarigrpc._bulk.engine import BulkBatch
from clarigrpc._bulk.input_encoding import content_id, encode_input, encode_post, is_derived
from clarigrpc._bulk.input_engine import InputEngine, is_ours
from clarigrpc._bulk.input_journal import Journal, Record
from clarigrpc._bulk.pacing import Pacing
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc.types import FailedInput, UploadReport

TARGET = {"base": "http://127.0.0.1:1", "user_id": "me", "app_id": "mine"}


# Requests


@given(st.lists(st.tuples(st.text(max_size=300), st.booleans()), max_size=20))
def test_a_request_has_the_inputs_with_their_ids(values: list[tuple[str, bool]]) -> None:
    messages = [text(raw, id="given" if named else "") for raw, named in values]
    before = [message.SerializeToString() for message in messages]
    encoded = [encode_input(message) for message in messages]
    constant = v2.PostInputsRequest(user_app_id=v2.UserAppIDSet(user_id="me"))
    payload = encode_post(constant.SerializeToString(), [item for _, item in encoded])
    request = v2.PostInputsRequest.FromString(payload)
    assert request.user_app_id.user_id == "me"
    assert [one.data.text.raw for one in request.inputs] == [raw for raw, _ in values]
    assert [one.id for one in request.inputs] == [name for name, _ in encoded]
    for one, (_, named), plain in zip(request.inputs, values, before, strict=True):
        assert is_derived(one) is not named
        assert one.id == ("given" if named else content_id(plain))
    assert [message.SerializeToString() for message in messages] == before


def test_ids_from_content_tell_inputs_apart_and_stay_the_same() -> None:
    one, item = encode_input(text("a", concepts=["x"], metadata={"k": 1, "l": 2}))
    assert one == encode_input(text("a", concepts=["x"], metadata={"l": 2, "k": 1}))[0]
    assert one == encode_input(v2.Input.FromString(item))[0]
    assert len(one) == 32
    assert one != encode_input(text("a"))[0]
    assert encode_input(image(b"a"))[0] != encode_input(text("a"))[0]


# Pacing


@pytest.mark.parametrize("burst", [1.0, 10.0])
@pytest.mark.parametrize("rate", [2.0, 10.0, 50.0])
def test_the_pace_reaches_the_rate_with_few_refusals(rate: float, burst: float) -> None:
    pacing = Pacing()
    now, tokens, counted = 0.0, burst, 0.0
    accepted = throttled = 0
    while now < 400 / rate:
        now = max(now, pacing.opens)
        tokens, counted = min(burst, tokens + (now - counted) * rate), now
        pacing.sent(now)
        if tokens >= 1:
            tokens -= 1
            accepted += 1
            pacing.accepted(now)
        else:
            throttled += 1
            pacing.throttled(now, round((1 - tokens) / rate + 0.0005, 3))
        now += 0.0002
    assert accepted >= 0.95 * 400
    assert throttled <= 0.25 * accepted


def test_the_pace_forgets_a_throttle_that_is_over() -> None:
    pacing = Pacing()
    pacing.throttled(0.0, 0.5)
    for step in range(1_000):
        pacing.accepted(float(step))
    assert pacing.gap == 0.0


# Journal


def _events() -> st.SearchStrategy[list[Record]]:
    ids = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), max_size=5)
    return st.lists(st.builds(Record, st.sampled_from(("sent", "added", "failed")), ids))


def _apply(records: list[Record]) -> tuple[set[str], set[str]]:
    """The inputs that were added, and those with an attempt of unknown outcome."""
    added: set[str] = set()
    attempts: Counter[str] = Counter()
    for record in records:
        for one in record.ids:
            if record.event == "added":
                added.add(one)
                attempts[one] = 0
            else:
                attempts[one] = max(0, attempts[one] + (1 if record.event == "sent" else -1))
    return added, {one for one, count in attempts.items() if count}


@settings(deadline=None, max_examples=60)
@given(records=_events(), more=_events(), cut=st.floats(0, 1))
def test_a_journal_torn_anywhere_knows_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[Record],
    more: list[Record],
    cut: float,
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    with Journal(path, TARGET, now=5.0) as journal:
        for record in records:
            journal.write([record])
    whole = path.read_bytes()
    torn = whole[: round(cut * len(whole))]
    path.write_bytes(torn)
    kept = records[: max(0, torn.count(b"\n") - 1)]
    with Journal(path, TARGET, now=9.0) as journal:
        assert journal.since == (5.0 if b"\n" in torn else 9.0)
        _check(journal, *_apply(kept), records)
        journal.write(more)
    with Journal(path, TARGET, now=11.0) as journal:
        _check(journal, *_apply(kept + more), records + more)


def _check(journal: Journal, added: set[str], unsure: set[str], records: list[Record]) -> None:
    for input_id in {i for record in records for i in record.ids}:
        assert journal.is_unsure(input_id) == (input_id in unsure)
        assert journal.is_added(input_id) == (input_id in added)


def test_a_journal_is_bound_to_its_target(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, TARGET, now=0.0).close()
    with pytest.raises(errors.ConfigurationError, match="belongs to"):
        Journal(path, {**TARGET, "app_id": "other"}, now=0.0)


def test_a_journal_belongs_to_one_upload(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, TARGET, now=0.0) as journal:
        with pytest.raises(errors.ConfigurationError, match="in use by another upload"):
            Journal(path, TARGET, now=0.0)
        journal.write([Record("sent", ["a"])])
    with Journal(path, TARGET, now=0.0) as journal:
        assert journal.is_unsure("a")


def test_the_failure_of_one_of_two_inputs_with_an_id_leaves_the_other_open(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, TARGET, now=0.0) as journal:
        journal.write([Record("sent", ["a"]), Record("sent", ["a"]), Record("failed", ["a"])])
    with Journal(path, TARGET, now=0.0) as journal:
        assert journal.is_unsure("a")


@settings(deadline=None, max_examples=40)
@given(before=_events(), during=_events().filter(bool), after=_events(), room=st.integers(0, 200))
def test_a_full_disk_leaves_no_broken_line(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[Record],
    during: list[Record],
    after: list[Record],
    room: int,
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path_factory.mktemp("journal") / "journal"
    with Journal(path, TARGET, now=5.0) as journal:
        journal.write(before)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, limits[1]))
        try:
            journal.write(during)
            written = during
        except OSError:
            # Whole lines are true; the next write removes them, and they are written again.
            whole = path.read_bytes().count(b"\n") - 1 - len(before)
            written = [] if after else during[:whole]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.write(after)
    with Journal(path, TARGET, now=9.0) as journal:
        # What could not be written whole either remains (without an end) or is gone.
        _check(journal, *_apply(before + written + after), before + during + after)


@pytest.mark.parametrize(
    "content",
    [
        b"no journal\n",
        b"no journal",
        b'{"sent":[]}\n',
        b"[]\n",
        b'{"journal":1,"target":{},"since":NaN}\n',
        b'{"journal":' + b"[" * 100_000 + b"\n",
        b'{"journal":1,"target":{},"since":1' + b"0" * 400 + b"}\n",
    ],
)
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(errors.ConfigurationError, match="journal"):
        Journal(path, TARGET, now=0.0)
    assert path.read_bytes() == content


def test_a_journal_is_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        with pytest.raises(errors.ConfigurationError, match="pipe or a device"):
            Journal(path, TARGET, now=0.0)


@pytest.mark.parametrize(
    "broken", [b"{garbage", b"\xff", b'{"sent":"abc"}', b'{"sent":[1]}', b'{"other":[]}', b"1", b""]
)
def test_a_journal_with_a_broken_line_inside_is_refused(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "journal"
    with Journal(path, TARGET, now=0.0) as journal:
        journal.write([Record("sent", ["a"]), Record("added", ["a"])])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + broken + b"\n" + lines[2])
    with pytest.raises(errors.ConfigurationError, match="line 2"):
        Journal(path, TARGET, now=0.0)


def test_the_lines_of_a_journal_are_json(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, TARGET, now=1.5) as journal:
        journal.write([Record("sent", ["a", "b"])])
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {"journal": 1, "target": TARGET, "since": 1.5}
    assert second == {"sent": ["a", "b"]}


# State machine


@dataclass
class Service:
    """What the service does with a request, as the test's choices have it."""

    stored: dict[str, v2.Input] = field(default_factory=dict)
    bad: frozenset[str] = frozenset()
    most: int = 10**9

    def post(self, request: v2.PostInputsRequest) -> v2.MultiInputResponse:
        if len(request.inputs) > self.most:
            raise errors.InvalidArgumentError("too many", method="PostInputs")
        response = v2.MultiInputResponse()
        for one in request.inputs:
            result = response.inputs.add()
            result.CopyFrom(one)
            if one.id in self.bad:
                result.status.code = v2.StatusCode.INPUT_INVALID_ARGUMENT
            elif one.id in self.stored:
                result.status.code = v2.StatusCode.INPUT_DUPLICATE
            else:
                result.status.code = v2.StatusCode.INPUT_PENDING
                self.stored[one.id] = one
        return response

    def list(self, ids: list[str]) -> v2.MultiInputResponse:
        found = [self.stored[i] for i in reversed(ids) if i in self.stored]
        return v2.MultiInputResponse(inputs=found)


def _engine(report: UploadReport, **options: Any) -> InputEngine:
    arguments: dict[str, Any] = {
        "batch_size": 3,
        "batch_bytes": 10_000,
        "in_flight": 3,
        "timeout": 1e6,
        "random": lambda: 0.5,
        **options,
    }
    return InputEngine(report, RetryPolicy(), **arguments)


def _unavailable(*, not_sent: bool = False) -> errors.ApiError:
    return errors.UnavailableError(
        "gone", grpc_code=grpc.StatusCode.UNAVAILABLE, retryable=True, not_sent=not_sent
    )


FAULTS: dict[str, Callable[[], errors.ApiError]] = {
    "refused": lambda: _unavailable(not_sent=True),
    "lost": _unavailable,
    "late": lambda: errors.DeadlineExceededError("late"),
    "broken": lambda: errors.InternalError("broken"),
    "throttled": lambda: errors.RateLimitError("slow", retryable=True, retry_after=0.5),
}


def _run(
    engine: InputEngine,
    values: Sequence[Any],
    service: Service,
    fate: Callable[[], str],
    choose: Callable[[int], int],
) -> errors.ApiError | None:
    """Run an engine against a service; ``fate`` names what becomes of each request.

    A fate with an exclamation mark strikes after the service did the work.
    """
    read = 0
    flying: list[BulkBatch] = []
    now = 0.0
    while True:
        while (batch := engine.take(now)) is not None:
            flying.append(batch)
        assert len(flying) <= engine.limit
        assert engine.taken - engine.settled <= (engine.limit + 1) * engine.size
        if engine.finished:
            assert not flying or engine.error
            return engine.error
        if room := engine.room:
            slice_of = values[read : read + 1 + choose(room)]
            read += len(slice_of)
            if slice_of:
                engine.offer(slice_of, now)
            else:
                engine.exhausted()
            continue
        pause = engine.wait(now)
        assert flying or pause is not None
        if pause is not None and (not flying or choose(2)):
            now += pause + 1e-6
            continue
        batch = flying.pop(choose(len(flying)))
        now += 0.01
        what = fate()
        name = what.removesuffix("!")
        answer = None
        if name == what == "ok" or what.endswith("!"):
            try:
                answer = (
                    service.list(batch.ids)
                    if batch.checking
                    else service.post(
                        v2.PostInputsRequest.FromString(encode_post(b"", batch.items))
                    )
                )
            except errors.ApiError as error:
                engine.failed(batch, error, now)
                continue
        if name == "ok":
            assert answer is not None
            engine.responded(batch, answer, now)
        else:
            engine.failed(batch, FAULTS[name](), now)


@settings(deadline=None, max_examples=100)
@given(
    data=st.data(),
    count=st.integers(0, 25),
    bad=st.sets(st.integers(0, 24)),
    there=st.sets(st.integers(0, 24)),
    most=st.sampled_from((1, 2, 10)),
)
def test_whatever_happens_every_input_is_there_once_and_the_report_says_so(
    data: st.DataObject, count: int, bad: set[int], there: set[int], most: int
) -> None:
    values = [text(f"text {i}", id=f"id-{i}") for i in range(count)]
    service = Service(
        {f"id-{i}": text("other", id=f"id-{i}") for i in there},
        frozenset(f"id-{i}" for i in bad),
        most,
    )
    fates = ("ok", "ok", "refused", "lost", "lost!", "late", "late!", "throttled")
    report = UploadReport()
    engine = _engine(report)
    error = _run(
        engine,
        values,
        service,
        lambda: data.draw(st.sampled_from(fates)),
        lambda most: data.draw(st.integers(0, most - 1)),
    )
    assert error is None
    assert engine.settled == report.settled == count
    expected = {i for i in range(count) if i not in bad | there}
    assert {one.index for one in report.failed_inputs} == set(range(count)) - expected
    assert report.added == len(expected)
    assert not any(one.maybe_added for one in report.failed_inputs)
    for i in expected:
        assert service.stored[f"id-{i}"].data.text.raw == f"text {i}"


@settings(deadline=None, max_examples=200)
@given(data=st.data(), count=st.integers(1, 20), stop=st.integers(0, 30))
def test_what_was_interrupted_anywhere_can_be_taken_up(
    data: st.DataObject, count: int, stop: int
) -> None:
    """Interrupts after any number of requests; feeding the failures back loses nothing."""
    values = [text(f"text {i}", id=f"id-{i}") for i in range(count)]
    service = Service()
    report = UploadReport()
    engine = _engine(report)
    left = stop

    def fate() -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return data.draw(st.sampled_from(("ok", "lost!", "broken!", "broken", "throttled")))

    def choose(most: int) -> int:
        return data.draw(st.integers(0, most - 1))

    try:
        _run(engine, values, service, fate, choose)
    except KeyboardInterrupt:
        engine.abandon(v2.Status(code=v2.StatusCode.FAILURE))
    records = engine.records()
    failed = {one.id: one for one in report.failed_inputs}
    assert len(failed) == len(report.failed_inputs)
    for one in failed.values():
        assert one.maybe_added or one.id not in service.stored
    added, unsure = _apply(records)
    assert len(added) == report.added
    assert {i for i in service.stored if i not in added} <= unsure

    again = UploadReport()
    status = v2.Status(code=v2.StatusCode.FAILURE)
    rest = [
        FailedInput(index, one.id, status, one, maybe_added=True) if one.id in unsure else one
        for index, one in enumerate(values)
        if one.id not in added
    ]
    assert _run(_engine(again), rest, service, lambda: "ok", lambda most: 0) is None
    assert again.failed_inputs == []
    assert report.added + again.added == count
    assert len(service.stored) == count


def _begun(engine: InputEngine) -> BulkBatch:
    """The only batch of an upload of one input, sent."""
    engine.offer([text("x", id="id")], 0.0)
    engine.exhausted()
    batch = engine.take(0.0)
    assert batch is not None
    return batch


def test_an_input_that_was_never_sent_leaves_the_other_of_its_id_open() -> None:
    report = UploadReport()
    engine = _engine(report, batch_size=1, in_flight=1)
    for raw in "ab":
        engine.offer([text(raw, id="id")], 0.0)
    assert engine.take(0.0) is not None
    engine.abandon(v2.Status(code=v2.StatusCode.FAILURE))
    assert [one.maybe_added for one in report.failed_inputs] == [True, False]
    assert engine.records() == [Record("sent", ["id"])]


def test_equal_ids_of_a_request_have_their_own_outcomes_in_any_order() -> None:
    report = UploadReport()
    engine = _engine(report)
    engine.offer([text(raw, id=name) for raw, name in ("ax", "by", "cx")], 0.0)
    batch = engine.take(0.0)
    assert batch is not None
    codes = v2.StatusCode
    response = v2.MultiInputResponse()
    for name, code in (
        ("y", codes.INPUT_PENDING),
        ("x", codes.INPUT_PENDING),
        ("x", codes.INPUT_DUPLICATE),
    ):
        response.inputs.add(id=name).status.code = code
    engine.responded(batch, response, 0.1)
    assert report.added_ids == ["x", "y"]
    assert [(one.index, one.status.code) for one in report.failed_inputs] == [
        (2, codes.INPUT_DUPLICATE)
    ]


def test_an_error_of_the_whole_service_ends_the_upload() -> None:
    report = UploadReport()
    engine = _engine(report)
    denied = errors.AuthenticationError("no", code=v2.StatusCode.CONN_KEY_INVALID)
    engine.failed(_begun(engine), denied, 0.1)
    assert engine.finished
    assert engine.error is denied
    assert [one.maybe_added for one in report.failed_inputs] == [False]


def test_an_outage_is_waited_for_until_the_deadline_of_the_batch() -> None:
    report = UploadReport()
    engine = _engine(report, timeout=100.0)
    now = 0.0
    batch: BulkBatch | None = _begun(engine)
    while not engine.finished:
        if batch is not None:
            engine.failed(batch, _unavailable(), now)
        else:
            now += engine.wait(now) or 0.0
        batch = engine.take(now)
    assert isinstance(engine.error, errors.UnavailableError)
    assert 85 < now < 100
    assert report.retries > 10
    assert report.failed_inputs[0].maybe_added


def test_without_retries_nothing_is_sent_twice() -> None:
    report = UploadReport()
    engine = InputEngine(
        report,
        RetryPolicy(max_attempts=1),
        batch_size=1,
        batch_bytes=100,
        in_flight=1,
        timeout=10.0,
        random=lambda: 0.5,
    )
    engine.failed(_begun(engine), FAULTS["throttled"](), 0.0)
    assert engine.finished
    assert report.retries == 0


# Recognising what is there


@pytest.mark.parametrize(
    ("sent", "stored", "expected"),
    [
        (text("a"), text("a"), True),
        (text("a"), text("b"), False),
        (text("a"), image(b"a"), False),
        (text("a", concepts=["x"]), text("a", concepts=["x", "y"]), True),
        (text("a", concepts=["x"]), text("a"), False),
        (text("a", metadata={"k": 1}), text("a", metadata={"k": 2}), False),
        (text("a", metadata={"k": 1}), text("a", metadata={"k": 1, "l": 2}), True),
        (image("http://h/a.png"), image("http://h/a.png"), True),
        (image("http://h/a.png"), image("http://h/b.png"), False),
    ],
)
def test_an_input_is_ours_when_all_that_was_sent_is_in_it(
    sent: v2.Input, stored: v2.Input, expected: bool
) -> None:
    sent.id = stored.id = "given"
    assert is_ours(sent, stored, 0.0) is expected


def test_bytes_are_not_given_back_so_that_the_age_decides() -> None:
    sent = image(b"bytes", id="given")
    stored = image("http://service/given.png", id="given")
    stored.created_at.FromSeconds(10_000)
    assert is_ours(sent, stored, 10_100.0)
    assert not is_ours(sent, stored, 20_000.0)
    # With an id made from the content there is nothing to ask.
    _, item = encode_input(image(b"bytes"))
    assert is_ours(v2.Input.FromString(item), stored, 20_000.0)
