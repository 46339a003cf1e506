"""The shared memory of one stream: which slot is whose, and whether it was written to while it was read.

A seqlock per slot (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012): the writer,
the client, never waits, and the reader finds out afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from engine.slots import Region, SlotHandle
from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1 import stream_pb2 as pb
from server.stream.layout import largest_frame_bytes

GENERATION_STRIDE_BYTES = 64
"""One cache line per generation: a writer of one slot does not slow the reader of another."""
PAGE_BYTES = 4096
TOKEN_BYTES = 32


def slots_layout(cameras: Sequence[camera_pb2.Camera], slots: int) -> tuple[list[pb.CameraSlots], int]:
    """Lay out the slots of a stream.

    Args:
        cameras: The stream's.
        slots: Of each camera.

    Returns:
        Where each camera's slots are, and the bytes of it all: a generation per slot, then the slots, each at the
        start of a page.
    """
    offset = _pages(len(cameras) * slots * GENERATION_STRIDE_BYTES)
    laid_out = []
    for position, camera in enumerate(cameras):
        slot_bytes = _pages(largest_frame_bytes(camera.width, camera.height))
        laid_out.append(
            pb.CameraSlots(
                camera_id=camera.id,
                first_slot=position * slots,
                slots=slots,
                offset_bytes=offset,
                slot_bytes=slot_bytes,
            )
        )
        offset += slots * slot_bytes
    return laid_out, offset


@dataclass(frozen=True, eq=False)
class BorrowedSlot:
    """A slot from its frame's submission to its answer.

    Attributes:
        number: Which slot.
        pixels: The frame's bytes, where they lie; read only.
        generation: Of the slot, as its handle says.
    """

    number: int
    pixels: memoryview
    generation: int
    _now: memoryview
    _region: StreamRegion

    def intact(self) -> bool:
        """Whether nothing was written since the frame was sent."""
        return bool(self._now[0] == self.generation)

    def give_back(self) -> None:
        """The frame was answered: the slot is the client's again."""
        self._region.returned(self.number)


class StreamRegion:
    """The sealed memory of one stream. The client maps it too; nobody can shrink it.

    What the client writes there is not to be trusted: it may change at any time, also between a check and a use.

    Args:
        cameras: The stream's.
        slots: Of each camera.

    Raises:
        OSError: The memory cannot be had.

    Attributes:
        token: Whoever has it, and is of our user, may have the descriptor, once.
    """

    def __init__(self, cameras: Sequence[camera_pb2.Camera], slots: int) -> None:
        self.token = secrets.token_bytes(TOKEN_BYTES)
        laid_out, size_bytes = slots_layout(cameras, slots)
        self._cameras = {camera.camera_id: camera for camera in laid_out}
        self._region = Region.create(1, size_bytes)
        self._borrowed: set[int] = set()
        self._is_closed = False

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return self._region.fd

    def describe(self, socket: str) -> pb.SharedMemory:
        """What the client needs to know.

        Args:
            socket: Where the descriptor can be had.
        """
        return pb.SharedMemory(
            socket=socket,
            token=self.token,
            region_bytes=self._region.size_bytes,
            cameras=self._cameras.values(),
        )

    def borrow(self, handle: pb.SlotHandle, camera_id: str) -> BorrowedSlot | str:
        """Take a slot over from the client; or say why not.

        Args:
            handle: As it came.
            camera_id: A camera of the stream.
        """
        if self._is_closed:
            return "the stream has ended, and its shared memory with it"
        slots = self._cameras[camera_id]
        position = handle.slot - slots.first_slot
        if not 0 <= position < slots.slots:
            last = slots.first_slot + slots.slots - 1
            return f"slot {handle.slot} is not one of camera {camera_id}: those are {slots.first_slot} to {last}"
        if handle.size_bytes > slots.slot_bytes:
            return f"{handle.size_bytes} bytes of pixels, a slot of camera {camera_id} has {slots.slot_bytes}"
        if handle.generation % 2:
            return f"generation {handle.generation} of slot {handle.slot} is odd: it says that it is being written"
        if handle.slot in self._borrowed:
            return f"slot {handle.slot} is the server's until the frame that it holds was answered"
        self._borrowed.add(handle.slot)
        return BorrowedSlot(
            number=handle.slot,
            pixels=self._bytes(slots.offset_bytes + position * slots.slot_bytes, handle.size_bytes).toreadonly(),
            generation=handle.generation,
            _now=self._bytes(handle.slot * GENERATION_STRIDE_BYTES, 8).toreadonly().cast("Q"),
            _region=self,
        )

    def returned(self, slot: int) -> None:
        """A slot's frame was answered."""
        self._borrowed.discard(slot)
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Lend no more, and give the memory back with the last frame in it, even if the client keeps its map."""
        self._is_closed = True
        if not self._borrowed:
            self._region.discard()
            self._region.close()

    def _bytes(self, offset_bytes: int, size_bytes: int) -> memoryview:
        return self._region.view(SlotHandle(1, offset_bytes, (size_bytes,), "uint8")).data


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
