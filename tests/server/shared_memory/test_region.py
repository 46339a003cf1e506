"""Slots of one stream as a state machine: no handle reaches past its slot, none is lent twice, no write is missed."""

from __future__ import annotations

import mmap
import os
import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1 import stream_pb2 as pb
from server.shared_memory.region import (
    GENERATION_STRIDE_BYTES,
    PAGE_BYTES,
    BorrowedSlot,
    StreamRegion,
    slots_layout,
)
from server.stream.layout import largest_frame_bytes

CAMERAS = [
    camera_pb2.Camera(id="a", width=64, height=32, encoding=camera_pb2.ENCODING_RGB8),
    camera_pb2.Camera(id="b", width=7, height=3, encoding=camera_pb2.ENCODING_RGB8),
]
SLOTS = 3
numbers = st.one_of(st.integers(0, 2 * SLOTS + 1), st.integers(0, 2**32 - 1))
sizes = st.one_of(st.integers(0, 20_000), st.integers(0, 2**64 - 1))
generations = st.one_of(st.integers(0, 8), st.integers(0, 2**64 - 1))


@pytest.mark.parametrize("slots", [1, 5, 200])
@pytest.mark.parametrize("count", [1, 6, 32])
def test_slots_are_disjoint_aligned_and_large_enough(count: int, slots: int) -> None:
    cameras = [camera_pb2.Camera(id=f"c{n}", width=31 + n, height=17, encoding=3) for n in range(count)]
    laid_out, size_bytes = slots_layout(cameras, slots)
    end = count * slots * GENERATION_STRIDE_BYTES
    for number, (camera, at) in enumerate(zip(cameras, laid_out, strict=True)):
        assert (at.camera_id, at.first_slot, at.slots) == (camera.id, number * slots, slots)
        assert at.offset_bytes >= end
        assert at.offset_bytes % PAGE_BYTES == at.slot_bytes % PAGE_BYTES == 0
        assert at.slot_bytes >= largest_frame_bytes(camera.width, camera.height)
        end = at.offset_bytes + slots * at.slot_bytes
    assert end == size_bytes


class Slots(RuleBasedStateMachine):
    """A server that lends slots, and a client that does as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.region = StreamRegion(CAMERAS, SLOTS)
        self.told = self.region.describe("@nowhere")
        self.fd = os.dup(self.region.fd)
        self.map = mmap.mmap(self.fd, self.told.region_bytes)
        self.stamped = dict.fromkeys(range(2 * SLOTS), 0)
        self.lent: dict[int, BorrowedSlot] = {}
        self.is_closed = False

    def is_in_use(self) -> bool:
        return not self.is_closed or bool(self.lent)

    @precondition(is_in_use)
    @rule(slot=st.integers(0, 2 * SLOTS - 1), generation=generations)
    def stamp(self, slot: int, generation: int) -> None:
        self.stamped[slot] = generation
        at = slot * GENERATION_STRIDE_BYTES
        self.map[at : at + 8] = struct.pack("=Q", generation)

    @precondition(is_in_use)
    @rule(slot=st.integers(0, 2 * SLOTS - 1), value=st.integers(0, 255))
    def write(self, slot: int, value: int) -> None:
        of = self.told.cameras[slot // SLOTS]
        start = of.offset_bytes + (slot - of.first_slot) * of.slot_bytes
        self.map[start : start + of.slot_bytes] = bytes((value,)) * of.slot_bytes

    @rule(slot=numbers, size_bytes=sizes, generation=generations, camera=st.sampled_from("ab"))
    def borrow(self, slot: int, size_bytes: int, generation: int, camera: str) -> None:
        of = self.told.cameras["ab".index(camera)]
        taken = self.region.borrow(pb.SlotHandle(slot=slot, generation=generation, size_bytes=size_bytes), camera)
        makes_sense = (
            of.first_slot <= slot < of.first_slot + of.slots
            and size_bytes <= of.slot_bytes
            and generation % 2 == 0
            and slot not in self.lent
            and not self.is_closed
        )
        if isinstance(taken, str):
            assert not makes_sense, taken
            return
        assert makes_sense
        assert len(taken.pixels) == size_bytes
        assert taken.pixels.readonly
        self.lent[slot] = taken

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.lent:
            self.lent.pop(data.draw(st.sampled_from(sorted(self.lent)))).give_back()

    @rule()
    def close(self) -> None:
        """The stream ends; frames that are in the engine are still read."""
        self.region.close()
        self.is_closed = True

    @invariant()
    def the_memory_goes_with_the_last_frame(self) -> None:
        assert (os.fstat(self.fd).st_blocks > 0) == self.is_in_use()

    @invariant()
    def every_slot_says_whether_it_was_written_to(self) -> None:
        for number, slot in self.lent.items():
            assert slot.intact() == (self.stamped[number] == slot.generation)
            of = self.told.cameras[number // SLOTS]
            start = of.offset_bytes + (number - of.first_slot) * of.slot_bytes
            assert bytes(slot.pixels[:4]) == self.map[start : start + min(4, len(slot.pixels))]

    def teardown(self) -> None:
        self.region.close()
        self.map.close()
        os.close(self.fd)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=25)
