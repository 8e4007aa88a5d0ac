"""A program whose operations are interrupted at random moments, for ``test_interrupts``.

Run as ``python -m tests.rpc.interrupted TRANSPORT OPERATION COUNT SEED BASE PAT FOLDER``. It prints
a line for each interrupt that did not go as it should, then ``done`` and the time. COUNT 0 waits
for one interrupt from outside, at a server that does not answer.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from clarigrpc import Client, text, v2

AT_ONCE = 5.0  # on a machine whose cores are busy; what is wrong waits for a deadline
LONGEST_WAIT = 0.04
"""Seconds; the operations take about that long."""


def operations(client: Client, folder: Path) -> dict[str, Callable[[], object]]:
    """The kinds of blocking operation."""
    stream = client.model("text-stream", user_id="clarifai", app_id="main")
    speaker = client.model("speaker")
    color = client.model("color-recognition", user_id="clarifai", app_id="main")
    user_app = v2.UserAppIDSet(user_id="local-user", app_id="local-app")
    count = v2.GetInputCountRequest(user_app_id=user_app)
    words = [text(str(n)) for n in range(8)]
    return {
        "unary": client.inputs.status,
        "stub": lambda: client.v2.GetInputCount(count),
        "with_call": lambda: client.v2.GetInputCount.with_call(count),
        "future": lambda: client.v2.GetInputCount.future(count).result(),
        "list": lambda: list(client.models.list()),
        "call": lambda: list(speaker.call("letters", words="abcdefgh")),
        "generate": lambda: list(stream.generate(text("a b c d e f g h"))),
        "stream": lambda: list(stream.stream(words)),
        "predict_many": lambda: list(color.predict_many(words, batch_size=2)),
        "upload_version": lambda: client.model("uploaded").upload_version(
            b"x" * (3 << 20), state_dir=folder, resume=False
        ),
        "upload": lambda: client.inputs.upload(words),
    }


def interrupt_once(operation: Callable[[], object], wait: float) -> str:
    """What went wrong with one interrupt; "" for nothing."""
    sent = [0.0]

    def send() -> None:
        time.sleep(wait)
        sent[0] = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            operation()
    except KeyboardInterrupt:
        late = time.monotonic() - sent[0]
        sender.join()
        return f"after {late:.1f} s" if late > AT_ONCE else ""
    return "no KeyboardInterrupt"


def wait_for_ever(operation: Callable[[], object]) -> None:
    """Wait for the interrupt, and end with calls under way on a client that is not closed."""
    try:
        print("started", flush=True)
        operation()
    except KeyboardInterrupt:
        print("done", time.time(), flush=True)


def main(
    transport: Literal["grpc", "rest"],
    name: str,
    count: str,
    seed: str,
    base: str,
    pat: str,
    folder: str,
) -> None:
    """Interrupt an operation, use the client, and again."""
    moments = random.Random(seed)
    client = Client(
        base=base,
        pat=pat,
        transport=transport,
        user_id="local-user",
        app_id="local-app",
        timeout=20,
    )
    operation = operations(client, Path(folder))[name]
    if count == "0":
        wait_for_ever(operation)
        return
    client.inputs.status()
    for turn in range(int(count)):
        wait = moments.uniform(0, LONGEST_WAIT)
        if problem := interrupt_once(operation, wait):
            print(turn, f"{wait:.6f}", problem, flush=True)
        began = time.monotonic()
        client.inputs.status()
        other = threading.Thread(target=client.inputs.status)
        other.start()
        other.join()
        if time.monotonic() - began > AT_ONCE:
            print(turn, "the client is slow afterwards", flush=True)
    if moments.random() < 0.5:
        client.close()
    print("done", time.time(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
