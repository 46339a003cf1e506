"""The order of things in the GPU backend, on a driver that is only pretended. No GPU takes part."""

import importlib.util
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.allocate import allocate
from engine.errors import PlanRejected, RunFailed, RuntimeUnavailable
from engine.runtime import Batch, RuntimeDescription
from engine.slots import RegionTable, SlotHandle
from engine.tensorrt.cuda import Gpu, device_facts
from engine.tensorrt.runtime import TensorRTRuntime
from engine.tensors import TensorSpec
from tests.engine.tensorrt.fake_gpu import CudaError, FakeCuda, FakeEngine, fake_tensorrt, install

X = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
Y = TensorSpec(name="y", dtype="float32", shape=("batch", 4))
ENGINE = RuntimeDescription("tensorrt", "10.3.0.30", "gpu", "float", "fp32", (X,), (Y,), 4, "Fake GPU")


@pytest.fixture
def regions() -> Iterator[RegionTable]:
    table = RegionTable()
    yield table
    table.close()


def opened(cuda: FakeCuda, regions: RegionTable, plan: bytes = b"plan", **changes: Any) -> TensorRTRuntime:
    return TensorRTRuntime(plan, fake_tensorrt(FakeEngine(cuda, **changes)), Gpu(), ENGINE, regions)


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("registers", [False, True], ids=["staged", "registered"])
def test_a_batch_is_computed_and_everything_given_back(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable, integrated: bool, registers: bool
) -> None:
    cuda = FakeCuda(integrated=integrated)
    install(monkeypatch, cuda, registers)
    runtime = opened(cuda, regions)
    with allocate(ENGINE, regions, 4) as slots:
        for count in (3, 1, 4):
            slots.view("x")[:] = np.arange(16).reshape(4, 4) + count
            slots.view("y")[:] = -1
            report = runtime.run(slots.batch(count))
            np.testing.assert_array_equal(slots.view("y", count), slots.view("x", count) * 2 + 1)
            assert (slots.view("y")[count:] == -1).all()
            assert report.inference_ns >= 0
    expected = [] if integrated else [(way, count * 16) for count in (3, 1, 4) for way in ("in", "out")]
    assert cuda.copies == expected
    assert bool(cuda.registered) == registers
    runtime.close()
    runtime.close()
    assert (cuda.live, cuda.registered, cuda.retained) == ({}, {}, 0)
    assert not any(cuda.stack.values())


def test_in_place_there_is_nothing_to_copy(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda(integrated=True)
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    with allocate(ENGINE, regions, 1) as slots:
        runtime.run(slots.batch(1))
    assert cuda.live == {}
    assert runtime.memory().bytes_by_kind["input_output"] == 0
    runtime.close()


def test_a_slot_off_the_boundary_is_copied(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda(integrated=True)
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    number = regions.create(4096).number
    x, y = SlotHandle(number, 16, (2, 4), "float32"), SlotHandle(number, 1024 + 64, (2, 4), "float32")
    regions.view(x)[:] = 3
    runtime.run(Batch({"x": x}, {"y": y}))
    assert (regions.view(y) == 7).all()
    runtime.close()


def test_a_removed_region_is_unregistered_before_it_is_unmapped(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable
) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    for _ in range(3):
        with allocate(ENGINE, regions, 1) as slots:
            runtime.run(slots.batch(1))
            assert len(cuda.registered) == 1
    runtime.close()


def test_another_thread_is_refused(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    errors: list[str] = []

    def misuse() -> None:
        with pytest.raises(RunFailed) as running:
            runtime.memory()
        with pytest.raises(RunFailed) as closing:
            runtime.close()
        errors.extend([running.value.message, closing.value.message])

    thread = threading.Thread(target=misuse)
    thread.start()
    thread.join()
    assert errors == ["a GPU engine was used by a thread that did not open it"] * 2
    runtime.close()
    with pytest.raises(RunFailed, match="was closed"):
        runtime.memory()


def test_memory_by_kind(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    with allocate(ENGINE, regions, 1) as slots:
        runtime.run(slots.batch(1))
    assert runtime.memory().bytes_by_kind == {
        "activations": 1000,
        "input_output": 2 * 4 * 16,
        "device_free": 1 << 29,
        "device_total": 1 << 30,
    }
    runtime.close()


def test_an_integrated_gpu_has_the_systems_memory(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda(integrated=True)
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    free = runtime.memory().bytes_by_kind["device_free"]
    assert free not in (0, 1 << 29)
    runtime.close()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"plan": b"unreadable"}, PlanRejected, "cannot read the plan on Fake GPU: magic tag does not match"),
        ({"names": ["x", "z"]}, PlanRejected, r"the plan has \['x', 'z'\], the manifest \['x', 'y'\]"),
        ({"dtype": "HALF"}, PlanRejected, r"x is float16\[-1, 4\] in the plan, float32\[-1, 4\] in the manifest"),
        ({"dtype": "FP4"}, PlanRejected, "x is unknown"),
        ({"shape": (-1, 5)}, PlanRejected, r"x is float32\[-1, 5\] in the plan"),
        ({"largest": 2}, PlanRejected, "the plan takes batches up to 2, the manifest 4"),
        ({"context": False}, RuntimeUnavailable, "no room for the engine on Fake GPU"),
    ],
)
def test_a_plan_of_something_else_is_refused_and_the_gpu_given_back(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    with pytest.raises(kind, match=words):
        opened(cuda, regions, **changes)
    assert cuda.retained == 0
    assert not any(cuda.stack.values())


def test_a_launch_that_fails(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions, launches=False)
    with (
        allocate(ENGINE, regions, 1) as slots,
        pytest.raises(RunFailed, match=r"TensorRT 10\.3\.0\.30 could not launch"),
    ):
        runtime.run(slots.batch(1))
    runtime.close()


def test_a_kernel_that_crashes(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    with allocate(ENGINE, regions, 1) as slots:
        cuda.error = CudaError("an illegal memory access was encountered")
        with pytest.raises(RunFailed, match="CUDA failed on Fake GPU: an illegal memory access") as caught:
            runtime.run(slots.batch(1))
    assert "restart the engine" in caught.value.remedy
    assert not any(cuda.stack.values())
    runtime.close()


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(devices=0))
    with pytest.raises(RuntimeUnavailable, match="there is no GPU number 0"):
        Gpu()


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="PyCUDA is installed")
def test_without_pycuda_there_is_no_gpu() -> None:
    with pytest.raises(RuntimeUnavailable, match="PyCUDA does not load") as caught:
        device_facts()
    assert "monocoque[tensorrt]" in caught.value.remedy


def test_what_a_device_is(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(integrated=True))
    facts = device_facts()
    assert (facts.name, facts.compute_capability, facts.sm_count, facts.integrated) == ("Fake GPU", "8.7", 16, True)
