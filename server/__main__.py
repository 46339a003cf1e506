"""`python -m server BUNDLE`."""

from __future__ import annotations

import sys

from server.host.grpc_core import read_where_polled

read_where_polled()  # before gRPC is imported: it looks at its variable then

from server.command import main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
