"""Download two real photographs from a package registry: ``python photos.py FOLDER``.

They are part of the wheel of scikit-learn (china.jpg and flower.jpg, 340 KB together, CC BY 2.0).
The wheel is downloaded and read, but not installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "scikit-learn>=1.5,<2"
FOLDER = "sklearn/datasets/images/"


def fetch(folder: Path) -> list[Path]:
    """Write the photographs into ``folder`` and return their paths."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--dest", scratch),
                *("--disable-pip-version-check", REQUIREMENT),
            ],
            check=True,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.startswith(FOLDER) and name.endswith((".jpg", ".txt"))
            ]
            photos = [name for name in names if name.endswith(".jpg")]
            if not photos:
                raise SystemExit(f"photos: {wheel.name} has no photographs in {FOLDER}")
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:  # the text file names the photographers
                (folder / Path(name).name).write_bytes(archive.read(name))
    return sorted(folder / Path(name).name for name in photos)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python photos.py FOLDER")
    try:
        fetch(Path(sys.argv[1]))
    except subprocess.CalledProcessError:
        raise SystemExit(
            "photos: pip could not download the photographs (see its message above);\n"
            "        use make demo IMAGE=path instead"
        ) from None
