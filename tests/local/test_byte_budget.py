"""The memory that all calls share."""

from __future__ import annotations

import threading

import hypothesis
import pytest
from hypothesis import strategies as st

from clarigrpc.local.byte_budget import BudgetFullError, ByteBudget, Held

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("take", "body")), st.integers(0, 120)),
        st.tuples(st.sampled_from(("release", "drop")), st.integers(0, 5)),
    ),
    max_size=30,
)


@hypothesis.given(steps=steps)
def test_what_is_held_and_what_is_free_make_the_total(steps: list[tuple[str, int]]) -> None:
    budget = ByteBudget(100)
    held: list[Held] = []
    for step, number in steps:
        sizes = sum(each.size for each in held)
        if step in ("take", "body"):
            spare = 50 if step == "body" else 0
            size = number if step == "body" else min(number, 100)
            try:
                held.append(
                    budget.take_for_body(number) if step == "body" else budget.take(number, wait=0)
                )
            except BudgetFullError:
                assert 100 - sizes - size < spare
            else:
                assert 100 - sizes - size >= spare
        elif number < len(held):
            gone = held.pop(number)
            if step == "release":
                gone.release()
                gone.release()
            del gone
        assert budget.free == 100 - sum(each.size for each in held)


def test_who_waits_gets_what_becomes_free() -> None:
    budget = ByteBudget(100)
    first = budget.take(60)
    got: list[int] = []

    def wait() -> None:
        with budget.take(60, wait=30) as held:
            got.append(held.size)

    waiting = threading.Thread(target=wait)
    waiting.start()
    with pytest.raises(BudgetFullError):
        budget.take(60, wait=0.01)
    first.release()
    waiting.join(30)
    assert got == [60]
    assert budget.free == 100
