"""`python -m server` that gives free memory back on SIGUSR1, so that `benchmarks.soak` sees what is in use.

Freed memory stays with the process on purpose (`server.host.allocator`), in pieces that hide a leak of a few kilobytes;
and what a stream leaves in reference cycles waits for the next collection.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys

from server.__main__ import main


def trim() -> None:
    """Collect garbage, and give free memory back to the system. malloc_trim(3)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda _, __: trim())
    sys.exit(main())
