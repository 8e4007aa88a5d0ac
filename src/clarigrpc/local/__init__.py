"""A V2 server of your own, on loopback: to develop and test against without an account.

``LocalServer`` answers over gRPC (and REST) with real work behind it; a method it does not have
answers UNIMPLEMENTED. It needs the ``local`` extra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarigrpc.local.engine.faults import Faults as Faults
    from clarigrpc.local.server import LocalServer as LocalServer
    from clarigrpc.local.service.user_limits import Limits as Limits

__all__ = ["Faults", "Limits", "LocalServer"]


_MODULES = {"Faults": "engine.faults", "Limits": "service.user_limits", "LocalServer": "server"}


def __getattr__(name: str) -> Any:
    # Lazy: the server brings SQLite, Pillow and NumPy, which importing the package need not pay.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
