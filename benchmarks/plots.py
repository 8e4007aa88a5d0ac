"""The plots of the documentation, as PNG and SVG. Needs matplotlib."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Plot:
    """A plot of one result's series.

    Attributes:
        file: Its name in the folder, without suffix.
        scale: Of both axes, as matplotlib calls the function: ``loglog``, ``semilogy``.
        factor: What the y values are multiplied by.
    """

    file: str
    title: str
    x: str
    y: str = "inputs per second (one client process)"
    scale: str = "loglog"
    factor: float = 1.0


PLOTS = {
    "images": Plot("throughput-by-size", "Images per second, by size", "size of an image in bytes"),
    "concurrency": Plot(
        "throughput-by-concurrency",
        "Small predictions per second, by requests in flight",
        "requests in flight",
    ),
    "load": Plot(
        "latency-by-load",
        "Latency by load: calls that start at a constant rate",
        "share of the client's highest rate",
        y="milliseconds from the moment when a call was due",
        scale="semilogy",
        factor=1000,
    ),
}


def draw(results: Path, folder: Path) -> None:
    """Draw every plot whose result is there into ``folder``."""
    # A constant salt, no date: the same results give the same file.
    mpl.rcParams.update({"svg.hashsalt": "clarigrpc", "svg.fonttype": "none"})
    for name, plot in PLOTS.items():
        source = results / f"{name}.json"
        if not source.exists():
            continue
        figure, axes = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
        series = json.loads(source.read_text())["series"]
        # Lines of one client have one colour; each percentile its own style.
        colours = {who: f"C{number}" for number, who in enumerate(dict.fromkeys(map(_who, series)))}
        styles = {"p50": "-", "p99": "--", "p99.9": ":"}
        markers = dict(zip(colours, cycle("osD^v")))
        for line, points in series.items():
            x, y = zip(*points, strict=True)
            style = styles.get(line.rpartition(": ")[2], "--" if line.startswith("REST") else "-")
            draw_line = getattr(axes, plot.scale)
            draw_line(
                x,
                [value * plot.factor for value in y],
                style,
                marker=markers[_who(line)],
                color=colours[_who(line)],
                label=line,
            )
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
        axes.grid(visible=True, which="both", alpha=0.25)
        figure.legend(loc="outside right upper", fontsize="small")
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            figure.savefig(folder / f"{plot.file}.{suffix}", dpi=150, metadata=metadata)
        plt.close(figure)


def _who(line: str) -> str:
    """Whose line it is: what stands before a percentile."""
    return line.partition(": p")[0]
