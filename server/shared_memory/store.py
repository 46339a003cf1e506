"""The shared memory of all streams: made when a stream opens, given back when it ends, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protos.monocoque.v1 import camera_pb2
from server.errors import LimitReached, OutOfOrder
from server.shared_memory.handover import Handover
from server.shared_memory.region import StreamRegion


class RegionStore:
    """Makes regions and hands them out.

    Args:
        handover: The socket, started; None: no shared memory is handed out.
    """

    def __init__(self, handover: Handover | None) -> None:
        self._handover = handover

    @property
    def socket(self) -> str:
        """Where clients get their descriptors."""
        return "" if self._handover is None else self._handover.address

    async def create(self, cameras: Sequence[camera_pb2.Camera], slots: int) -> StreamRegion:
        """Make the memory of a stream.

        Raises:
            OutOfOrder: None is handed out.
            LimitReached: It cannot be had.
        """
        if self._handover is None:
            raise OutOfOrder(
                "the stream asks for shared memory, and this server was started with --shared-memory-socket off",
                remedy="start it without, or send the frames by gRPC: shared_memory=False",
            )
        # Every page is made at once, which takes 0.3 ms a megabyte: not on the event loop.
        making = asyncio.ensure_future(asyncio.to_thread(StreamRegion, cameras, slots))
        try:
            region = await asyncio.shield(making)
        except asyncio.CancelledError:  # the client left meanwhile
            making.add_done_callback(_close_unwanted)
            raise
        except OSError as error:
            raise LimitReached(
                f"the stream's shared memory cannot be had: {error}",
                remedy="open fewer or smaller cameras, or give the server's container more memory",
            ) from None
        self._handover.offer(region.token, region.fd)
        return region

    def close(self, region: StreamRegion) -> None:
        """Give a stream's memory back."""
        if self._handover is not None:
            self._handover.withdraw(region.token)
        region.close()


def _close_unwanted(making: asyncio.Future[StreamRegion]) -> None:
    if making.exception() is None:
        making.result().close()
