"""A graph in a newer operator set, where a type wants one."""

from __future__ import annotations

import onnx
import onnx.version_converter

from build_engine.errors import BuildError
from build_engine.graph import opset_of


def at_least(model: onnx.ModelProto, opset: int, why: str) -> onnx.ModelProto:
    """The same graph in an operator set that is not older.

    Args:
        model: A graph, every node named.
        opset: The oldest that will do.
        why: What needs it, for the message.

    Raises:
        BuildError: ONNX's converter cannot bring an operator there.
    """
    if opset_of(model) >= opset:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        raise BuildError(
            f"{why} needs ONNX operator set {opset}, and the graph cannot be brought there from "
            f"{opset_of(model)}: {str(error).strip().splitlines()[0][:300]}",
            remedy=f"export the model with operator set {opset} (--opset {opset} for a Python model), "
            "or build with --precision fp16",
        ) from None
    return onnx.shape_inference.infer_shapes(converted, data_prop=True)
