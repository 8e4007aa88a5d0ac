"""``python -m benchmarks.docs``: bring the figures of README and documentation up to the results.

Everything between ``<!-- figures: NAME -->`` and ``<!-- end -->`` is made from the JSON in
``benchmarks/results``; the plots go to ``docs/plots`` (that needs matplotlib). ``--check`` only
says whether the pages fit the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Row

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / page for page in ("performance.md", "processes.md", "scaling.md")),
)
PLOTS = ROOT / "docs" / "plots"

SECONDS_A_DAY = 86_400
PRICE = 0.04
"""US dollars for a core and hour, an assumption."""

# How a page calls a way to predict -> (result, scene, variant).
WAYS = {
    "`predict`, sequential": ("unary", "canned", "clarigrpc predict"),
    "`await predict`, 32 in flight": (
        "concurrency",
        "asyncio, 32 in flight",
        "clarigrpc apredict",
    ),
    "`await predict`, 128 callers, `coalesce=True`": (
        "concurrency",
        "128 callers",
        "clarigrpc coalesced",
    ),
    "`predict`, lists of 128": ("batch", "small inputs", "predict, lists of 128"),
    "`predict_many`": ("batch", "small inputs", "predict_many"),
    "`stream`, window of 32": ("streams", "stream, window of 32", "clarigrpc stream"),
    "`generate`, per token": ("streams", "generate", "clarigrpc generate"),
    "REST, requests, sequential": ("unary", "canned", "REST, requests"),
    "REST, aiohttp, 32 in flight": ("concurrency", "asyncio, 32 in flight", "REST, aiohttp"),
    "REST, requests, lists of 128": ("batch", "small inputs", "REST, requests"),
}
MODELLED = (
    "`predict`, sequential",
    "`await predict`, 32 in flight",
    "`predict_many`",
    "REST, requests, sequential",
)

Results = dict[str, dict[str, Any]]


Figures = Callable[[Results], str]
NONE_YET = "No results yet: `make bench-full`."


def needs(*names: str) -> Callable[[Figures], Figures]:
    """Figures that say so where one of these results is not there yet."""

    def given(figures: Figures) -> Figures:
        def checked(results: Results) -> str:
            return figures(results) if results.keys() >= set(names) else NONE_YET

        return checked

    return given


def read(folder: Path) -> Results:
    """All results by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def _measured(results: Results, way: str) -> dict[str, Any] | None:
    name, scene, variant = WAYS[way]
    for one in results.get(name, {}).get("measured", ()):
        if (one["scene"], one["variant"]) == (scene, variant):
            found: dict[str, Any] = one
            return found
    return None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    if value >= 1000:
        step = 10 ** max(0, len(str(int(value))) - digits)
        return f"{round(value / step) * step:,}"
    return f"{value:.{digits}g}"


def environment(results: Results) -> str:
    """What the results were measured with."""
    lines = []
    for name, result in results.items():
        here = result["environment"]
        packages = ", ".join(f"{key} {value}" for key, value in here["packages"].items())
        text = (
            f"{here['processor']}, {here['cores']} cores, Linux {here['kernel']}, "
            f"Python {here['python']}; {packages}; {here['date']}"
        )
        if not result["full"]:
            text += f"; a short run, with a load of {here['load']:.0f}: {name}"
        lines.append((text, name))
    texts = sorted({text for text, _ in lines})
    peers = {
        f"{package} {version}"
        for result in results.values()
        for peer, packages in result.get("packages", {}).items()
        if peer != "clarigrpc"
        for package, version in packages.items()
        if package not in ("grpcio", "protobuf")
    }
    return "\n\n".join([*texts, "Compared with: " + ", ".join(sorted(peers)) + "."])


