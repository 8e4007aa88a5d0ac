"""A V2 server that runs locally, to develop and test against without an account.

``LocalServer`` implements the service over gRPC, and over HTTP/JSON with ``rest_port``. Methods
that it does not implement answer UNIMPLEMENTED. ``Faults`` injects failures, ``Limits`` sets limits
for each user. Needs the ``local`` extra.
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
