"""Which methods of V2 the local server implements, as a table in Markdown.

``python -m clarigrpc.local.service.method_coverage docs/local-server-methods.md`` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.v2._index import METHODS

IMPLEMENTED, UNIMPLEMENTED = "implemented", "UNIMPLEMENTED"

_HEAD = """# Methods of the local server

% Written by `python -m clarigrpc.local.service.method_coverage docs/local-server-methods.md`.

The local server implements {works} of the {total} methods of V2. The others answer with the gRPC
status UNIMPLEMENTED, over HTTP with 501. No method makes results up.

"Stored" means that resources are stored and nothing else happens: for example, a deployment is
recorded, but nothing is deployed. For methods that are not implemented, the last column says why.

| Method | Status | Extent |
| --- | --- | --- |
"""

_RETIRED = "today's service answers with UNIMPLEMENTED, too"
_METRICS = "about what runs on hosted clusters"
_REASONS = {
    "DeleteModelMigration": "about the hosted service's own storage",
    "ListMetricLabels": _METRICS,
    "ListPipelineTemplates": "the templates are the hosted service's",
    "ListWorkflowEvaluationTemplates": "the templates are the hosted service's",
    "PostComputePlaneMetrics": _METRICS,
    "PostMetricsQuery": _METRICS,
    "PostModelMigration": "about the hosted service's own storage",
    "PostPipelineVersionRunFromTemplate": "the templates are the hosted service's",
    "PostRunnerReplicaTaskMetrics": _METRICS,
    "StreamLivestreamAnnotations": "there are no live streams among the inputs",
}
"""Why a method is not implemented, for those that today's service has."""


def status(method: str) -> str:
    """``implemented`` or ``UNIMPLEMENTED``."""
    return IMPLEMENTED if V2Service.implements(method) else UNIMPLEMENTED


def table() -> str:
    """The page."""
    rows = []
    for method in METHODS:
        if not V2Service.implements(method):
            how = _REASONS.get(method) or _RETIRED
        else:
            how = "stored" if V2Service.only_stores(method) else "full"
        rows.append(f"| {method} | {status(method)} | {how} |\n")
    works = sum(V2Service.implements(method) for method in METHODS)
    return _HEAD.format(total=len(METHODS), works=works) + "".join(rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table())
