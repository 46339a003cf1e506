"""A model without its weights, for what copies a whole model: the checker and shape inference."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def skeleton(model: onnx.ModelProto | ir.Model) -> onnx.ModelProto:
    """The model with its weights turned into inputs of the same types and shapes."""
    if isinstance(model, ir.Model):
        copy = model.clone()
        for name, value in list(copy.graph.initializers.items()):
            del copy.graph.initializers[name]
            if value not in copy.graph.inputs:
                copy.graph.inputs.append(value)
        return ir.serde.serialize_model(copy)
    graph = onnx.GraphProto(name=model.graph.name, node=model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    known = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in known:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for sparse in model.graph.sparse_initializer:
        values = sparse.values
        graph.input.append(onnx.helper.make_tensor_value_info(values.name, values.data_type, sparse.dims))
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )
