"""``python -m benchmarks [NAME ...] [--full]``: run benchmarks and keep their results as JSON.

``--full`` writes to ``benchmarks/results/``, which the documentation is made from; a short run to
the folder for temporary files. Where the control of a scene (a variant against itself) says that
the machine was not quiet, the scene is measured again, twice with ``--full``; the quietest counts.
A missed goal is told, and is no failure of the run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import CHOICE, RESULTS, Choice, Report, closing

NAMES = (
    "overhead",
    "unary",
    "concurrency",
    "batch",
    "images",
    "photos",
    "streams",
    "many_calls",
    "runners",
    "embeddings",
    "startup",
    "upload",
    "processes",
    "ray_actors",
    "load",
    "distance",
    "transports",
)


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenes with this in their title"
    )
    parser.add_argument("--full", action="store_true", help="more repetitions, and keep results")
    parser.add_argument("--out", type=Path, help="folder for the results")
    arguments = parser.parse_args()
    names = checked(parser, arguments.names, NAMES)
    if arguments.only and arguments.full and not arguments.out:
        parser.error("--only with --full needs --out: a part would replace the whole results")
    out = arguments.out or (RESULTS if arguments.full else None)
    if out is None:
        out = Path(tempfile.gettempdir(), "clarigrpc-benchmarks")
    CHOICE.set(Choice(only=arguments.only, attempts=3 if arguments.full else 2))
    reports = run(names, full=arguments.full, out=out)
    return 0 if reports else 1


def checked(
    parser: argparse.ArgumentParser, given: list[str], known: tuple[str, ...]
) -> tuple[str, ...]:
    """The benchmarks that were named, all if none were; unknown ones end the program."""
    if unknown := set(given) - set(known):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; of: {', '.join(known)}")
    return tuple(given) or known


def run(names: tuple[str, ...], *, full: bool, out: Path | None = None) -> list[Report]:
    """Run benchmarks one after the other, say what they found, and save it in a folder."""
    reports = []
    for name in names:
        start = time.monotonic()
        report: Report = importlib.import_module(f"benchmarks.{name}").run(full=full)
        if not report.rows and not report.measured:
            for note in report.notes:
                print(f"{name}: {note}")
            continue
        print(report.table())
        print(f"{time.monotonic() - start:.0f} s")
        if out is not None:
            print(f"-> {report.save(out, full=full)}")
        print(flush=True)
        reports.append(report)
    print(
        closing(reports)
        if reports
        else "nothing was measured: no scene has that in its title, or none could run"
    )
    return reports


if __name__ == "__main__":
    sys.exit(main())
