"""The files of a folder of this machine, in the order of their paths, however many they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from pathlib import Path

_ENTRIES_PER_STRETCH = 10_000
"""So many are read or sorted in some ten milliseconds, in which no other thread may run."""


def files_below(folder: Path, prefix: str = "") -> Iterator[Path | None]:
    """The files of a folder and its subfolders, in the order of their paths.

    None comes now and then: who reads may stop there. Links to folders are followed in the folder
    itself only.

    Args:
        folder: The folder.
        prefix: How the names in the folder itself have to begin.

    Raises:
        OSError: The folder or a subfolder cannot be read.
    """
    entered = [(folder, _names_in(folder))]
    passed = 0
    while entered:
        inside, names = entered[-1]
        is_top = len(entered) == 1
        for name in names:
            passed += 1
            if name is None or passed % _ENTRIES_PER_STRETCH == 0:
                yield None
            if name is None or (is_top and not name.startswith(prefix)):
                continue
            entry = inside / name
            if not entry.is_dir():
                yield entry
            elif is_top or not entry.is_symlink():
                entered.append((entry, _names_in(entry)))
                break
        else:
            entered.pop()


def _names_in(folder: Path) -> Iterator[str | None]:
    """The names in a folder, sorted; None comes before them, while it is being read."""
    stretches: list[list[str]] = []
    with os.scandir(folder) as entries:
        while stretch := sorted(entry.name for entry in islice(entries, _ENTRIES_PER_STRETCH)):
            stretches.append(stretch)
            yield None
    yield from merge(*stretches)
