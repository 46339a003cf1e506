from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_engine.load.wire import LARGE_BYTES, without_weights, write_inside, write_outside


def model(*sizes: int) -> onnx.ModelProto:
    """A chain of additions of random vectors of these lengths."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for index, size in enumerate(sizes):
        weights.append(numpy_helper.from_array(random.standard_normal(size).astype(np.float32), f"w{index}"))
        nodes.append(helper.make_node("Add", [f"y{index}", f"w{index}"], [f"y{index + 1}"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("y0", f"y{len(sizes)}"))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def arrays(found: onnx.ModelProto, folder: Path) -> list[np.ndarray]:
    return [numpy_helper.to_array(tensor, str(folder)) for tensor in found.graph.initializer]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=8))
def test_what_is_written_is_what_protobuf_reads(sizes: list[int]) -> None:
    given_model = model(*sizes)
    file = io.BytesIO()
    write_inside(ir.serde.deserialize_model(given_model), file)
    read = onnx.ModelProto.FromString(file.getvalue())
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in read.graph.initializer}
    for tensor in given_model.graph.initializer:
        np.testing.assert_array_equal(weights[tensor.name], numpy_helper.to_array(tensor))
    assert read.graph.node == given_model.graph.node and read.opset_import == given_model.opset_import


def test_large_weights_become_references_into_the_file(tmp_path: Path) -> None:
    data = model(3, LARGE_BYTES, 5, 10 * LARGE_BYTES).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    light = without_weights(memoryview(data), "m.onnx")
    assert [bool(tensor.external_data) for tensor in light.graph.initializer] == [False, True, False, True]
    assert light.ByteSize() < 2000
    for found, expected in zip(arrays(light, tmp_path), arrays(onnx.load_from_string(data), tmp_path), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_outside(tmp_path: Path) -> None:
    given_model = model(3, 4000, 5000)
    with (tmp_path / "m.onnx").open("wb") as file, (tmp_path / "m.data").open("wb") as data:
        write_outside(ir.serde.deserialize_model(given_model), file, data, "m.data")
    assert (tmp_path / "m.data").stat().st_size == 4 * 9000
    onnx.checker.check_model(tmp_path / "m.onnx")
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    for tensor in given_model.graph.initializer:
        np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor))


@given(st.integers(0, 200), st.binary(max_size=20))
def test_a_damaged_file_is_a_value_error_or_a_message(length: int, junk: bytes) -> None:
    data = model(300, 400).SerializeToString()[:length] + junk
    try:
        without_weights(memoryview(data), "m.onnx")
    except Exception as error:
        assert type(error).__name__ in ("ValueError", "DecodeError")


def test_a_file_cut_short_says_where() -> None:
    data = model(3000).SerializeToString()[:-7]
    with pytest.raises(ValueError, match="ends at"):
        without_weights(memoryview(data), "m.onnx")
