"""A V2 server of your own, on loopback: to develop and test against without an account.

``LocalServer`` answers over gRPC (and REST) with real work behind it; a method it does not have
answers UNIMPLEMENTED. It needs the ``local`` extra.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarigrpc.local.engine.faults import Faults as Faults
    from clarigrpc.local.server import LocalServer as LocalServer
    from clarigrpc.local.service.user_limits import Limits as Limits
else:
    from clarigrpc._lazy_names import lazy_names

    # The server brings SQLite, Pillow and NumPy, which importing the package need not pay.
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "clarigrpc.local.engine.faults": ("Faults",),
            "clarigrpc.local.server": ("LocalServer",),
            "clarigrpc.local.service.user_limits": ("Limits",),
        },
    )
