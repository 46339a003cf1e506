from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engine.graph import SHAPES_VALUES, with_shapes


def test_shapes_are_those_that_onnx_infers_and_weights_stay(fused_detector: onnx.ModelProto) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(fused_detector)
    del bare.graph.value_info[:]
    assert any(np.prod(tensor.dims) > SHAPES_VALUES for tensor in bare.graph.initializer)
    before = bare.SerializeToString(deterministic=True)
    found = with_shapes(bare)
    assert found.SerializeToString(deterministic=True) == onnx.shape_inference.infer_shapes(bare).SerializeToString(
        deterministic=True
    )
    assert found.graph.value_info and bare.SerializeToString(deterministic=True) == before


def test_a_shape_that_a_constant_holds_is_read() -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    shape = numpy_helper.from_array(np.array([3, 4]), "shape")
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [shape]))
    assert [dim.dim_value for dim in with_shapes(model).graph.output[0].type.tensor_type.shape.dim] == [3, 4]
