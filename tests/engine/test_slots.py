import fcntl
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.allocate import allocate
from engine.runtime import RuntimeDescription
from engine.slots import ALIGNMENT_BYTES, Region, RegionTable, SlotHandle, aligned
from engine.tensors import TensorSpec

PEER = """
import fcntl, mmap, os, sys
fd, task = int(sys.argv[1]), sys.argv[2]
size = os.fstat(fd).st_size
if task == "write":
    with mmap.mmap(fd, size) as memory:
        print(memory[0], memory[size - 1])
        memory[1] = 77
else:
    try:
        {"shrink": lambda: os.ftruncate(fd, 1), "grow": lambda: os.ftruncate(fd, size * 2),
         "unseal": lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)}[task]()
    except PermissionError:
        print("refused")
"""


def peer(region: Region, task: str) -> str:
    """Another process that has the region's descriptor and nothing else."""
    command = [sys.executable, "-c", PEER, str(region.fd), task]
    return subprocess.run(command, pass_fds=(region.fd,), capture_output=True, text=True, check=True).stdout.strip()


def test_another_process_maps_the_descriptor_and_both_see_each_others_bytes() -> None:
    with Region.create(1, 1000) as region:
        view = region.view(SlotHandle(1, 0, (region.size_bytes,), "uint8"))
        view[0], view[-1] = 11, 22
        assert peer(region, "write") == "11 22"
        assert view[1] == 77
        del view


@pytest.mark.parametrize("task", ["shrink", "grow", "unseal"])
def test_another_process_cannot_pull_the_memory_away(task: str) -> None:
    with Region.create(1, 1000) as region:
        assert peer(region, task) == "refused"
        assert region.view(SlotHandle(1, 0, (4,), "uint8")).sum() == 0


def test_memory_that_could_shrink_is_not_mapped(tmp_path: Path) -> None:
    unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 4096)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, 4096)
    for descriptor in (unsealed, file):
        with pytest.raises(ValueError, match="not sealed against shrinking"):
            Region(1, descriptor)
        os.close(descriptor)


def test_a_region_is_whole_from_the_start() -> None:
    with Region.create(1, ALIGNMENT_BYTES * 3 + 1) as region:
        assert region.size_bytes == ALIGNMENT_BYTES * 4
        assert os.fstat(region.fd).st_blocks * 512 >= region.size_bytes
        assert fcntl.fcntl(region.fd, fcntl.F_GET_SEALS) == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert not os.get_inheritable(region.fd)


def test_a_region_of_nothing_still_is_one() -> None:
    with Region.create(1, 0) as region:
        assert region.view(SlotHandle(1, 0, (0, 3), "float32")).shape == (0, 3)


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (SlotHandle(2, 0, (1,), "uint8"), "handle of region 2 used on region 1"),
        (SlotHandle(1, 0, (1025,), "uint8"), "region 1 has 1024"),
        (SlotHandle(1, 1000, (7,), "float32"), "bytes 1000 to 1028"),
        (SlotHandle(1, -4, (1,), "float32"), "bytes -4 to 0"),
        (SlotHandle(1, 0, (-1,), "float32"), r"shape \(-1,\)"),
        (SlotHandle(1, 0, (-2, -3), "float32"), r"shape \(-2, -3\)"),
        (SlotHandle(1, 2, (1,), "float32"), "not aligned"),
        (SlotHandle(1, 0, (1 << 40, 1 << 40), "float64"), "region 1 has 1024"),
        (SlotHandle(1, 0, (1,), "object"), "OBJECT"),
    ],
)
def test_a_handle_outside_its_region_is_refused(handle: SlotHandle, words: str) -> None:
    with Region.create(1, 1024) as region, pytest.raises(ValueError, match=words):
        region.view(handle)


@given(
    offset=st.integers(-64, 2048), count=st.integers(-4, 600), dtype=st.sampled_from(["uint8", "float16", "float32"])
)
def test_a_view_is_inside_the_region_or_there_is_none(offset: int, count: int, dtype: str) -> None:
    with Region.create(1, 1024) as region:
        whole = region.view(SlotHandle(1, 0, (1024,), "uint8"))
        try:
            view = region.view(SlotHandle(1, offset, (count,), dtype))
        except ValueError:
            return
        start = view.ctypes.data - whole.ctypes.data
        assert start == offset or count == 0
        assert start >= 0
        assert start + view.nbytes <= 1024


def test_a_view_writes_to_the_memory_itself() -> None:
    with Region.create(1, 1024) as region:
        region.view(SlotHandle(1, 256, (2, 2), "float32"))[:] = [[1, 2], [3, 4]]
        with mmap.mmap(region.fd, 1024) as memory:
            assert np.frombuffer(memory[256:272], np.float32).tolist() == [1, 2, 3, 4]


