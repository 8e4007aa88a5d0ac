"""``python -m benchmarks [NAME ...] [--full]``: run benchmarks and keep their results as JSON.

``--full`` writes to ``benchmarks/results/``, which the documentation is made from; a short run to
the folder for temporary files. A missed goal is told, and is no failure of the run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import RESULTS, Report

NAMES = (
    "overhead",
    "unary",
    "concurrency",
    "batch",
    "images",
    "streams",
    "embeddings",
    "startup",
    "upload",
)


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--full", action="store_true", help="more repetitions, and keep results")
    parser.add_argument("--out", type=Path, help="folder for the results")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    out = arguments.out or (RESULTS if arguments.full else None)
    if out is None:
        out = Path(tempfile.gettempdir(), "clarigrpc-benchmarks")
    missed = []
    for name in arguments.names or NAMES:
        start = time.monotonic()
        report: Report = importlib.import_module(f"benchmarks.{name}").run(full=arguments.full)
        print(report.table())
        path = report.save(out, full=arguments.full)
        print(f"-> {path} after {time.monotonic() - start:.0f} s\n", flush=True)
        missed += report.missed()
    print(f"{len(missed)} goals missed" if missed else "all goals reached")
    for line in missed:
        print(f"MISSED: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
