"""Files of folders come in the order of their paths, whatever the folders hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from clarigrpc.local.media import folder_files
from clarigrpc.local.media.folder_files import files_below


@pytest.mark.parametrize("stretch", [1, 2, 10_000])
def test_all_files_come_in_order(
    stretch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_files, "_ENTRIES_PER_STRETCH", stretch)
    for name in ("b/z", "b/a/deep", "b.txt", "a", "c/1", "c/10", "c/2", "b/\udcff", "empty/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty" / "x").unlink()
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    every = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    found = [*files_below(tmp_path)]
    assert [path for path in found if path is not None] == every
    assert found.count(None) >= len(every) // stretch
    some = [path for path in files_below(tmp_path, "b") if path is not None]
    assert some == [path for path in every if path.relative_to(tmp_path).parts[0].startswith("b")]


def test_links_are_followed_in_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    assert [*filter(None, files_below(tmp_path / "here"))] == [tmp_path / "here" / "link" / "file"]
