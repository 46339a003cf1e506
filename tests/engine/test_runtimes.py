"""ONNX Runtime and the fake: what every runtime refuses, and what they compute."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import pytest
from onnx import TensorProto, helper

from engine.allocate import allocate
from engine.checks import check_batch
from engine.errors import BundleInvalid, RunFailed, RuntimeUnavailable
from engine.fake import FakeRuntime
from engine.onnx_runtime import OnnxRuntime
from engine.runtime import Batch, Runtime, RuntimeDescription
from engine.slots import RegionTable, SlotHandle
from engine.tensors import TensorSpec
from tests.engine.graphs import affine, model

X = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
Y = TensorSpec(name="y", dtype="float32", shape=("batch", 4))


def description(
    inputs: tuple[TensorSpec, ...] = (X,), outputs: tuple[TensorSpec, ...] = (Y,), max_batch: int = 4
) -> RuntimeDescription:
    return RuntimeDescription("onnxruntime", "1", "cpu", "float", "fp32", inputs, outputs, max_batch, "cpu")


def double(inputs: Any, outputs: Any) -> None:
    outputs["y"][:] = inputs["x"] * 2 + 1


@pytest.fixture
def regions() -> Iterator[RegionTable]:
    table = RegionTable()
    yield table
    table.close()


@pytest.fixture(params=["onnxruntime", "fake"])
def runtime(request: pytest.FixtureRequest, regions: RegionTable) -> Runtime:
    if request.param == "fake":
        return FakeRuntime(description(), regions, double)
    return OnnxRuntime(affine(2, 1), description(), regions, threads=1)


def test_a_batch_is_computed_in_place(runtime: Runtime, regions: RegionTable) -> None:
    with allocate(description(), regions, 3) as slots:
        slots.view("x")[:] = np.arange(12).reshape(3, 4)
        slots.view("y")[:] = -1
        report = runtime.run(slots.batch(2))
        np.testing.assert_array_equal(slots.view("y", 2), np.arange(8).reshape(2, 4) * 2 + 1)
        assert (slots.view("y")[2] == -1).all()  # beyond the batch nothing is written
        assert report.inference_ns > 0
        assert report.copy_ns == 0


def test_inputs_are_read_and_outputs_written_where_they_lie(runtime: Runtime, regions: RegionTable) -> None:
    """The second run sees new input without new slots: nothing was copied away."""
    with allocate(description(), regions, 1) as slots:
        view = slots.view("y")
        for value in (1.0, 5.0):
            slots.view("x")[:] = value
            runtime.run(slots.batch(1))
            assert (view == value * 2 + 1).all()


def test_slots_taken_in_turns_are_each_their_own(runtime: Runtime, regions: RegionTable) -> None:
    """What a runtime remembers of slots must never answer into others."""
    with allocate(description(), regions, 2) as one, allocate(description(), regions, 2) as other:
        for turn in range(4):
            for slots, value in ((one, turn), (other, 10 + turn)):
                slots.view("x")[:] = value
                runtime.run(slots.batch(1 + turn % 2))
        assert (one.view("y") == 3 * 2 + 1).all()
        assert (other.view("y") == 13 * 2 + 1).all()


def test_slots_that_were_given_back_are_not_computed_with(runtime: Runtime, regions: RegionTable) -> None:
    slots = allocate(description(), regions, 1)
    batch = slots.batch(1)
    runtime.run(batch)
    slots.close()
    with pytest.raises(RunFailed, match="region 1 is unknown"):
        runtime.run(batch)
    with allocate(description(), regions, 1) as again:
        again.view("x")[:] = 2
        runtime.run(again.batch(1))
        assert (again.view("y") == 5).all()


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (SlotHandle(1, 0, (2, 5), "float32"), r"x is float32\[2, 5\], the engine wants float32\[batch, 4\]"),
        (SlotHandle(1, 0, (2, 4), "float64"), r"x is float64\[2, 4\]"),
        (SlotHandle(1, 0, (2, 4, 1), "float32"), r"x is float32\[2, 4, 1\]"),
        (SlotHandle(1, 0, (), "float32"), r"x is float32\[\]"),
        (SlotHandle(1, 0, (0, 4), "float32"), "a batch of 0; the engine takes 1 to 4"),
        (SlotHandle(1, 0, (5, 4), "float32"), "a batch of 5; the engine takes 1 to 4"),
    ],
)
def test_a_wrong_input_is_refused(runtime: Runtime, regions: RegionTable, handle: SlotHandle, words: str) -> None:
    output = SlotHandle(1, 512, (handle.shape[0] if handle.shape else 1, 4), "float32")
    with pytest.raises(RunFailed, match=words) as caught:
        runtime.run(Batch({"x": handle}, {"y": output}))
    assert "inspect BUNDLE" in caught.value.remedy


def test_a_missing_tensor_is_named(runtime: Runtime) -> None:
    handle = SlotHandle(1, 0, (1, 4), "float32")
    with pytest.raises(RunFailed, match="input 'x' has no slot"):
        runtime.run(Batch({}, {"y": handle}))
    with pytest.raises(RunFailed, match="output 'y' has no slot"):
        runtime.run(Batch({"x": handle}, {}))


def test_an_output_of_another_batch_is_refused(runtime: Runtime) -> None:
    batch = Batch({"x": SlotHandle(1, 0, (2, 4), "float32")}, {"y": SlotHandle(1, 512, (3, 4), "float32")})
    with pytest.raises(RunFailed, match=r"y is float32\[3, 4\], the engine wants float32\[batch, 4\] with batch = 2"):
        runtime.run(batch)


def test_a_named_dimension_has_one_size_in_a_run() -> None:
    left = TensorSpec(name="left", dtype="float32", shape=("n", 2))
    right = TensorSpec(name="right", dtype="float32", shape=("n", 3))
    batch = Batch({"left": SlotHandle(1, 0, (5, 2), "float32")}, {"right": SlotHandle(1, 0, (6, 3), "float32")})
    with pytest.raises(RunFailed, match=r"right is float32\[6, 3\], .* with n = 5"):
        check_batch(description((left,), (right,)), batch)


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_a_free_dimension_has_a_size_that_is_served(length: int) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("length",))
    limited = replace(description((spec,), ()), smallest={"length": 2}, largest={"length": 5})
    batch = Batch({"x": SlotHandle(1, 0, (length,), "float32")}, {})
    if 2 <= length <= 5:
        assert check_batch(limited, batch) == 1
    else:
        with pytest.raises(RunFailed, match=f"{length} of dimension 'length'; the engine takes 2 to 5"):
            check_batch(limited, batch)


def test_a_slot_that_is_nowhere(runtime: Runtime, regions: RegionTable) -> None:
    regions.create(256)
    for handle in (SlotHandle(7, 0, (1, 4), "float32"), SlotHandle(1, 250, (1, 4), "float32")):
        with pytest.raises(RunFailed, match="a slot is not usable"):
            runtime.run(Batch({"x": handle}, {"y": SlotHandle(1, 0, (1, 4), "float32")}))


def test_several_inputs_and_outputs_of_several_types(regions: RegionTable) -> None:
    graph = model(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Greater", ["a", "b"], ["more"]),
            helper.make_node("Cast", ["a"], ["half"], to=TensorProto.FLOAT16),
        ],
        [("a", TensorProto.INT64, ["batch", 3]), ("b", TensorProto.INT64, [3])],
        [
            ("sum", TensorProto.INT64, ["batch", 3]),
            ("more", TensorProto.BOOL, ["batch", 3]),
            ("half", TensorProto.FLOAT16, ["batch", 3]),
        ],
    )
    inputs = (
        TensorSpec(name="a", dtype="int64", shape=("batch", 3)),
        TensorSpec(name="b", dtype="int64", shape=(3,)),
    )
    outputs = tuple(
        TensorSpec(name=name, dtype=dtype, shape=("batch", 3))
        for name, dtype in (("sum", "int64"), ("more", "bool"), ("half", "float16"))
    )
    engine = description(inputs, outputs)
    runtime = OnnxRuntime(graph, engine, regions)
    with allocate(engine, regions, 2) as slots:
        slots.view("a")[:] = [[1, 2, 3], [4, 5, 6]]
        slots.view("b")[:] = [3, 3, 3]
        runtime.run(slots.batch(2))
        assert slots.view("sum").tolist() == [[4, 5, 6], [7, 8, 9]]
        assert slots.view("more").tolist() == [[False, False, False], [True, True, True]]
        assert slots.view("half").tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("graph", [b"", b"garbage", affine()[:100]], ids=["empty", "garbage", "truncated"])
def test_a_graph_that_cannot_be_read(graph: bytes, regions: RegionTable) -> None:
    with pytest.raises(RuntimeUnavailable, match="refuses graph 'float'"):
        OnnxRuntime(graph, description(), regions)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (description(inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", 4)),)), "input 'z' .* absent"),
        (description(outputs=(TensorSpec(name="y", dtype="int64", shape=("batch", 4)),)), "output 'y' is int64"),
        (description(outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 5)),)), "output 'y' .*5.*float32"),
        (description(inputs=()), "wants x, which the manifest does not name"),
    ],
)
def test_a_manifest_of_another_graph_is_found_at_once(
    engine: RuntimeDescription, words: str, regions: RegionTable
) -> None:
    with pytest.raises(BundleInvalid, match=words):
        OnnxRuntime(affine(), engine, regions)


def test_an_engine_that_fails_says_so_and_serves_on(regions: RegionTable) -> None:
    """An index out of bounds ends a run, not the runtime."""
    graph = model(
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        [("x", TensorProto.INT64, ["batch"])],
        [("y", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    x = TensorSpec(name="x", dtype="int64", shape=("batch",))
    y = TensorSpec(name="y", dtype="float32", shape=("batch",))
    engine = description((x,), (y,))
    runtime = OnnxRuntime(graph, engine, regions)
    with allocate(engine, regions, 1) as slots:
        slots.view("x")[:] = 99
        with pytest.raises(RunFailed, match=r"ONNX Runtime failed: .*out of data bounds"):
            runtime.run(slots.batch(1))
        slots.view("x")[:] = 2
        runtime.run(slots.batch(1))
        assert slots.view("y").tolist() == [3.0]


def test_a_closed_engine_says_so(regions: RegionTable) -> None:
    runtime = OnnxRuntime(affine(), description(), regions)
    with allocate(description(), regions, 1) as slots:
        runtime.close()
        runtime.close()
        with pytest.raises(RunFailed, match="was closed"):
            runtime.run(slots.batch(1))


def test_memory_by_kind(runtime: Runtime) -> None:
    assert set(runtime.memory().bytes_by_kind) <= {"weights", "activations"}
    assert all(size >= 0 for size in runtime.memory().bytes_by_kind.values())


def test_a_fake_that_raises_is_a_failed_run(regions: RegionTable) -> None:
    def broken(inputs: Any, outputs: Any) -> NoReturn:
        raise ZeroDivisionError("on purpose")

    runtime = FakeRuntime(description(), regions, broken)
    with allocate(description(), regions, 1) as slots, pytest.raises(RunFailed, match="on purpose"):
        runtime.run(slots.batch(1))
    runtime.close()
    assert runtime.closed
