from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from build_engine.errors import BuildError
from build_engine.fuse.fold import fold_constants
from build_engine.fuse.mapped import forget_pages
from build_engine.fuse.skeleton import skeleton

_ROUNDS = 8
_OLDEST_OPSET = 11


def prepare(model: onnx.ModelProto | ir.Model) -> ir.Model:
    """A working copy in which everything constant is an initializer and every shape that can be known is.

    Functions are inlined, Constant nodes become initializers, shape arithmetic is computed, dead nodes go.

    Raises:
        BuildError: The model is invalid, too old, or holds weights that are no finite numbers.
    """
    try:
        onnx.checker.check_model(skeleton(model))
    except onnx.checker.ValidationError as error:
        raise BuildError(
            f"the model is not valid ONNX: {str(error).strip()}",
            remedy="export it again, or run `onnx.checker.check_model` to see where it breaks the standard",
        ) from error
    working = model.clone() if isinstance(model, ir.Model) else ir.serde.deserialize_model(model)
    opset = working.opset_imports.get("", _OLDEST_OPSET)
    if opset < _OLDEST_OPSET:
        raise BuildError(
            f"the model uses operator set {opset}; the oldest that can be fused is {_OLDEST_OPSET}",
            remedy="export it with opset_version=17, or use onnx.version_converter.convert_version(model, 17)",
        )
    common.InlinePass()(working)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(working)
    common.RemoveInitializersFromInputsPass()(working)
    refuse_non_finite(working)
    for _ in range(_ROUNDS):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(working)
        if not fold_constants(working):
            break
    tidy(working)
    return working


def tidy(model: ir.Model) -> None:
    """Removes copies of nothing: identities, dead nodes, unused initializers and outputs nobody reads."""
    for node in list(model.graph):
        # One that makes an output stays: its name belongs to the output, and the source may be one as well.
        source = node.inputs[0] if node.op_type == "Identity" and node.domain == "" else None
        if source is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(source)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)


def refuse_non_finite(model: ir.Model) -> None:
    """Raises a `BuildError` that names the first weight that is not a finite number."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        array = tensor.numpy()
        finite = np.isfinite(array.astype(np.float32) if array.dtype.itemsize < 4 else array)
        forget_pages([value])
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            consumer = next(iter(value.consumers()), None)
            if consumer is not None and consumer.op_type not in _WEIGHTED:
                continue  # -inf is a legitimate constant of a mask or a Pad before a MaxPool
            raise BuildError(
                f"weight '{value.name}' {list(tensor.shape)} holds {array[where]} at {list(where)}",
                remedy="the training diverged or the file is damaged: load an earlier checkpoint",
            )


_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})
