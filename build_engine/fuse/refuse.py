"""Models that cannot be fused, told before anything is done to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from build_engine.errors import BuildError
from build_engine.fuse.mapped import forget_pages
from build_engine.fuse.skeleton import skeleton

OLDEST_OPSET = 11
# Infinity is a legitimate constant of a mask or of a Pad before a MaxPool; a weight of these is never infinite.
_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})


def refuse_invalid(model: onnx.ModelProto | ir.Model) -> None:
    """Refuses what breaks the standard.

    Raises:
        BuildError: The checker or shape inference finds something wrong, or the operator set is too old.
    """
    bare = skeleton(model)
    try:
        onnx.checker.check_model(bare)
    except onnx.checker.ValidationError as error:
        raise BuildError(
            f"the model is not valid ONNX: {str(error).strip()}",
            remedy="export it again, or run `onnx.checker.check_model` to see where it breaks the standard",
        ) from error
    opset = max((entry.version for entry in bare.opset_import if entry.domain in ("", "ai.onnx")), default=OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise BuildError(
            f"the model uses operator set {opset}; the oldest that can be fused is {OLDEST_OPSET}",
            remedy="export it with opset_version=17, or use onnx.version_converter.convert_version(model, 17)",
        )
    try:
        onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise BuildError(
            f"the model's shapes or types contradict each other: {str(error).strip()}",
            remedy="export it again, or run `onnx.shape_inference.infer_shapes(model, strict_mode=True)` to see where",
        ) from error


def refuse_unusable_weights(model: ir.Model) -> None:
    """Refuses weights that are not there or are no finite numbers, bodies of loops and conditionals included.

    Raises:
        BuildError: Names the first such weight.
    """
    for value, tensor in _float_constants(model):
        try:
            array = tensor.numpy()
        except (OSError, ValueError) as error:
            raise BuildError(
                f"weight '{value.name}' {list(tensor.shape)} lies outside the model and cannot be read: {error}",
                remedy="put the external data file beside the model, or load it with onnx.load(path)",
            ) from error
        numbers = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        wrong = ~np.isfinite(numbers) if _WEIGHTED & {n.op_type for n in value.consumers()} else np.isnan(numbers)
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise BuildError(
                f"weight '{value.name}' {list(tensor.shape)} holds {array[where]} at {list(where)}",
                remedy="the training diverged or the file is damaged: load an earlier checkpoint",
            )
        forget_pages([value])


def _float_constants(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype.is_floating_point():
                yield value, tensor
