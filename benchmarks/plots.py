"""The plots of the documentation, as PNG and SVG. Needs matplotlib."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

# Result -> file, title, label of the x axis.
PLOTS = {
    "images": ("throughput-by-size", "Images per second, by size", "size of an image in bytes"),
    "concurrency": (
        "throughput-by-concurrency",
        "Small predictions per second, by requests in flight",
        "requests in flight",
    ),
}


def draw(results: Path, folder: Path) -> None:
    """Draw every plot whose result is there into ``folder``."""
    # A constant salt, no date: the same results give the same file.
    mpl.rcParams.update({"svg.hashsalt": "clarigrpc", "svg.fonttype": "none"})
    for name, (file, title, label) in PLOTS.items():
        source = results / f"{name}.json"
        if not source.exists():
            continue
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        for (line, points), marker in zip(
            json.loads(source.read_text())["series"].items(), "osD^v", strict=False
        ):
            dashed = "--" if line.startswith("REST") else "-"
            axes.loglog(*zip(*points, strict=True), dashed, marker=marker, label=line)
        axes.set(title=title, xlabel=label, ylabel="inputs per second (one client process)")
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            figure.savefig(folder / f"{file}.{suffix}", dpi=150, metadata=metadata)
        plt.close(figure)
