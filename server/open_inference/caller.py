"""Who makes a call, as far as shared memory needs to know."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import unquote

from server.errors import NotSupported
from server.open_inference.socket_owner import socket_owner

_REMEDY = "send the tensors in the request, or call from this host by its loopback address"


class Caller:
    """The other end of a call.

    Args:
        peer: Says what gRPC calls it: `ipv4:127.0.0.1:4711`, `ipv6:%5B::1%5D:4711`. Most calls need not know.
        server_port: The port it is connected to.
    """

    def __init__(self, peer: Callable[[], str], server_port: Callable[[], int]) -> None:
        self._peer = peer
        self._server_port = server_port

    def user(self) -> int:
        """The user that may use its own shared memory here.

        The kernel is asked each time: a port may have passed to another user since the last call.

        Raises:
            NotSupported: It is on another host, or the kernel does not tell.
        """
        kind, _, rest = unquote(self._peer()).partition(":")
        host, _, port = rest.rpartition(":")
        address = host.strip("[]")
        if kind not in ("ipv4", "ipv6") or not ipaddress.ip_address(address).is_loopback:
            raise NotSupported("shared memory is for callers on this host", remedy=_REMEDY)
        family = socket.AF_INET if kind == "ipv4" else socket.AF_INET6
        try:
            return socket_owner(family, address, int(port), self._server_port())
        except OSError as error:
            raise NotSupported(
                f"shared memory needs to know the caller's user, and {error.strerror or error}", remedy=_REMEDY
            ) from None
