"""A demonstration on photographs: ``python demo.py IMAGE...`` (``make demo`` downloads two).

It starts a local server as a separate process, predicts, adds the photographs as inputs, reads them
back, and compares gRPC with REST.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clarigrpc import Client, errors, image, v2
from clarigrpc.cli.output import terminal
from clarigrpc.cli.render import outputs_table
from clarigrpc.types import Model

ROUNDS = 12
SLICE_SECONDS = 0.2
WAIT_SECONDS = 30.0


@contextmanager
def server() -> Iterator[dict[str, str]]:
    """``clarigrpc serve`` as a process; yields what it prints: GRPC_BASE, REST_BASE, PAT, ..."""
    command = Path(sys.executable).with_name("clarigrpc")
    process = subprocess.Popen(
        [str(command), "serve", "--rest-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        facts: dict[str, str] = {}
        assert process.stdout is not None
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            facts[name] = value
            if name == "export CLARIFAI_APP_ID":  # the last one
                break
        else:
            raise SystemExit(f"demo: the server did not start:\n{process.communicate()[1]}")
        yield facts
    finally:
        process.terminate()
        process.communicate()


def color_recognition(client: Client) -> Model:
    """The public model for colours."""
    return client.model("color-recognition", user_id="clarifai", app_id="main")


def add_and_read_back(client: Client, photos: list[Path]) -> Table:
    """Add the photographs as inputs, wait until they are processed, list them."""
    ids = [f"photo-{number}" for number in range(1, len(photos) + 1)]
    client.inputs.create(
        [
            image(photo, id=id, metadata={"file": photo.name})
            for id, photo in zip(ids, photos, strict=True)
        ]
    )
    deadline = time.monotonic() + WAIT_SECONDS
    while (count := client.inputs.status()).to_process or count.processing:
        if time.monotonic() > deadline:
            raise SystemExit(f"demo: the inputs are not processed after {WAIT_SECONDS:g} s")
        time.sleep(0.05)
    found = {one.id: one for one in client.inputs.list()}
    table = Table(title="Inputs, added and read back", title_justify="left")
    for heading in ("Id", "File", "Image", "Status"):
        table.add_column(heading)
    for id in ids:
        one = found[id]
        info = one.data.image.image_info
        table.add_row(
            one.id,
            str(one.data.metadata["file"]),
            f"{info.width} x {info.height} {info.format}",
            f"{one.status.code} {one.status.description}",
        )
    return table


@dataclass
class Rate:
    """Predictions over one transport, and the time that they took."""

    name: str
    client: Client
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def predict(self, inputs: list[v2.Input], calls: int) -> None:
        """Make ``calls`` sequential predictions, using the inputs round-robin."""
        model = color_recognition(self.client)
        cpu = time.process_time()
        for number in range(calls):
            start = time.perf_counter()
            model.predict(inputs[number % len(inputs)])
            self.seconds.append(time.perf_counter() - start)
        self.cpu += time.process_time() - cpu


def compare(rates: list[Rate], inputs: list[v2.Input], console: Console) -> None:
    """Make the same calls over each transport, alternating in short slices, and print a table."""
    for rate in rates:
        rate.predict(inputs, 20)  # warm up connections, imports and the caches of the server
    slowest = max(statistics.median(rate.seconds) for rate in rates)
    # Whole rounds of the inputs, so that every slice predicts on the same pictures.
    calls = max(1, round(SLICE_SECONDS / slowest / len(inputs))) * len(inputs)
    for rate in rates:
        rate.seconds, rate.cpu = [], 0.0
    for turn in range(ROUNDS):
        for rate in rates if turn % 2 == 0 else reversed(rates):
            rate.predict(inputs, calls)
    table = Table(
        title=f"gRPC and REST, {ROUNDS * calls} sequential predictions each",
        title_justify="left",
    )
    table.add_column("Transport")
    for heading in ("Predictions per second", "Median ms", "Client CPU ms"):
        table.add_column(heading, justify="right")
    for rate in rates:
        table.add_row(
            rate.name,
            f"{len(rate.seconds) / sum(rate.seconds):.0f}",
            f"{statistics.median(rate.seconds) * 1000:.2f}",
            f"{rate.cpu / len(rate.seconds) * 1000:.2f}",
        )
    console.print(table)


def main(arguments: list[str]) -> None:
    photos = [Path(argument) for argument in arguments]
    if not photos:
        raise SystemExit("usage: python demo.py IMAGE...")
    console = terminal()
    inputs = [image(photo) for photo in photos]
    with server() as facts:
        user_id, app_id, pat = facts["USER_ID"], facts["APP_ID"], facts["PAT"]
        with (
            Client(base=facts["GRPC_BASE"], user_id=user_id, app_id=app_id, pat=pat) as client,
            Client(base=facts["REST_BASE"], transport="rest", pat=pat) as rest_client,
        ):
            console.print(Text(f"Local V2 server at {facts['GRPC_BASE']}\n", style="dim"))
            outputs = color_recognition(client).predict(inputs)
            names = [photo.name for photo in photos]
            console.print(
                outputs_table(
                    zip(names, outputs, strict=True),
                    title="Main colours, by the model color-recognition",
                )
            )
            console.print()
            console.print(add_and_read_back(client, photos))
            console.print()
            compare([Rate("gRPC", client), Rate("REST", rest_client)], inputs, console)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (errors.ClarigrpcError, OSError) as error:
        raise SystemExit(f"demo: {error}") from None
