from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from build_engine.errors import BuildError
from build_engine.graph import dimensions, feeds, opset_of, tensor_specs
from build_engine.load.onnx_file import load_onnx
from build_engine.load.shapes import InputShape, parse_shape


def save(path: Path, sizes: list[int | str | None], opset: int = 18) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("first", ["N", "batch_size", None])
def test_the_free_first_dimension_is_called_batch_whatever_the_exporter_called_it(
    first: str | None, tmp_path: Path
) -> None:
    model, _ = load_onnx(save(tmp_path / "m.onnx", [first, 3, 8, 8]), (), None)
    assert tensor_specs(feeds(model))[0].shape == ("batch", 3, 8, 8)
    assert tensor_specs(list(model.graph.output))[0].shape == ("batch", 3, 8, 8)


@pytest.mark.parametrize("unknown", [None, "N", -1], ids=["nothing", "a name", "-1"])
def test_a_batch_that_inference_loses_is_found_by_running_two(unknown: int | str | None, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    outputs = [helper.make_tensor_value_info("flat", TensorProto.FLOAT, [unknown, 192])]
    outputs.append(helper.make_tensor_value_info("total", TensorProto.FLOAT, [None, 192]))
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 192])
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "rows"], ["total"], keepdims=1),
    ]
    rows = helper.make_tensor("rows", TensorProto.INT64, [1], [0])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], outputs, [shape, rows]), ir_version=8)
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "m.onnx")
    loaded, _ = load_onnx(tmp_path / "m.onnx", (), None)
    assert [dimensions(value) for value in loaded.graph.output] == [("batch", 192), (1, 192)]


@pytest.mark.parametrize("listing", [False, True])
def test_a_size_that_inference_loses_is_measured_unless_it_may_depend_on_the_data(
    listing: bool, tmp_path: Path
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    outputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", "M", 48])]
    nodes = [
        helper.make_node("Shape", ["x"], ["half"], start=3),
        helper.make_node("Cast", ["half"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "factor"], ["fewer"]),
        helper.make_node("Cast", ["fewer"], ["count"], to=TensorProto.INT64),
        helper.make_node("Concat", ["any", "count", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["rows"]),
    ]
    if listing:
        nodes.append(helper.make_node("NonZero", ["rows"], ["places"]))
        outputs.append(helper.make_tensor_value_info("places", TensorProto.INT64, [3, "P"]))
    fixed = [helper.make_tensor("factor", TensorProto.FLOAT, [1], [0.5])]
    fixed += [helper.make_tensor(name, TensorProto.INT64, [1], [size]) for name, size in (("any", -1), ("width", 48))]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], outputs, fixed), ir_version=8)
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "m.onnx")
    loaded, _ = load_onnx(tmp_path / "m.onnx", (), None)
    found = dimensions(loaded.graph.output[0])
    assert found[0] == "batch" and found[2] == 48
    assert (found[1] == 4) != listing, found


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    model, _ = load_onnx(save(tmp_path / "m.onnx", [1, 3, 8, 8]), (), None)
    assert dimensions(feeds(model)[0]) == (1, 3, 8, 8)


def test_free_sizes_can_be_given(tmp_path: Path) -> None:
    model, _ = load_onnx(save(tmp_path / "m.onnx", ["N", 3, "H", "W"]), [parse_shape("1,3,32,48")], None)
    assert tensor_specs(list(model.graph.output))[0].shape == ("batch", 3, 32, 48)


@pytest.mark.parametrize("shape", ["1,4,8,8", "1,3,8", "other=1,3,8,8"])
def test_a_shape_that_does_not_fit_is_refused(shape: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        load_onnx(save(tmp_path / "m.onnx", ["N", 3, "H", "W"]), [parse_shape(shape)], None)


def test_an_old_opset_is_raised_to_one_that_can_be_quantized(tmp_path: Path) -> None:
    model, _ = load_onnx(save(tmp_path / "m.onnx", [1, 4], opset=9), (), None)
    assert opset_of(model) == 13


def test_external_weights_are_read_and_their_absence_is_said(classifier: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(classifier)
    onnx.save(copy, path, save_as_external_data=True, location="m.data", size_threshold=0)
    model, digest = load_onnx(path, (), None)
    assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) > 10_000
    assert len(digest) == 64
    (tmp_path / "m.data").unlink()
    with pytest.raises(BuildError, match="outside the file"):
        load_onnx(path, (), None)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" + b"\xff" * 60])
def test_what_is_no_model_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=r"broken\.onnx"):
        load_onnx(path, (), None)


def test_a_truncated_model_is_an_error(classifier_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(classifier_file.read_bytes()[:-5000])
    with pytest.raises(BuildError, match=r"half\.onnx"):
        load_onnx(path, (), None)


def test_an_unnamed_shape_for_several_inputs_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", values[:2], values[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(BuildError, match="without a name"):
        load_onnx(tmp_path / "m.onnx", [InputShape(None, (1, 4))], None)
