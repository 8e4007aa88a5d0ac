"""Photos of 12 megapixels over a line of 100 Mbit/s: whole, and shrunk before they are sent."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from benchmarks.delay_line import delay_line
from benchmarks.harness import Report
from benchmarks.servers import canned
from benchmarks.workers import ours, scene

SIZE = (4000, 3000)
MBIT = 100
ROUND_TRIP = 0.02


def photo() -> bytes:
    """A JPEG file of about 4 MB, as of a camera: smooth areas, edges, and the noise of a sensor."""
    random = np.random.default_rng(1)
    rough = random.integers(0, 256, (SIZE[1] // 50, SIZE[0] // 50, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize(SIZE, Image.Resampling.BICUBIC), np.int16)
    noise = random.normal(0, 6, smooth.shape).astype(np.int16)
    buffer = io.BytesIO()
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("photos")
    with canned() as (plain, _):
        port = int(plain.grpc.rpartition(":")[2])
        with delay_line(ROUND_TRIP, port, mbit=MBIT) as (far,):
            whole = ours("photos", "whole")
            shrunk = [ours(f"photos_{side}", f"max_side={side}") for side in (1024, 512)]
            found = scene(
                report,
                f"{SIZE[0]} x {SIZE[1]}, {MBIT} Mbit/s",
                replace(plain, grpc=f"127.0.0.1:{far}"),
                [whole, *shrunk],
                rounds=7 if full else 3,
                seconds=2,
                payload=photo(),
            )
            for one in shrunk:
                found.row(one.name, whole.name, "rate")
    return report
