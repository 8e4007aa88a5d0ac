"""The lock of a file that one process may use at a time. It ends with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import sys

if sys.platform == "win32":
    import msvcrt

    # Locked bytes cannot be read by others, so one is locked that no file reaches.
    _BEYOND = 0x7FFF_FFFF

    def lock_file(descriptor: int) -> bool:
        """Lock a file; false if it is locked through another descriptor.

        Raises:
            OSError: The file system has no locks.
        """
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def unlock_file(descriptor: int) -> None:
        """Unlock the file. Does nothing if it is not locked through this descriptor."""
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        with contextlib.suppress(PermissionError):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(descriptor: int) -> bool:
        """Lock a file; false if it is locked through another descriptor.

        Raises:
            OSError: The file system has no locks.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_file(descriptor: int) -> None:
        """Unlock the file, also for child processes that have inherited the descriptor."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
