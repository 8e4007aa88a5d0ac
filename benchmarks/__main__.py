"""``python -m benchmarks [NAME ...] [--full]``: run benchmarks and keep their results as JSON."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import benchmarks
from benchmarks.harness import Report


def available() -> list[str]:
    """Names of the modules that have a ``run`` function."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    helpers = {"__main__", "harness", "servers"}
    return sorted(name for name in names if name not in helpers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(available())}")
    parser.add_argument("--full", action="store_true", help="more repetitions")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(available())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    missed = []
    for name in arguments.names or available():
        report: Report = importlib.import_module(f"benchmarks.{name}").run(full=arguments.full)
        print(report.table())
        path = report.save(Path(__file__).parent / "results")
        print(f"-> {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}\n")
        missed += report.missed()
    for line in missed:
        print(f"goal missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
