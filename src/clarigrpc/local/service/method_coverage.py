"""Which methods of V2 the local server has, as a table in Markdown.

``python -m clarigrpc.local.service.method_coverage docs/local-server-methods.md`` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.v2._index import METHODS

WORKS, UNIMPLEMENTED = "works", "UNIMPLEMENTED"

_HEAD = """# Methods of the local server

% Written by `python -m clarigrpc.local.service.method_coverage docs/local-server-methods.md`.

Of the {total} methods of V2, {works} work. The others answer with the gRPC status UNIMPLEMENTED,
over HTTP with 501; none makes results up.

"Stored" says that the general mechanism keeps the resources and nothing else happens: a
deployment is recorded and nothing is deployed.

| Method | Status | How |
| --- | --- | --- |
"""


def status(method: str) -> str:
    """``works`` or ``UNIMPLEMENTED``."""
    return WORKS if V2Service.implements(method) else UNIMPLEMENTED


def table() -> str:
    """The page."""
    rows = []
    for method in METHODS:
        how = ""
        if V2Service.implements(method):
            how = "stored" if V2Service.only_stores(method) else "own logic"
        rows.append(f"| {method} | {status(method)} | {how} |\n")
    works = sum(V2Service.implements(method) for method in METHODS)
    return _HEAD.format(total=len(METHODS), works=works) + "".join(rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table())
