"""Frames in memory that the server made for this stream: it reads them where they were written.

The server hands the memory's descriptor over a Unix socket. The memory is sealed, so neither side can shrink it under
the other. A camera has a few slots; a slot is the server's from the moment its frame is sent until the frame's answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from client.errors import ClientError, ProtocolViolation, Rejected, ServerUnreachable
from client.frames import Image
from protos.monocoque.v1 import stream_pb2

PATIENCE_SECONDS = 5.0
"""For the server to hand the descriptor over."""

GENERATION_STRIDE_WORDS = 8
"""Generations are 64 bytes apart, which is 8 words of 64 bits."""

CLIENT_SLOTS = 2
"""Slots of a camera that stay on this side: one whose frame waits to be sent, one that is being written."""


@dataclass(eq=False)
class Slot:
    """A place for one frame.

    Attributes:
        number: Which slot of the region.
        pixels: (slot bytes,) `uint8`, writable.
    """

    number: int
    pixels: Image
    _generations: memoryview
    _generation: int = 0

    def begin(self) -> None:
        """Say that pixels are being written: whoever still reads finds out."""
        self._generation += 1
        self._publish()
        self._generation += 1

    def finish(self, size_bytes: int) -> stream_pb2.SlotHandle:
        """Say that the pixels are there.

        Args:
            size_bytes: How many bytes.

        Returns:
            What to send.
        """
        self._publish()
        return stream_pb2.SlotHandle(slot=self.number, generation=self._generation, size_bytes=size_bytes)

    def _publish(self) -> None:
        self._generations[self.number * GENERATION_STRIDE_WORDS] = self._generation


class SharedSlots:
    """The slots of a stream, and which of them are free.

    Args:
        region: The mapped memory.
        cameras: Where each camera's slots are.
    """

    def __init__(self, region: mmap.mmap, cameras: Iterable[stream_pb2.CameraSlots]) -> None:
        self._region = region
        words = memoryview(region)[: len(region) // 8 * 8].cast("Q")
        self._free: dict[str, deque[Slot]] = {}
        self._sent: dict[tuple[str, int], Slot] = {}
        self.in_flight = 0
        """Frames of one camera that may be with the server at once."""
        for camera in cameras:
            slots: deque[Slot] = deque()
            for position in range(camera.slots):
                pixels = np.frombuffer(
                    region, np.uint8, camera.slot_bytes, camera.offset_bytes + position * camera.slot_bytes
                )
                slots.append(Slot(camera.first_slot + position, pixels, words))
            self._free[camera.camera_id] = slots
            self.in_flight = camera.slots - CLIENT_SLOTS

    def take(self, camera_id: str) -> Slot | None:
        """A free slot. There is one, as long as `in_flight` is kept and one frame at a time is being written."""
        free = self._free[camera_id]
        return free.popleft() if free else None

    def send(self, camera_id: str, sequence: int, pixels: memoryview, slot: Slot | None) -> stream_pb2.SlotHandle:
        """Hand a frame over; its slot is the server's, until `answered`.

        Args:
            camera_id: The frame's camera.
            sequence: Its number.
            pixels: Its bytes.
            slot: Where they lie; None: they are copied to a free one, the only copy they ever see.

        Returns:
            What to send in place of the pixels.
        """
        if slot is None:
            # The one that came back last: much of it is still in the processor's cache, and nobody reads it any more.
            slot = self._free[camera_id].pop()
            slot.begin()
            slot.pixels[: len(pixels)] = pixels
        self._sent[camera_id, sequence] = slot
        return slot.finish(len(pixels))

    def answered(self, camera_id: str, sequence: int) -> None:
        """The slot is ours again."""
        self.give_back(camera_id, self._sent.pop((camera_id, sequence)))

    def give_back(self, camera_id: str, slot: Slot) -> None:
        """A slot whose frame will not be sent, or was answered."""
        self._free[camera_id].append(slot)

    def close(self) -> None:
        """Unmap the memory, or let it go with the last array over it."""
        self._free.clear()
        self._sent.clear()
        with contextlib.suppress(BufferError):
            self._region.close()


def map_slots(granted: stream_pb2.SharedMemory, address: str) -> SharedSlots:
    """Fetch a stream's memory; waits for the server.

    Args:
        granted: What the server said about it.
        address: The server's, for messages.

    Raises:
        ClientError: The server hands none out, cannot be reached so, or refuses.
    """
    if not granted.token:
        raise Rejected(
            f"the server at {address} hands out no shared memory\n"
            "  → start it without `--shared-memory-socket off`, or stream with shared_memory=False",
            "FAILED_PRECONDITION",
        )
    fd = _fetch(granted, address)
    try:
        _check(granted, fd, address)
        # All pages at once: a fault for each of them would cost the first frames a millisecond.
        region = mmap.mmap(fd, granted.region_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    except OSError as error:
        raise ClientError(f"{granted.region_bytes} bytes of shared memory cannot be mapped: {error}") from None
    finally:
        os.close(fd)
    return SharedSlots(region, granted.cameras)


def _fetch(granted: stream_pb2.SharedMemory, address: str) -> int:
    path = granted.socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            connection.send(granted.token)
            said, descriptors, _, _ = socket.recv_fds(connection, 1024, 1)
    except OSError as error:
        raise ServerUnreachable(
            f"the server at {address} hands out shared memory at {path}, which this process does not reach: {error}\n"
            "  → shared memory is for clients on the server's host; in containers, share --shared-memory-socket PATH\n"
            "  → elsewhere, stream with shared_memory=False"
        ) from None
    if not descriptors:
        raise Rejected(
            f"the server at {address} refuses shared memory: {said.decode(errors='replace') or 'without a word'}"
            "\n  → stream with shared_memory=False, or run the client as the server's user",
            "PERMISSION_DENIED",
        )
    return descriptors[0]


def _check(granted: stream_pb2.SharedMemory, fd: int, address: str) -> None:
    """Raise `ProtocolViolation` unless the memory is what the server said, and cannot shrink."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:  # not a memfd
        seals = 0
    size = os.fstat(fd).st_size
    ends = [camera.offset_bytes + camera.slots * camera.slot_bytes for camera in granted.cameras]
    ends += [(camera.first_slot + camera.slots) * GENERATION_STRIDE_WORDS * 8 for camera in granted.cameras]
    if not seals & fcntl.F_SEAL_SHRINK or size < granted.region_bytes or max(ends, default=0) > granted.region_bytes:
        raise ProtocolViolation(
            f"the shared memory of {address} is not what it says: {size} bytes, seals {seals:#x}, "
            f"{granted.region_bytes} bytes announced, slots up to byte {max(ends, default=0)}"
        )
