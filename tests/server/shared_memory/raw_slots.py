"""Shared memory without our client: the descriptor, the map, and a hand that may write whenever it likes."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

from protos.monocoque.v1 import camera_pb2, stream_pb2
from tests.server.conftest import Running
from tests.server.raw_client import RawStream, camera, pixels


def fetch(path: str, token: bytes) -> tuple[bytes, list[int]]:
    """What the server says, and the descriptors it sends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        connection.send(token)
        said, descriptors, _, _ = socket.recv_fds(connection, 1024, 4)
    return said, descriptors


class RawSlots:
    """A stream with shared memory.

    Attributes:
        granted: What the server said of the memory.
        map: The memory.
        fd: Its descriptor.
    """

    def __init__(self, stream: RawStream, granted: stream_pb2.SharedMemory, fd: int) -> None:
        self.stream = stream
        self.granted = granted
        self.fd = fd
        self.map = mmap.mmap(fd, granted.region_bytes)

    def slots(self, camera_id: str = "front") -> stream_pb2.CameraSlots:
        return next(one for one in self.granted.cameras if one.camera_id == camera_id)

    def write(self, slot: int, data: bytes, generation: int, camera_id: str = "front") -> None:
        """Write a frame as the protocol says."""
        of = self.slots(camera_id)
        self.stamp(slot, generation - 1)
        start = of.offset_bytes + (slot - of.first_slot) * of.slot_bytes
        self.map[start : start + len(data)] = data
        self.stamp(slot, generation)

    def stamp(self, slot: int, generation: int) -> None:
        self.map[slot * 64 : slot * 64 + 8] = struct.pack("=Q", generation)

    async def send(self, sequence: int, camera_id: str = "front", slot: int | None = None, **fields: Any) -> None:
        """Write a frame, and send its handle; fields of the handle may be other than true."""
        number = self.slots(camera_id).first_slot if slot is None else slot
        data = fields.pop("data", pixels())
        generation = fields.pop("generation", 2 * sequence)
        if fields.pop("writes", True):
            self.write(number, data, generation, camera_id)
        await self.hand(sequence, camera_id, number, generation, len(data), **fields)

    async def hand(
        self, sequence: int, camera_id: str, slot: int, generation: int, size_bytes: int, **fields: Any
    ) -> None:
        handle = stream_pb2.SlotHandle(slot=slot, generation=generation, size_bytes=size_bytes)
        fields = {"encoding": camera_pb2.ENCODING_RGB8, "width": 64, "height": 32} | fields
        header = camera_pb2.FrameHeader(camera_id=camera_id, sequence=sequence, **fields)
        await self.stream.send(stream_pb2.StreamFramesRequest(frame=header, slot=handle).SerializeToString())


@contextlib.asynccontextmanager
async def sharing(running: Running, *cameras: camera_pb2.Camera, **fields: Any) -> AsyncIterator[RawSlots]:
    """Open a stream with shared memory, and map it."""
    stream = running.stream()
    opened = await stream.open(cameras or [camera()], shared_memory=True, **fields)
    said, descriptors = await asyncio.to_thread(fetch, opened.shared_memory.socket, opened.shared_memory.token)
    assert said == b"granted"
    (fd,) = descriptors
    slots = RawSlots(stream, opened.shared_memory, fd)
    try:
        yield slots
    finally:
        stream.call.cancel()
        slots.map.close()
        os.close(fd)
