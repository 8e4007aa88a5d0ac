"""``clarigrpc ping``."""

from __future__ import annotations

from typing import Any

from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Output


@client_command()
def ping(output: Output, **settings: Any) -> None:
    """Check that the service can be reached and accepts the credentials.

    Two small requests are sent. The latency is that of the second, on an open connection. If the
    service cannot be reached or rejects the credentials, the exit code is 1.
    """
    with open_client(**settings) as client:
        found = client.ping()
        app_id = client.settings.app_id
    if output.json:
        output.fields(
            {
                "base": found.base,
                "transport": found.transport,
                "user_id": found.user_id,
                "app_id": app_id,
                "latency_seconds": round(found.latency, 6),
                "first_latency_seconds": round(found.first_latency, 6),
                "request_id": found.request_id,
                "versions": dict(found.versions),
            }
        )
        return
    output.fields(
        {
            "Address": f"{found.base} ({found.transport})",
            "User": found.user_id,
            "App": app_id or "none",
            "Latency": f"{found.latency * 1000:.1f} ms, "
            f"{found.first_latency * 1000:.1f} ms with connecting",
            "Versions": ", ".join(f"{name} {one}" for name, one in found.versions.items()),
        }
    )