def ways(results: Results) -> str:
    """One line a way to predict."""
    rows = []
    for way in WAYS:
        one = _measured(results, way)
        if one is not None:
            busy = one["rate"] * one["cpu_us"] / 1e4
            rows.append(
                (
                    way,
                    _number(one["rate"]),
                    _number(one["cpu_us"]),
                    f"{busy:.0f} %",
                    *(_number(one[key]) for key in ("p50_us", "p95_us", "p99_us", "peak_mb")),
                )
            )
    head = ("", "per second", "client CPU, µs", "core load", "p50 µs", "p95 µs", "p99 µs", "MB")
    return _table(head, rows)


def goals(results: Results) -> str:
    """Every row of every result."""
    parts = []
    for name, result in results.items():
        rows = []
        for row in map(_row, result["rows"]):
            if row.control or "control" in row.question:
                continue
            verdict = row.verdict
            rows.append(
                (
                    row.question,
                    f"{row.ratio:.2f} ({row.low:.2f}-{row.high:.2f})",
                    row.goal.replace("<=", "≤").replace(">=", "≥"),
                    f"**{verdict}**" if verdict == "MISSED" else verdict,
                )
            )
        if rows:
            parts.append(f"### {name}\n\n" + _table(("", "ratio (95 %)", "goal", ""), rows))
    return "\n\n".join(parts)


def _row(content: dict[str, Any]) -> Row:
    return Row(**{**content, "values": tuple(content["values"])})


def growth(results: Results) -> str:
    """What a million predictions cost, and how many a day 1, 10 and 100 processes do."""
    rows = []
    for way in MODELLED:
        one = _measured(results, way)
        if one is None:
            continue
        core_hours = one["cpu_us"] / 3600
        daily = one["rate"] * SECONDS_A_DAY
        rows.append(
            (
                way,
                _number(one["cpu_us"]),
                f"${core_hours * PRICE:.4f}",
                *(f"{_number(1e6 / one['rate'] / count)} s" for count in (1, 10, 100)),
                *(f"{_number(daily * count / 1e6)} M" for count in (1, 10, 100)),
                _number(1e9 / SECONDS_A_DAY * one["cpu_us"] / 1e6),
            )
        )
    head = (
        "",
        "CPU-seconds per million",
        f"at ${PRICE} per core-hour",
        "time per million, 1 process",
        "10",
        "100",
        "per day, 1 process",
        "10",
        "100",
        "cores for a billion per day",
    )
    return _table(head, rows)


def in_flight(results: Results) -> str:
    """Requests in flight that it takes to keep one client process busy."""
    rows = []
    for way, batch in (("`await predict`, 32 in flight", 1), ("`predict_many`", 128)):
        one = _measured(results, way)
        if one is not None:
            needed = (one["rate"] * latency / batch for latency in (0.001, 0.01, 0.1, 1.0))
            rows.append((way, *(f"{max(1, round(count)):,}" for count in needed)))
    return _table(("latency of the service", "1 ms", "10 ms", "100 ms", "1 s"), rows)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else _number(value / 1000)


@needs("load")
def load(results: Results) -> str:
    """Latencies at a constant rate."""
    rows = [
        (
            one["scene"],
            one["variant"],
            _number(one["rate"]),
            *(_milliseconds(one.get(key)) for key in ("p50_us", "p99_us", "p999_us")),
        )
        for one in results["load"]["measured"]
    ]
    table = _table(("load", "client", "per second", "p50 ms", "p99 ms", "p99.9 ms"), rows)
    return f"{table}\n\n![Latency by load](plots/latency-by-load.svg)"


def _rates(name: str, *head: str) -> Figures:
    """Rate and CPU of everything that a result measured."""

    @needs(name)
    def table(results: Results) -> str:
        rows = [
            (one["scene"], one["variant"], _number(one["rate"]), _number(one["cpu_us"]))
            for one in results[name]["measured"]
        ]
        return _table(head, rows)

    return table


@needs("ray_actors")
def ray_actors(results: Results) -> str:
    """Rates by the number of actors, and their ratio to one."""
    ratios = {row.question: row for row in map(_row, results["ray_actors"]["rows"])}
    rows = []
    for one in results["ray_actors"]["measured"]:
        row = ratios.get(f"{one['scene']}: {one['variant']} / 1 actor, rate")
        times = "" if row is None else f"{row.ratio:.2f} ({row.low:.2f}-{row.high:.2f})"
        rows.append((one["scene"], one["variant"], _number(one["rate"]), times))
    return _table(("", "", "rows a second", "times one actor"), rows)


