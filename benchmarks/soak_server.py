"""`python -m server` that gives free memory back on SIGUSR1, so that `benchmarks.soak` sees what is in use.

Freed frames stay with the process on purpose (`server.host.allocator`), in pieces of 6 MB that hide a leak of a few
kilobytes.
"""

from __future__ import annotations

import ctypes
import signal
import sys

from server.__main__ import main


def trim() -> None:
    """Give free memory back to the system. malloc_trim(3)."""
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda _, __: trim())
    sys.exit(main())
