from __future__ import annotations

import numpy as np
import numpy.typing as npt

from build_engine.fuse.algebra import Form, Framed, NotExact, Reason
from build_engine.fuse.algebra.framed import Write
from build_engine.fuse.rules.site import Site


def framed(site: Site, form: Form, pads: tuple[tuple[int, int], ...], value: float) -> Framed:
    """A padded tensor whose border is going to be written over.

    1. The output's shape is known.

    Raises:
        NotExact: It is not.
    """
    sizes = site.shape(0)
    if not all(isinstance(size, int) for size in sizes):
        raise NotExact(Reason.UNKNOWN_SHAPE, f"the border of a tensor {sizes} has no known place")
    spatial = [int(n or 0) + begin + end for n, (begin, end) in zip(sizes[2:], pads, strict=True)]
    shape = (int(sizes[0] or 0), form.c_out, *spatial)
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

    1. Indices and values are constants; values are written, not added.
    2. The indices are a box.
    3. `Framed.written` accepts the values.
    """
    tensor = site.operands[0]
    if not isinstance(tensor, Framed):
        raise NotExact(Reason.OPERATOR, "it writes into a tensor, not over a border")
    if site.text("reduction", "none") != "none":
        raise NotExact(Reason.OPERATOR, "it adds to what it finds")
    indices, values = site.constant(1), site.constant(2)
    shape = tuple(tensor.shape[axis] for axis in tensor.order)
    box = _box(indices, shape)
    painted = tensor.written(box, values.reshape([stop - start for start, stop in box]))
    return settle(painted)


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