def test_a_view_outlives_its_region_and_a_second_close_does_nothing() -> None:
    region = Region.create(1, 1024)
    view = region.view(SlotHandle(1, 0, (4,), "int32"))
    view[:] = 7
    region.close()
    region.close()
    assert view.tolist() == [7, 7, 7, 7]
    with pytest.raises(ValueError, match="region 1 was closed"):
        region.view(SlotHandle(1, 0, (4,), "int32"))


def test_the_first_entries_of_a_slot() -> None:
    handle = SlotHandle(1, 512, (4, 3), "float32")
    assert handle.first(2) == SlotHandle(1, 512, (2, 3), "float32")
    assert handle.size_bytes == 48
    for count in (5, -1):
        with pytest.raises(ValueError, match=f"first {count} entries"):
            handle.first(count)
    with pytest.raises(ValueError, match="first 1 entries"):
        SlotHandle(1, 0, (), "float32").first(1)


@given(st.integers(0, 1 << 40))
def test_alignment(size: Any) -> None:
    assert 0 <= aligned(size) - size < ALIGNMENT_BYTES
    assert aligned(size) % ALIGNMENT_BYTES == 0


def test_a_number_is_never_used_again() -> None:
    regions = RegionTable()
    stale = SlotHandle(regions.create(256).number, 0, (1,), "uint8")
    regions.remove(stale.region)
    assert regions.create(256).number != stale.region
    with pytest.raises(KeyError):
        regions.view(stale)
    regions.close()
    assert len(regions) == 0


def test_a_number_is_taken_once() -> None:
    regions = RegionTable()
    regions.add(Region.create(5, 256))
    with Region.create(5, 256) as other, pytest.raises(ValueError, match="region 5 is already"):
        regions.add(other)
    assert regions.create(256).number == 6
    regions.close()


def test_threads_create_regions_at_once() -> None:
    regions = RegionTable()
    numbers = []
    threads = [
        threading.Thread(target=lambda: numbers.extend(regions.create(256).number for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 201))
    regions.close()


IMAGES = TensorSpec(name="images", dtype="uint8", shape=("batch", 5, 7, 3))
SCORES = TensorSpec(name="scores", dtype="float32", shape=("batch", 9))
ANCHORS = TensorSpec(name="anchors", dtype="int64", shape=(3,))
ENGINE = RuntimeDescription("fake", "0", "cpu", "float", "fp32", (IMAGES,), (SCORES, ANCHORS), 4, "none")


def test_a_batch_has_a_slot_per_tensor_and_none_overlap() -> None:
    regions = RegionTable()
    with allocate(ENGINE, regions, 4) as slots:
        handles = [*slots.inputs.values(), *slots.outputs.values()]
        assert [handle.shape for handle in handles] == [(4, 5, 7, 3), (4, 9), (3,)]
        assert all(handle.offset_bytes % ALIGNMENT_BYTES == 0 for handle in handles)
        for value, name in enumerate(("images", "scores", "anchors"), start=1):
            slots.view(name)[...] = value
        assert [slots.view(name).max() == slots.view(name).min() for name in ("images", "scores", "anchors")]
        assert slots.view("images").max() == 1
    assert len(regions) == 0


def test_a_smaller_batch_cuts_what_is_batched() -> None:
    regions = RegionTable()
    with allocate(ENGINE, regions, 4) as slots:
        batch = slots.batch(2)
        assert batch.inputs["images"].shape == (2, 5, 7, 3)
        assert batch.outputs["anchors"].shape == (3,)
        assert slots.view("scores", 3).shape == (3, 9)
        with pytest.raises(ValueError, match="first 5 entries"):
            slots.batch(5)
        with pytest.raises(KeyError, match="boxes"):
            slots.view("boxes")


@pytest.mark.parametrize("batch", [0, 5])
def test_a_batch_that_the_engine_does_not_take(batch: int) -> None:
    with pytest.raises(ValueError, match=f"a batch of {batch}; the engine takes 1 to 4"):
        allocate(ENGINE, RegionTable(), batch)


def test_a_free_dimension_has_no_slot() -> None:
    free = TensorSpec(name="kept", dtype="int64", shape=("n", 3))
    engine = RuntimeDescription("fake", "0", "cpu", "float", "fp32", (IMAGES,), (free,), 4, "none")
    regions = RegionTable()
    with pytest.raises(ValueError, match="dimension 'n'"):
        allocate(engine, regions, 1)
    assert len(regions) == 0


def test_closing_twice_does_nothing() -> None:
    slots = allocate(ENGINE, RegionTable(), 1)
    slots.close()
    slots.close()
