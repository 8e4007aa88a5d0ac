"""One small predict after the other: clarigrpc beside REST and the published clients."""

from __future__ import annotations

from benchmarks.harness import Report
from benchmarks.servers import canned, local
from benchmarks.workers import Variant, ours, rest, scene, stub


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("unary")
    rounds = 30 if full else 9
    us, raw = ours("predict"), stub()
    requests, httpx = rest("requests"), rest("httpx")
    published = Variant("published JSON channel", "published", "json_channel", "clarifai-grpc")
    with canned() as (plain, tls):
        if not plain.native:
            report.notes.append("The canned server is in Python: no compiler or no gRPC for C++.")
        variants = [us, raw, requests, httpx, published]
        found = scene(report, "canned", plain, variants, rounds=rounds)
        found.against(requests, "rate", ">= 2.3")
        found.against(httpx, "rate", ">= 1.5")
        found.against(published, "rate", ">= 6")
        found.against(raw, "rate")
        found.against(raw, "cpu")
        found = scene(report, "canned, TLS", tls, [us, raw, requests, httpx], rounds=rounds)
        for reference in (requests, httpx, raw):
            found.against(reference, "rate")
    with local() as server:
        found = scene(
            report,
            "local server",
            server,
            [us, raw, requests, httpx],
            rounds=rounds,
            payload=_picture(),
        )
        for reference in (requests, httpx, raw):
            found.against(reference, "rate")
    return report


def _picture() -> bytes:
    """A small image that the local server's colour model can read."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
