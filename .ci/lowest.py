"""Print the lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

RUNTIME = (
    *("arrays", "cli", "image", "local", "notebook", "oauth", "object-stores", "otel", "rest"),
    *("tables", "video"),
)
_LOWER = re.compile(r"([A-Za-z0-9._-]+)>=([^,]+),<")


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = {*project["dependencies"], *(r for name in RUNTIME for r in extras[name])}
    for requirement in sorted(requirements):
        match = _LOWER.match(requirement)
        if match is None:
            raise SystemExit(f"{requirement} has no lower and upper bound")
        print(f"{match[1]}=={match[2]}")


if __name__ == "__main__":
    main()
