"""``python -m benchmarks.compare REV [NAME ...]``: what a change does to the rows.

Builds another revision of the project beside this checkout and measures clarigrpc in both, slice by
slice in turns, in the scenes of the benchmarks. A ratio is that of this checkout to the revision:
CPU below 1 and rate above 1 are gains. The scenes and scripts are those of this checkout; what the
revision does not have yet is left out, and said.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.__main__ import NAMES, checked, run
from benchmarks.harness import CHOICE, Choice, Revision

GIT = ("git", "-C", str(Path(__file__).parent.parent))


def main() -> int:
    """Compare this checkout with the revision that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("revision", metavar="REV", help="what git calls it: main~3, a tag, a hash")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenes with this in their title"
    )
    parser.add_argument("--full", action="store_true", help="more repetitions")
    arguments = parser.parse_args()
    names = checked(parser, arguments.names, NAMES)
    commit = f"{arguments.revision}^{{commit}}"
    if subprocess.run(
        [*GIT, "rev-parse", "--verify", "--quiet", commit], stdout=subprocess.DEVNULL
    ).returncode:
        parser.error(f"git knows no revision {arguments.revision!r}")
    with _built(arguments.revision) as source:
        against = Revision(arguments.revision, source)
        CHOICE.set(Choice(only=arguments.only, against=against, attempts=2))
        reports = run(names, full=arguments.full)
    return 0 if reports else 1


@contextmanager
def _built(revision: str) -> Iterator[Path]:
    """A folder with the package as an installation of the revision has it."""
    with tempfile.TemporaryDirectory(prefix="clarigrpc-revision-") as folder:
        tree, target = Path(folder, "tree"), Path(folder, "installed")
        print(f"building {revision} ...", file=sys.stderr)
        subprocess.run(
            [*GIT, "worktree", "add", "--quiet", "--detach", str(tree), revision], check=True
        )
        try:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--no-deps", "--target", str(target), str(tree)], check=True)
            yield target
        finally:
            subprocess.run([*GIT, "worktree", "remove", "--force", str(tree)], check=True)


if __name__ == "__main__":
    sys.exit(main())
