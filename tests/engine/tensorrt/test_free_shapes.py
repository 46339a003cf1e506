"""Requests of any length on the GPU backend, with a pretended driver and engine. No GPU takes part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.allocate import TensorSlots, allocate
from engine.errors import PlanRejected, RunFailed
from engine.runtime import RuntimeDescription
from engine.slots import RegionTable
from engine.tensorrt.cuda import Gpu
from engine.tensorrt.runtime import TensorRTRuntime
from engine.tensors import TensorSpec
from tests.engine.tensorrt.fake_free_engine import FakeFreeEngine
from tests.engine.tensorrt.fake_gpu import FakeCuda, fake_tensorrt, install


def spec(name: str, size: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=("batch", size))


X, TWICE, PAIRS = spec("x", "length"), spec("twice", "length"), spec("pairs", "pairs_1")
ENGINE = RuntimeDescription(
    "tensorrt",
    "10.3.0.30",
    "gpu",
    "float",
    "fp32",
    (X,),
    (TWICE, PAIRS),
    4,
    "Fake GPU",
    smallest={"length": 2, "pairs_1": 0},
    largest={"length": 9, "pairs_1": 4},
)


@pytest.fixture
def regions() -> Iterator[RegionTable]:
    table = RegionTable()
    yield table
    table.close()


def opened(cuda: FakeCuda, regions: RegionTable, **changes: Any) -> TensorRTRuntime:
    return TensorRTRuntime(b"plan", fake_tensorrt(FakeFreeEngine(cuda, **changes)), Gpu(), ENGINE, regions)


def run(runtime: TensorRTRuntime, slots: TensorSlots, x: Any) -> dict[str, Any]:
    """What the engine makes of `x`, read as the server reads it."""
    batch = slots.shaped({"x": x.shape, "twice": x.shape, "pairs": (x.shape[0], 4)})
    slots.regions.view(batch.inputs["x"])[:] = x
    shapes = runtime.run(batch).shapes
    assert list(shapes) == ["pairs"]
    return {
        "twice": slots.regions.view(batch.outputs["twice"]).copy(),
        "pairs": slots.regions.view(batch.outputs["pairs"].shaped(shapes["pairs"])).copy(),
    }


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("registers", [False, True], ids=["staged", "registered"])
def test_every_request_has_the_shapes_it_came_with(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable, integrated: bool, registers: bool
) -> None:
    cuda = FakeCuda(integrated=integrated)
    install(monkeypatch, cuda, registers)
    runtime = opened(cuda, regions)
    sizes = [(1, 9), (4, 2), (3, 7), (4, 9), (1, 2)]
    with allocate(ENGINE, regions, 4) as slots:
        for number, size in enumerate(sizes):
            x = np.random.default_rng(number).standard_normal(size).astype(np.float32)
            made = run(runtime, slots, x)
            np.testing.assert_array_equal(made["twice"], 2 * x)
            even = 2 * (size[1] // 2)
            np.testing.assert_array_equal(made["pairs"], x[:, 0:even:2] + x[:, 1:even:2])
    copied = [("in", 4 * b * n) for b, n in sizes], [("out", 4 * b * n) for b, n in sizes]
    pairs = [("out", 4 * b * (n // 2)) for b, n in sizes]
    expected = [one for copies in zip(*copied, pairs, strict=True) for one in copies]
    assert cuda.copies == ([] if integrated else expected), "no more than the request has is copied"
    runtime.close()
    assert (cuda.live, cuda.registered, cuda.retained) == ({}, {}, 0)


def test_memory_is_laid_out_once_for_the_largest(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    with allocate(ENGINE, regions, 4) as slots:
        for size in ((1, 2), (4, 9)):
            run(runtime, slots, np.ones(size, np.float32))
            assert runtime.memory().bytes_by_kind["input_output"] == 4 * 4 * (9 + 9 + 4)
    runtime.close()


@pytest.mark.parametrize("length", [1, 10])
def test_what_is_not_served_is_refused_before_the_gpu_sees_it(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable, length: int
) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions)
    with (
        allocate(ENGINE, regions, 4) as slots,
        pytest.raises(RunFailed, match=f"{length} of dimension 'length'; the engine takes 2 to 9"),
    ):
        run(runtime, slots, np.ones((1, length), np.float32))
    assert cuda.copies == []
    runtime.close()


def test_none_of_it_is_copied_where_none_came(monkeypatch: pytest.MonkeyPatch, regions: RegionTable) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    monkeypatch.setitem(ENGINE.smallest, "length", 0)
    runtime = opened(cuda, regions, profile=((1, 0), (2, 5), (4, 9)))
    with allocate(ENGINE, regions, 4) as slots:
        made = run(runtime, slots, np.ones((3, 0), np.float32))
    assert {name: array.shape for name, array in made.items()} == {"twice": (3, 0), "pairs": (3, 0)}
    assert cuda.copies == []
    runtime.close()


@pytest.mark.parametrize(
    ("name", "shape"), [("pairs", (1, 5)), ("pairs", (1, -1)), ("twice", (1, 8)), ("twice", (1, 10)), ("pairs", (4,))]
)
def test_an_output_that_would_not_lie_in_its_slot_is_not_computed(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable, name: str, shape: tuple[int, ...]
) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    runtime = opened(cuda, regions, inferred={name: shape})
    with allocate(ENGINE, regions, 4) as slots, pytest.raises(RunFailed) as caught:
        run(runtime, slots, np.ones((1, 9), np.float32))
    room = [1, 4] if name == "pairs" else [1, 9]
    assert caught.value.message == f"output '{name}' would have shape {list(shape)}, there is room for {room}"
    assert cuda.copies == []
    runtime.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": ((1, 3), (2, 5), (4, 9))}, "the plan takes 3 to 9 of dimension 'length', the manifest 2 to 9"),
        ({"profile": ((1, 1), (2, 5), (4, 8))}, "the plan takes 1 to 8 of dimension 'length', the manifest 2 to 9"),
        ({"profile": ((1, 2), (2, 5), (3, 9))}, "the plan takes batches up to 3, the manifest 4"),
        ({"planned": {"x": (-1, 9)}}, r"x is float32\[-1, 9\] in the plan, float32\[-1, -1\] in the manifest"),
        ({"planned": {"twice": (4, -1)}}, r"twice is float32\[4, -1\] in the plan"),
    ],
)
def test_a_plan_that_takes_less_than_the_manifest_says_is_refused(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable, changes: dict[str, Any], words: str
) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    with pytest.raises(PlanRejected, match=words):
        opened(cuda, regions, **changes)
    assert cuda.retained == 0


def test_a_plan_may_know_what_the_manifest_leaves_to_the_run(
    monkeypatch: pytest.MonkeyPatch, regions: RegionTable
) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    opened(cuda, regions, planned={"pairs": (-1, 4)}).close()
