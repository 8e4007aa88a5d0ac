"""The state of a duplex stream: any order of sends, answers, attempts and time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clarigrpc import errors
from clarigrpc._streams.flow_control import Feed, Next

WINDOW = 4
PATIENCE = 5.0


class FeedMachine(RuleBasedStateMachine):
    """A driver that does anything a driver may, and a server that gets what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed(WINDOW, PATIENCE)
        self.now = 0.0
        self.attempt = self.feed.begin()
        self.made = 0
        self.sent: list[bytes] = []  # in the current attempt
        self.answers = 0
        self.pulling = 0  # the attempt that asked for a value, 0: none
        self.exhausted = False
        self.stale: list[int] = []

    def _poll(self) -> bytes | float | Next:
        step = self.feed.poll(self.attempt, self.now)
        if isinstance(step, bytes):
            self.sent.append(step)
        elif step is Next.PULL:
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
            assert self.feed.poll(attempt, self.now) is Next.END

    @precondition(lambda self: self.pulling)
    @rule()
    def value(self) -> None:
        self.feed.pulled(b"%d" % self.made)
        self.made += 1
        self.pulling = 0

    @precondition(lambda self: self.pulling)
    @rule()
    def end_of_source(self) -> None:
        self.feed.exhausted()
        self.exhausted = True
        self.pulling = 0

    @precondition(lambda self: len(self.sent) > self.answers)
    @rule()
    def answer(self) -> None:
        self.feed.answered()
        self.answers += 1

    @precondition(lambda self: self.feed.resumable)
    @rule()
    def refused(self) -> None:
        assert not self.answers
        self.feed.over(self.attempt)
        self.stale.append(self.attempt)
        self.attempt = self.feed.begin()
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
        if not self.feed.stalled:
            assert len(self.sent) - self.answers <= WINDOW

    @invariant()
    def answered_is_final(self) -> None:
        assert self.feed.resumable == (self.answers == 0)

    def teardown(self) -> None:
        """With a server that answers, everything made gets out, whatever happened before."""
        if self.pulling:
            self.end_of_source()
        while (step := self._poll()) is not Next.END:
            if step is Next.PULL:
                self.end_of_source()
            elif isinstance(step, float):
                self.now += step
        assert len(self.sent) == self.made


TestFeed = FeedMachine.TestCase
TestFeed.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5))
def test_answers_do_not_add_up(answers: list[int], window: int) -> None:
    """A request with many responses does not let more than a window of others out."""
    feed = Feed(window, math.inf)
    attempt = feed.begin()
    for count in answers:
        ahead = 0
        while (step := feed.poll(attempt, 0.0)) != math.inf:
            if step is Next.PULL:
                feed.pulled(b"x")
            else:
                ahead += 1
        assert ahead <= window
        for _ in range(count):
            feed.answered()


def fill(feed: Feed, attempt: int, now: float) -> float:
    """Send until the window is full; the seconds to wait then."""
    while True:
        step = feed.poll(attempt, now)
        if step is Next.PULL:
            feed.pulled(b"x")
        elif isinstance(step, float):
            return step


def test_a_full_window_opens_after_a_while() -> None:
    feed = Feed(2, 5.0)
    attempt = feed.begin()
    assert fill(feed, attempt, 10.0) == 5.0
    assert fill(feed, attempt, 14.0) == 1.0
    feed.answered()  # somebody is there: the wait begins again
    assert fill(feed, attempt, 14.5) == 5.0
    assert not feed.stalled
    assert feed.poll(attempt, 19.5) is Next.PULL
    assert feed.stalled


def test_requests_are_kept_up_to_a_size() -> None:
    feed = Feed(None, keep_bytes=10)
    attempt = feed.begin()
    for _ in range(2):
        assert feed.poll(attempt, 0.0) is Next.PULL
        feed.pulled(b"12345")
        assert feed.resumable
        assert feed.poll(attempt, 0.0) == b"12345"
    assert feed.poll(attempt, 0.0) is Next.PULL
    feed.pulled(b"1")
    assert not feed.resumable
    assert feed.poll(attempt, 0.0) == b"1"


def test_a_value_that_an_old_attempt_waits_for_goes_to_the_new_one() -> None:
    feed = Feed()
    old = feed.begin()
    assert feed.poll(old, 0.0) is Next.PULL
    feed.over(old)
    new = feed.begin()
    assert feed.poll(new, 0.0) == math.inf
    feed.pulled(b"late")
    assert feed.poll(old, 0.0) is Next.END
    assert feed.poll(new, 0.0) == b"late"


def test_a_closed_feed_gives_nothing_and_keeps_nothing() -> None:
    feed = Feed()
    attempt = feed.begin()
    assert feed.poll(attempt, 0.0) is Next.PULL
    feed.close()
    feed.pulled(b"late")
    assert feed.poll(attempt, 0.0) is Next.END
    assert not feed.resumable


@pytest.mark.parametrize(("window", "patience"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, math.nan)])
def test_senseless_settings(window: int, patience: float) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        Feed(window, patience)
