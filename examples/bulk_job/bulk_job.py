"""Predict all pictures of a folder, and go on where it stopped: ``bulk_job.py FOLDER RESULTS``.

RESULTS is a file of JSON lines, ``{"file": ..., "concepts": {...}}`` or ``{"file": ..., "error":
...}``. Files that have concepts in it are skipped, so the same command goes on after Ctrl-C, a
crash or a full disk, and tries again what failed. Ends with
0 if every file has concepts, with 1 if not.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clarigrpc import Client

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def pictures(folder: Path) -> list[Path]:
    """The pictures of a folder and the folders in it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def results(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file of results; cuts off a line that a crash left unfinished."""
    if not path.exists():
        return
    with path.open("rb+") as lines:
        end = 0
        for line in lines:
            if not line.endswith(b"\n"):
                lines.truncate(end)
                return
            end += len(line)
            yield json.loads(line)


def run(folder: Path, out: Path, model_id: str) -> int:
    """Predict what is left. Returns how many files failed."""
    done = {one["file"] for one in results(out) if "error" not in one}
    left = [path for path in pictures(folder) if str(path.relative_to(folder)) not in done]
    user_id, app_id, name = model_id.split("/")
    failed = 0
    with Client() as client, out.open("a") as lines:
        model = client.model(name, user_id=user_id, app_id=app_id)
        # Paths, not contents: a file that cannot be read is a result with an error. In the order
        # in which they are ready: each is written at once, so nothing that was paid for is lost.
        for result in model.predict_many(left, ordered=False, progress=sys.stderr.isatty()):
            line: dict[str, Any] = {"file": str(left[result.index].relative_to(folder))}
            if result.error is not None:
                line["error"] = str(result.error)
                failed += 1
            else:
                concepts = result.output.data.concepts
                line["concepts"] = {one.name: round(one.value, 4) for one in concepts}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
    print(f"{len(left) - failed} predicted, {failed} failed, {len(done)} done before")
    return failed


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", default="clarifai/main/general-image-recognition")
    arguments = parser.parse_args()
    # End as with Ctrl-C when a scheduler says so: calls are cancelled, written lines stay.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        return 1 if run(arguments.folder, arguments.results, arguments.model) else 0
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
