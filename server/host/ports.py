"""Ports to listen on, and in words why one cannot be had."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from server.errors import StartFailed


@contextlib.contextmanager
def listening(flag: str, host: str, port: int) -> Iterator[None]:
    """Turn a port that cannot be had into words.

    Args:
        flag: Chooses it.
        host: The address to listen on.
        port: The port.

    Raises:
        StartFailed: It cannot be had.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # gRPC raises RuntimeError
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartFailed(f"cannot listen on {join(host, port)}: {reason}", remedy=_remedy(flag, error)) from None


def _remedy(flag: str, error: OSError | RuntimeError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    # `create_server` makes a plain OSError of a name that is not known: getaddrinfo(3) counts its errors down from 0.
    if number == errno.EADDRNOTAVAIL or (number is not None and number < 0):
        return "give an address of this host with --host: 127.0.0.1, or 0.0.0.0 for all"
    if number == errno.EACCES:
        return f"ports below 1024 are for root; choose another {flag}"
    return f"is another server running? Stop it, or choose another {flag}"


def join(host: str, port: int) -> str:
    """An address with its port; IPv6 addresses have colons of their own."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def probe(host: str, port: int) -> None:
    """Try to listen, and let go: gRPC does not say why it cannot, and writes to stderr on its own."""
    socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
