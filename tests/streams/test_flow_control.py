"""The state of a bidi stream: any order of sends, responses, attempts and time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clarigrpc import errors
from clarigrpc._streams.flow_control import FlowControl, FlowStep

WINDOW = 4
PATIENCE = 5.0


class FlowMachine(RuleBasedStateMachine):
    """A driver that does anything a driver may, and a server that gets what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = FlowControl(WINDOW, PATIENCE)
        self.now = 0.0
        self.attempt = self.flow.begin()
        self.made = 0
        self.sent: list[bytes] = []  # in the current attempt
        self.responses = 0
        self.pulling = 0  # the attempt that asked for a value, 0: none
        self.exhausted = False
        self.stale: list[int] = []

    def _poll(self) -> bytes | float | FlowStep:
        step = self.flow.poll(self.attempt, self.now)
        if isinstance(step, bytes):
            self.sent.append(step)
        elif step is FlowStep.PULL:
            assert not self.pulling, "two readers of one source"
            self.pulling = self.attempt
        return step

    @rule()
    def poll(self) -> None:
        step = self._poll()
        if isinstance(step, float):
            assert step > 0
            assert step <= PATIENCE or (step == math.inf and self.pulling)

    @rule()
    def poll_of_an_attempt_that_is_over(self) -> None:
        for attempt in self.stale:
            assert self.flow.poll(attempt, self.now) is FlowStep.END

    @precondition(lambda self: self.pulling)
    @rule()
    def value(self) -> None:
        self.flow.pulled(b"%d" % self.made)
        self.made += 1
        self.pulling = 0

    @precondition(lambda self: self.pulling)
    @rule()
    def end_of_source(self) -> None:
        self.flow.exhausted()
        self.exhausted = True
        self.pulling = 0

    @precondition(lambda self: len(self.sent) > self.responses)
    @rule()
    def answer(self) -> None:
        self.flow.responded()
        self.responses += 1

    @precondition(lambda self: self.flow.resumable)
    @rule()
    def refused(self) -> None:
        assert not self.responses
        self.flow.ended(self.attempt)
        self.stale.append(self.attempt)
        self.attempt = self.flow.begin()
        self.sent.clear()

    @rule(seconds=st.floats(0.1, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def order_is_kept_and_nothing_doubled(self) -> None:
        assert self.sent == [b"%d" % number for number in range(len(self.sent))]
        assert len(self.sent) <= self.made

    @invariant()
    def window_holds(self) -> None:
        if not self.flow.stalled:
            assert len(self.sent) - self.responses <= WINDOW

    @invariant()
    def answered_is_final(self) -> None:
        assert self.flow.resumable == (self.responses == 0)

    def teardown(self) -> None:
        """With a server that responds, everything made gets out, whatever happened before."""
        if self.pulling:
            self.end_of_source()
        while (step := self._poll()) is not FlowStep.END:
            if step is FlowStep.PULL:
                self.end_of_source()
            elif isinstance(step, float):
                self.now += step
        assert len(self.sent) == self.made


TestFlowControl = FlowMachine.TestCase
TestFlowControl.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5))
def test_answers_do_not_add_up(responses: list[int], window: int) -> None:
    """A request with many responses does not let more than a window of others out."""
    flow = FlowControl(window, math.inf)
    attempt = flow.begin()
    for count in responses:
        ahead = 0
        while (step := flow.poll(attempt, 0.0)) != math.inf:
            if step is FlowStep.PULL:
                flow.pulled(b"x")
            else:
                ahead += 1
        assert ahead <= window
        for _ in range(count):
            flow.responded()


def fill(flow: FlowControl, attempt: int, now: float) -> float:
    """Send until the window is full; the seconds to wait then."""
    while True:
        step = flow.poll(attempt, now)
        if step is FlowStep.PULL:
            flow.pulled(b"x")
        elif isinstance(step, float):
            return step


def test_a_full_window_opens_after_a_while() -> None:
    flow = FlowControl(2, 5.0)
    attempt = flow.begin()
    assert fill(flow, attempt, 10.0) == 5.0
    assert fill(flow, attempt, 14.0) == 1.0
    flow.responded()  # somebody is there: the wait begins again
    assert fill(flow, attempt, 14.5) == 5.0
    assert not flow.stalled
    assert flow.poll(attempt, 19.5) is FlowStep.PULL
    assert flow.stalled


def test_requests_are_kept_up_to_a_size() -> None:
    flow = FlowControl(None, keep_bytes=10)
    attempt = flow.begin()
    for _ in range(2):
        assert flow.poll(attempt, 0.0) is FlowStep.PULL
        flow.pulled(b"12345")
        assert flow.resumable
        assert flow.poll(attempt, 0.0) == b"12345"
    assert flow.poll(attempt, 0.0) is FlowStep.PULL
    flow.pulled(b"1")
    assert not flow.resumable
    assert flow.poll(attempt, 0.0) == b"1"


def test_a_value_that_an_old_attempt_waits_for_goes_to_the_new_one() -> None:
    flow = FlowControl()
    old = flow.begin()
    assert flow.poll(old, 0.0) is FlowStep.PULL
    flow.ended(old)
    new = flow.begin()
    assert flow.poll(new, 0.0) == math.inf
    flow.pulled(b"late")
    assert flow.poll(old, 0.0) is FlowStep.END
    assert flow.poll(new, 0.0) == b"late"


def test_a_closed_flow_gives_nothing_and_keeps_nothing() -> None:
    flow = FlowControl()
    attempt = flow.begin()
    assert flow.poll(attempt, 0.0) is FlowStep.PULL
    flow.close()
    flow.pulled(b"late")
    assert flow.poll(attempt, 0.0) is FlowStep.END
    assert not flow.resumable


@pytest.mark.parametrize(("window", "patience"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, math.nan)])
def test_senseless_settings(window: int, patience: float) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        FlowControl(window, patience)
