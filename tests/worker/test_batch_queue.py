"""Rows wait for others at most max_delay, and each is run exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clarigrpc._worker.batch_queue import BatchQueue, BatchRow


def row(since: float) -> BatchRow:
    return BatchRow({}, since)


def test_a_full_batch_runs_at_once() -> None:
    queue = BatchQueue(2, 10.0)
    first, second, third = row(0), row(1), row(1)
    queue.add(first)
    assert queue.take(1) == []
    queue.add(second)
    queue.add(third)
    assert queue.take(1) == [first, second]
    assert queue.due_at() is None, "one batch runs at a time"
    queue.ended()
    assert queue.take(10.9) == []
    assert queue.due_at() == 11
    assert queue.take(11) == [third]


def test_rows_that_nobody_waits_for_do_not_run() -> None:
    queue = BatchQueue(8, 0.0)
    first, second = row(0), row(0)
    queue.add(first)
    queue.add(second)
    queue.withdraw([first])
    assert queue.take(0) == [second]
    queue.withdraw([second])  # too late, and no error


@given(
    st.integers(1, 5),
    st.floats(0, 3),
    st.lists(st.sampled_from(["add", "take", "end", "leave"]), max_size=60),
)
def test_nothing_is_lost_or_doubled(size: int, delay: float, actions: list[str]) -> None:
    queue, now = BatchQueue(size, delay), 0.0
    added: list[BatchRow] = []
    left: list[BatchRow] = []
    taken: list[BatchRow] = []
    for action in actions:
        now += 0.25
        if action == "add":
            added.append(row(now))
            queue.add(added[-1])
        elif action == "take":
            due = queue.due_at()
            batch = queue.take(now)
            assert bool(batch) == (due is not None and now >= due)
            assert len(batch) <= size
            taken += batch
        elif action == "end":
            queue.ended()
        elif added and added[-1] not in taken:
            left.append(added[-1])
            queue.withdraw([added[-1]])
    while True:
        queue.ended()
        if (due := queue.due_at()) is None:
            break
        taken += queue.take(due)
    gone = set(map(id, left))
    assert [id(one) for one in taken] == [id(one) for one in added if id(one) not in gone]
