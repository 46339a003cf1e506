from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx_ir.passes import common

from build_engine.fuse.fold import fold_constants
from build_engine.fuse.hoist import hoist
from build_engine.fuse.refuse import refuse_invalid, refuse_unusable_weights
from build_engine.fuse.simplify import simplify

_ROUNDS = 8


def prepare(model: onnx.ModelProto | ir.Model) -> ir.Model:
    """A working copy in which everything constant is an initializer and every shape that can be known is.

    Functions are inlined, Constant nodes become initializers, shape arithmetic is computed, dead nodes go.

    Raises:
        BuildError: The model is invalid, too old, or holds weights that are no finite numbers.
    """
    refuse_invalid(model)
    if isinstance(model, ir.Model):
        working = model.clone()
    else:
        working = ir.serde.deserialize_model(with_dense_initializers(model))
    common.InlinePass()(working)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(working)
    common.RemoveInitializersFromInputsPass()(working)
    refuse_unusable_weights(working)
    for _ in range(_ROUNDS):
        _infer_shapes(working)
        if not fold_constants(working):
            break
    simplify(working)
    for graph in working.graphs():
        hoist(graph)
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


def with_dense_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its sparse initializers written out, which few tools read; itself where it has none."""
    if not model.graph.sparse_initializer:
        return model
    dense = onnx.ModelProto()
    dense.CopyFrom(model)
    for sparse in model.graph.sparse_initializer:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        array = np.zeros(tuple(sparse.dims), dtype=values.dtype)
        if indices.ndim == 1:
            array.reshape(-1)[indices] = values
        else:
            array[tuple(indices.T)] = values
        dense.graph.initializer.append(numpy_helper.from_array(array, sparse.values.name))
    del dense.graph.sparse_initializer[:]
    return dense


def _infer_shapes(model: ir.Model) -> None:
    """Shapes and types of all tensors. The pass takes the element type of a sequence for that of a tensor: undone."""
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for graph in model.graphs():
        for node in graph:
            if node.op_type in _SEQUENCES:
                for output in node.outputs:
                    output.type = output.shape = None


_SEQUENCES = frozenset({"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"})
