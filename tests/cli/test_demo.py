"""``demo/demo.py``, which ``make demo`` runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "demo" / "demo.py"


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_demo(photo: Path) -> None:
    done = _demo(str(photo))
    assert (done.returncode, done.stderr) == (0, "")
    assert "75.0%  #ff0000  Red" in done.stdout
    assert "40 x 40 PNG" in done.stdout
    rows = [line for line in done.stdout.splitlines() if "gRPC  " in line or "REST  " in line]
    rates = [int(row.split("│")[2]) for row in rows]
    assert len(rates) == 2
    assert min(rates) > 0


def test_demo_of_something_else(tmp_path: Path) -> None:
    missing = _demo(str(tmp_path / "missing.png"))
    assert missing.returncode == 1
    assert "there is no such file" in missing.stderr
    (tmp_path / "text.png").write_text("no image")
    wrong = _demo(str(tmp_path / "text.png"))
    assert wrong.returncode == 1
    assert "not an image that can be decoded" in wrong.stderr
    assert "Traceback" not in missing.stderr + wrong.stderr
