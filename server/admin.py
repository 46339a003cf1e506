"""What an operator may do to a running server: swap an engine for another one. From the server's own host only."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from engine.errors import EngineError
from protos.monocoque.v1 import admin_pb2 as pb
from server.core import Core
from server.errors import StartFailed, ending

ADMIN_SERVICE = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
LOCAL_PEERS = ("ipv4:127.", "ipv6:%5B::1%5D:", "ipv6:[::1]:", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.", "unix:")
"""What gRPC calls a peer on this host, with and without the brackets escaped."""


class AdminService:
    """The handlers of `AdminService`.

    Args:
        core: What they change.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handlers, on bytes as everything else."""
        return grpc.method_handlers_generic_handler(
            ADMIN_SERVICE, {"SwapEngine": grpc.unary_unary_rpc_method_handler(self._swap_engine)}
        )

    async def _swap_engine(self, request: bytes, context: Any) -> bytes:  # noqa: ANN401 - see service.Context
        if not is_local(context.peer()):
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"engines are swapped from the server's own host, not from {context.peer()} → use 127.0.0.1",
            )
        try:
            asked = pb.SwapEngineRequest.FromString(request)
            return (await self._core.swap(asked.name, asked.version, asked.bundle)).SerializeToString()
        except (EngineError, StartFailed) as error:
            refused = grpc.StatusCode.FAILED_PRECONDITION, f"{error.message} → {error.remedy}"
        except Exception as error:
            refused = ending(error)
        await context.abort(*refused)
        raise AssertionError("abort raises")


def is_local(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on this host."""
    return peer.startswith(LOCAL_PEERS)