@needs("transports")
def transports(results: Results) -> str:
    """CPU and rate of HTTP/2 in Rust over those of clarigrpc."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in map(_row, results["transports"]["rows"]):
        if not row.control:
            pair, _, quantity = row.question.rpartition(", ")
            title, _, names = pair.rpartition(": ")
            told = row.verdict != "not quiet"
            figure = f"{row.ratio:.2f} ({row.low:.2f}-{row.high:.2f})" if told else "not quiet"
            found.setdefault((title, names.partition(" / ")[0]), {})[quantity] = figure
    rows = [
        (title, name, figures["client CPU"], figures["rate"])
        for (title, name), figures in found.items()
    ]
    return _table(("", "", "client CPU over clarigrpc's", "rate over clarigrpc's"), rows)


@needs("unary", "batch", "images")
def readme(results: Results) -> str:
    """Three figures and a plot."""

    def of(name: str, scene: str, variant: str) -> dict[str, Any]:
        (found,) = (
            one
            for one in results[name]["measured"]
            if (one["scene"], one["variant"]) == (scene, variant)
        )
        return dict(found)

    one, rest = (of("unary", "canned", who) for who in ("clarigrpc predict", "REST, requests"))
    many = of("batch", "small inputs", "predict_many")
    image, json_image = (
        of("images", "1 MB", who) for who in ("clarigrpc predict", "REST, requests")
    )
    lines = [
        f"- **{_number(one['cpu_us'])} µs** of client CPU for a small prediction "
        f"({_number(rest['cpu_us'])} µs with `requests` over REST)",
        f"- **{_number(many['rate'])}** small predictions per second on one core, "
        "with `predict_many`",
        f"- **{_number(image['rate'])}** images of 1 MB per second on one core "
        f"({_number(json_image['rate'])} with `requests` over REST)",
    ]
    plot = "![Small predictions per second by requests in flight]"
    return "\n".join([*lines, "", f"{plot}(docs/plots/throughput-by-concurrency.svg)"])


def plots(results: Results) -> str:
    """The plots that ``main`` draws."""
    return (
        "![Small predictions per second by requests in flight]"
        "(plots/throughput-by-concurrency.svg)\n\n"
        "![Images per second by size](plots/throughput-by-size.svg)"
    )


FIGURES: dict[str, Figures] = {
    "environment": environment,
    "ways": ways,
    "plots": plots,
    "growth": growth,
    "in-flight": in_flight,
    "goals": goals,
    "load": load,
    "distance": _rates("distance", "round trip", "client", "per second", "client CPU, µs"),
    "processes": _rates("processes", "", "", "per second", "CPU of an input, µs"),
    "ray_actors": ray_actors,
    "transports": transports,
    "readme": readme,
}


def render(page: str, results: Results) -> str:
    """The page with its figures made anew."""

    def figures(match: re.Match[str]) -> str:
        name = match[1]
        content = FIGURES[name](results) if results else NONE_YET
        return f"<!-- figures: {name} -->\n\n{content}\n\n<!-- end -->"

    return re.sub(r"<!-- figures: ([\w-]+) -->.*?<!-- end -->", figures, page, flags=re.DOTALL)


def main() -> int:
    """Write the pages and the plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.docs", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    results = read(arguments.results)
    stale = False
    for path in PAGES:
        page = path.read_text()
        rendered = render(page, results)
        if rendered != page:
            stale = True
            if arguments.check:
                print(f"{path} does not fit the results: run python -m benchmarks.docs")
            else:
                path.write_text(rendered)
    if arguments.check:
        return int(stale)
    from benchmarks.plots import draw

    PLOTS.mkdir(exist_ok=True)
    draw(arguments.results, PLOTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
