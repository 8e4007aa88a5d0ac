"""Which methods of V2 the local server implements, as a page in Markdown.

``python -m clarigrpc.local.service.method_coverage docs/local-server-methods.md`` writes it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.v2._index import METHODS

IMPLEMENTED, UNIMPLEMENTED = "implemented", "UNIMPLEMENTED"

_PAGE = """# Methods of the local server

% Written by `python -m clarigrpc.local.service.method_coverage docs/local-server-methods.md`.

The local server implements {works} of the {total} methods of V2. The others answer with the gRPC
status UNIMPLEMENTED, over HTTP with 501. No method makes results up.

## Not implemented

{missing}

## Resources are stored, and nothing else happens

For example, a collector is recorded, but collects nothing.

{stored}

## Implemented

{full}
"""

_RETIRED = "today's service answers with UNIMPLEMENTED, too"
_METRICS = "about what runs on hosted clusters"
_REASONS = {
    "DeleteModelMigration": "about the hosted service's own storage",
    "ListPipelineTemplates": "the templates are the hosted service's",
    "ListWorkflowEvaluationTemplates": "the templates are the hosted service's",
    "PostComputePlaneMetrics": _METRICS,
    "PostModelMigration": "about the hosted service's own storage",
    "PostPipelineVersionRunFromTemplate": "the templates are the hosted service's",
    "PostRunnerReplicaTaskMetrics": _METRICS,
    "StreamLivestreamAnnotations": "there are no live streams among the inputs",
}
"""Why a method is not implemented, for those that today's service has."""


def status(method: str) -> str:
    """``implemented`` or ``UNIMPLEMENTED``."""
    return IMPLEMENTED if V2Service.implements(method) else UNIMPLEMENTED


def reason(method: str) -> str:
    """Why a method is not implemented."""
    return _REASONS.get(method) or _RETIRED


def extent(method: str) -> str:
    """What the local server does of a method, in a few words."""
    if not V2Service.implements(method):
        return f"{UNIMPLEMENTED}: {reason(method)}"
    return "stores the resources only" if V2Service.only_stores(method) else "full"


def page() -> str:
    """The page, each method in one of its lists."""
    works = [method for method in METHODS if V2Service.implements(method)]
    stored = [method for method in works if V2Service.only_stores(method)]
    return _PAGE.format(
        total=len(METHODS),
        works=len(works),
        missing="\n".join(f"- {one}: {reason(one)}" for one in METHODS if one not in works),
        stored=_listed(stored),
        full=_listed(method for method in works if method not in stored),
    )


def _listed(methods: Iterable[str]) -> str:
    return textwrap.fill(", ".join(methods), 100)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
