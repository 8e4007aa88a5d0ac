"""A V2 server that runs locally, to develop and test against without an account.

``LocalServer`` implements the service over gRPC, and over HTTP/JSON with ``rest_port``. Methods
that it does not implement answer UNIMPLEMENTED. ``Faults`` injects failures, ``Limits`` sets limits
for each user; ``RecordedCall`` and ``StubAnswers`` are for tests. Needs the ``local`` extra.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarigrpc.local.engine.faults import Faults as Faults
    from clarigrpc.local.engine.injected_fault import InjectedFault as InjectedFault
    from clarigrpc.local.server import LocalServer as LocalServer
    from clarigrpc.local.service.call_recorder import RecordedCall as RecordedCall
    from clarigrpc.local.service.stub_answers import StubAnswers as StubAnswers
    from clarigrpc.local.service.user_limits import Limits as Limits
else:
    from clarigrpc._lazy_names import lazy_names

    # The server brings SQLite, Pillow and NumPy, which importing the package need not pay.
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "clarigrpc.local.engine.faults": ("Faults",),
            "clarigrpc.local.engine.injected_fault": ("InjectedFault",),
            "clarigrpc.local.server": ("LocalServer",),
            "clarigrpc.local.service.call_recorder": ("RecordedCall",),
            "clarigrpc.local.service.stub_answers": ("StubAnswers",),
            "clarigrpc.local.service.user_limits": ("Limits",),
        },
    )
