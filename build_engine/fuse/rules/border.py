from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from build_engine.fuse.algebra import Form, Framed, NotExact, Reason
from build_engine.fuse.algebra.framed import OPEN, Write
from build_engine.fuse.rules.probe import probed
from build_engine.fuse.rules.site import Constant, Site


def framed(site: Site, form: Form, pads: tuple[tuple[int, int], ...], value: float) -> Framed:
    """A padded tensor whose border is going to be written over.

    1. The tensor's shape is known, the batch apart.

    Raises:
        NotExact: It is not.
    """
    sizes = site.shape(0)
    if not all(isinstance(size, int) for size in sizes[1:]):
        raise NotExact(Reason.UNKNOWN_SHAPE, f"the border of a tensor {sizes} has no known place")
    spatial = [int(n or 0) + begin + end for n, (begin, end) in zip(sizes[2:], pads, strict=True)]
    shape = (sizes[0] if isinstance(sizes[0], int) else OPEN, form.c_out, *spatial)
    whole = [(0, size) for size in shape]
    writes = []
    for axis, (begin, end) in enumerate(pads, start=2):
        for edge in ((0, begin), (shape[axis] - end, shape[axis])):
            if edge[0] < edge[1]:
                box = (*whole[:axis], edge, *whole[axis + 1 :])
                writes.append(Write(box, np.full(form.c_out, value)))
    return Framed(form, shape, pads, tuple(writes), tuple(range(len(shape))))


def scatter_nd(site: Site) -> Form | Framed:
    """ScatterND that writes constants over a border; a form again once the border is the tensor's bias.

    1. Indices and values are constants; values are written, not added. A constant that is expanded at run time,
       as an open batch demands, is as good, and so is what is computed from the batch alone (`probe.probed`) and
       turns out to be the same box, of whole batches, for every batch tried.
    2. The indices are a box.
    3. `Framed.written` accepts the values.
    """
    tensor = site.operands[0]
    if not isinstance(tensor, Framed):
        raise NotExact(Reason.OPERATOR, "it writes into a tensor, not over a border")
    if site.text("reduction", "none") != "none":
        raise NotExact(Reason.OPERATOR, "it adds to what it finds")
    shape = tuple(tensor.shape[axis] for axis in tensor.order)
    if isinstance(site.operands[1], np.ndarray):
        box = _box(site.operands[1], shape)
    else:
        box = _box_for_any_batch(probed(site.node.inputs[1], site.opset), shape)
    values = _values(site)
    channels = box[tensor.order.index(1)]
    if values.ndim != len(box) or values.shape[tensor.order.index(1)] != channels[1] - channels[0]:
        raise NotExact(Reason.BORDER, f"values of shape {values.shape} are written into {box}")
    return settle(tensor.written(box, values))


def _values(site: Site) -> Constant:
    """What is written, with axes of size 1 where it is only repeated."""
    try:
        return _spread(site.node.inputs[2])
    except NotExact:
        one, *others = probed(site.node.inputs[2], site.opset).values()
        if any(other.shape[1:] != one.shape[1:] or np.any(other != one[:1]) for other in others):
            raise NotExact(Reason.BORDER, "what is written over the border depends on the batch") from None
        return one[:1]


def _box_for_any_batch(indices: dict[int, Constant], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The box that positions walk through, the same one for every batch tried, which it holds whole.

    Raises:
        NotExact: It is another one, or the batch is not the first axis.
    """
    if shape[0] != OPEN:
        raise NotExact(Reason.OPERATOR, "the positions written to are computed at run time")
    boxes = {batch: _box(found, (batch, *shape[1:])) for batch, found in indices.items()}
    first = next(iter(boxes.values()))
    if any(box[0] != (0, batch) or box[1:] != first[1:] for batch, box in boxes.items()):
        raise NotExact(Reason.OPERATOR, "the positions written to depend on the batch")
    return [(0, OPEN), *first[1:]]


def _spread(value: ir.Value | None) -> Constant:
    """A constant, with axes of size 1 where it is only repeated at run time, transposed as the graph does."""
    if value is not None and value.const_value is not None:
        return np.asarray(value.const_value.numpy())
    node = None if value is None else value.producer()
    if value is None or node is None or node.inputs[0] is None or value.shape is None:
        raise NotExact(Reason.BORDER, "what is written over the border is computed at run time")
    if node.op_type == "Transpose":
        inner = _spread(node.inputs[0])
        permutation = node.attributes.get("perm")
        return np.transpose(inner, None if permutation is None else permutation.as_ints())
    if node.op_type == "Expand":
        inner = _spread(node.inputs[0])
        return inner.reshape((1,) * (len(value.shape) - inner.ndim) + inner.shape)
    raise NotExact(Reason.BORDER, f"what is written over the border comes from {node.op_type}")


def settle(tensor: Framed) -> Form | Framed:
    """The tensor's form if it has one by now, else the tensor as it is."""
    try:
        return tensor.settled()
    except NotExact:
        return tensor


def _box(indices: npt.NDArray[np.int64], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The box that a list of indices, ``(..., depth)``, walks through in order.

    Raises:
        NotExact: The indices are no box, or not in its order.
    """
    depth = indices.shape[-1]
    flat = indices.reshape(-1, depth)
    flat = np.where(flat < 0, flat + np.array(shape[:depth]), flat)
    low, high = flat.min(axis=0), flat.max(axis=0) + 1
    walked = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, depth)
    if not np.array_equal(walked, flat):
        raise NotExact(Reason.OPERATOR, "the positions written to are no box")
    written = [(int(a), int(b)) for a, b in zip(low, high, strict=True)]
    return written + [(0, size) for size in shape[depth:]]
