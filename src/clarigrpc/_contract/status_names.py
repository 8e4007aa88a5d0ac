"""Names of the V2 status codes."""

from __future__ import annotations

from clarigrpc import v2


def code_name(code: int) -> str:
    """Name of a V2 status code, ``MODEL_DOES_NOT_EXIST`` say; UNKNOWN for a newer one."""
    value = v2.StatusCode.DESCRIPTOR.values_by_number.get(code)
    return value.name if value is not None else "UNKNOWN"
