"""Predict with as many processes as there are cores: ``predict_in_processes.py MODEL < lines``.

Each line of the standard input is one text. Prints ``number<TAB>best concept<TAB>value`` for each,
in the order of the lines, and ``number<TAB>error`` for one that failed. Credentials and address
come from the environment, as everywhere.

One Python process uses one core. Here every process has a client of its own, and predicts whole
chunks of the input, so that little crosses between processes; the queue of chunks is bounded,
however long the input is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context

from clarigrpc import Client, text
from clarigrpc.types import Model

CHUNK = 4096
"""Values a task. ``predict_many`` finds its batch size and window anew for each."""

Line = tuple[str, float] | str
"""Best concept and its value, or what went wrong."""

_model: Model | None = None  # of this process


def _open(model_id: str) -> None:
    """Runs once in each process, before its first task."""
    global _model
    _model = Client().model(model_id)


def _predict(chunk: list[str]) -> list[Line]:
    """Runs in a process of the pool. Only what the caller needs goes back."""
    assert _model is not None
    lines: list[Line] = []
    for result in _model.predict_many(map(text, chunk)):
        if result.output is None:
            lines.append(f"error: {result.error}")
        else:
            best = max(result.output.data.concepts, key=lambda concept: concept.value)
            lines.append((best.name or best.id, best.value))
    return lines


def predict_in_processes(
    model_id: str, values: Iterable[str], *, processes: int, chunk: int = CHUNK
) -> Iterator[Line]:
    """Predictions for any number of texts, in their order.

    Args:
        model_id: A model of the app that the environment names.
        values: The texts; may be endless.
        processes: How many processes predict.
        chunk: Texts a task. Twice as many tasks as processes are waiting or running.

    Raises:
        BrokenProcessPool: A process was killed. Nothing is skipped: what was yielded is done.
    """
    source = iter(values)
    # Processes that are not forked: they start clean, whatever threads this one has.
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, _open, (model_id,)) as pool:
        tasks: deque[Future[list[Line]]] = deque()
        try:
            while part := list(islice(source, chunk)):
                tasks.append(pool.submit(_predict, part))
                if len(tasks) == 2 * processes:
                    yield from tasks.popleft().result()
            while tasks:
                yield from tasks.popleft().result()
        finally:
            for task in tasks:
                task.cancel()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="id of a model in the app of the environment")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--chunk", type=int, default=CHUNK, help="texts a task")
    arguments = parser.parse_args()
    lines = (line.rstrip("\n") for line in sys.stdin)
    found = predict_in_processes(
        arguments.model, lines, processes=arguments.processes, chunk=arguments.chunk
    )
    for number, line in enumerate(found, 1):
        rest = line if isinstance(line, str) else f"{line[0]}\t{line[1]:.3f}"
        print(f"{number}\t{rest}")


if __name__ == "__main__":
    main()
