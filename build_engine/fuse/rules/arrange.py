from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from build_engine.fuse.algebra import Arranged, Deferred, Form, Framed, NotExact, Reason
from build_engine.fuse.rules.border import settle as settle_border
from build_engine.fuse.rules.site import Operand, Shaped, Site, known_shape


def transpose(site: Site) -> Shaped:
    """Transpose: a tensor with its axes in another order, a form once they are those of an image."""
    permutation = site.integers("perm", range(len(site.shape(0)) - 1, -1, -1))
    tensor = site.operands[0]
    if isinstance(tensor, Framed):
        return settle_border(tensor.transposed(permutation))
    return _settle(_arranged(site, 0).transposed(permutation))


def reshape(site: Site) -> Shaped:
    """Reshape, Flatten, Squeeze and Unsqueeze: axes split and merged.

    1. `Arranged.reshaped` can follow the axes through the output's shape.
    """
    return _settle(_arranged(site, 0).reshaped(known_shape(site.node.outputs[0])))


def matmul(site: Site) -> Shaped:
    """MatMul by a constant matrix over channels that stand last: a 1x1 convolution.

    1. The matrix is a constant of rank 2, on the right.
    2. `Arranged.through` finds the channels last.
    """
    matrix = site.constant(1)
    if matrix.ndim != 2:
        raise NotExact(Reason.OPERATOR, f"a matrix product with a constant of shape {matrix.shape}")
    return _settle(_arranged(site, 0).through(Deferred(matrix.shape, lambda: matrix.astype(np.float64))))


def gemm(site: Site) -> Shaped:
    """Gemm by a constant matrix: ``alpha x B + beta C``.

    1. The matrix and what is added are constants; the left side is not transposed.
    2. The result is ``(N, C)`` and what is added differs between channels only.
    """
    matrix, shift = site.constant(1), site.optional_constant(2)
    if site.integer("transA", 0):
        raise NotExact(Reason.OPERATOR, "it transposes its left side")
    alpha, beta = site.real("alpha", 1.0), site.real("beta", 1.0)
    turned = matrix.T if site.integer("transB", 0) else matrix
    product = _arranged(site, 0).through(Deferred(turned.shape, lambda: alpha * turned.astype(np.float64)))
    if shift is not None:
        value = beta * product.per_channel(shift)
        product = product.mapped(product.form.shifted(Deferred.of(value)))
    return _settle(product)


def everywhere(rule: Callable[[Site], Form]) -> Callable[[Site], Shaped]:
    """Lets a rule that treats every element alike work on arranged tensors too.

    1. All tensors are arranged alike.
    2. Constants differ between channels only (`Arranged.per_channel`).
    """

    @functools.wraps(rule)
    def lifted(site: Site) -> Shaped:
        tensors = [operand for operand in site.operands if isinstance(operand, Arranged)]
        if not tensors:
            return rule(site)
        first = tensors[0]
        operands: list[Operand] = []
        for operand in site.operands:
            if isinstance(operand, Arranged) and operand.axes == first.axes:
                operands.append(operand.form)
            elif isinstance(operand, np.ndarray):
                value = first.per_channel(operand)
                operands.append(value.reshape(-1, *[1] * first.form.axes))
            else:
                raise NotExact(Reason.BROADCAST, "the tensors are arranged differently")
        shape = (1, first.form.c_out, *[1] * first.form.axes)  # equal for all: nothing broadcasts
        return first.mapped(rule(Site(site.node, tuple(operands), site.opset, assumed_shape=shape)))

    return lifted


def _arranged(site: Site, index: int) -> Arranged:
    operand = site.operands[index]
    if isinstance(operand, Arranged):
        return operand
    shape = site.shape(index)
    # Without a name, an open batch is still one size: this tensor's.
    batch = f"batch of {site.node.inputs[index]}"
    sizes = [batch if dim is None and axis == 0 else dim for axis, dim in enumerate(shape)]
    if any(size is None for size in sizes):
        raise NotExact(Reason.UNKNOWN_SHAPE, f"the shape {shape} is not known well enough")
    return Arranged.image(site.form(index), [size for size in sizes if size is not None])


def _settle(tensor: Arranged) -> Form | Arranged:
    try:
        return tensor.settled()
    except NotExact:
        return tensor
