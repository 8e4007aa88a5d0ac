"""``python -m clarigrpc.cli``: the ``clarigrpc`` command."""

import sys

from clarigrpc.cli import main

sys.exit(main())
