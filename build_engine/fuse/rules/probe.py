"""What a graph computes from nothing but the size of its batch, worked out for a few sizes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from build_engine.fuse.algebra import NotExact, Reason
from build_engine.fuse.rules.site import Constant

BATCHES = (1, 2, 3, 4, 5, 8, 16)
_MOST_NODES = 400


def probed(value: ir.Value | None, opset: int) -> dict[int, Constant]:
    """A tensor's value for each batch of `BATCHES` for which it has one.

    It may have none: a trace may have written down the size of the batch it saw. For others such a graph fails.

    1. It is computed from constants and from shapes alone.
    2. Of these shapes nothing is open but the first size, the batch.

    Raises:
        NotExact: One of the two does not hold, or the reference implementation cannot compute it.
    """
    if value is None:
        raise NotExact(Reason.OPERATOR, "an input is left out")
    nodes: list[ir.Node] = []
    shapes: dict[ir.Value, ir.Node] = {}
    constants: dict[ir.Value, Constant] = {}
    _collect(value, nodes, shapes, constants)
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "probe",
        [onnx.helper.make_value_info(str(v.name), onnx.TypeProto()) for v in (*shapes, *constants)],
        [onnx.helper.make_value_info(str(value.name), onnx.TypeProto())],
    )
    single = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    fixed: dict[str, Constant] = {str(v.name): array for v, array in constants.items()}
    results: dict[int, Constant] = {}
    for batch in BATCHES:
        sizes: dict[str, Constant] = {str(v.name): _sizes(shape, batch) for v, shape in shapes.items()}
        try:
            results[batch] = np.asarray(next(iter(ReferenceEvaluator(single).run(None, {**fixed, **sizes}))))
        except Exception:  # noqa: S112 (it raises whatever numpy raises; the graph cannot run with this batch)
            continue
    if not results:
        raise NotExact(Reason.OPERATOR, f"'{value.name}' cannot be worked out beforehand")
    return results


def _collect(
    value: ir.Value, nodes: list[ir.Node], shapes: dict[ir.Value, ir.Node], constants: dict[ir.Value, Constant]
) -> None:
    """Sorts what a tensor depends on into nodes, in order, shapes of tensors of data, and constants."""
    seen: set[ir.Value] = set()
    pending = [(value, False)]
    while pending:
        current, done = pending.pop()
        node = current.producer()
        if done:
            if node is not None and node not in nodes:
                nodes.append(node)
            continue
        if current in seen:
            continue
        seen.add(current)
        if current.const_value is not None:
            constants[current] = current.const_value.numpy()
        elif node is None or len(nodes) > _MOST_NODES or len(pending) > _MOST_NODES:
            raise NotExact(Reason.OPERATOR, f"'{current.name}' is computed at run time")
        elif node.op_type == "Shape" and _is_of_data(node):
            shapes[current] = node
        else:
            pending.append((current, True))
            pending.extend((read, False) for read in node.inputs if read is not None)


def _is_of_data(shape: ir.Node) -> bool:
    """Whether a Shape node asks for sizes of an image rather than of another list of positions."""
    of = shape.inputs[0]
    return of is not None and of.dtype is not None and of.dtype.is_floating_point()


def _sizes(node: ir.Node, batch: int) -> Constant:
    of = node.inputs[0]
    if of is None or of.shape is None or any(not isinstance(dim, int) for dim in list(of.shape)[1:]):
        raise NotExact(Reason.UNKNOWN_SHAPE, "more than the batch is open")
    first = of.shape[0]
    sizes = [first if isinstance(first, int) else batch, *(int(str(dim)) for dim in list(of.shape)[1:])]
    start, stop = node.attributes.get("start"), node.attributes.get("end")
    cut = slice(None if start is None else start.as_int(), None if stop is None else stop.as_int())
    return np.array(sizes[cut], dtype=np.int64)
