from __future__ import annotations

import numpy as np

from build_engine.fuse.algebra import Deferred, Form, NotExact, Reason
from build_engine.fuse.rules.site import Operand, Site, per_channel


def add(site: Site) -> Form:
    """Add, and Sum of any number of tensors and constants.

    1. Constants are accepted by `per_channel`.
    2. Tensors have equal shapes, known to be equal: nothing broadcasts.
    3. `Form.plus` can align the windows of every source in common.
    """
    return _total(site, [1.0] * len(site.operands))


def sub(site: Site) -> Form:
    """Sub; the conditions of `add`."""
    return _total(site, [1.0, -1.0])


def mean(site: Site) -> Form:
    """Mean of several tensors; the conditions of `add`."""
    count = len(site.operands)
    return _total(site, [1.0 / count] * count)


def _total(site: Site, factors: list[float]) -> Form:
    tensors = [(operand, site.shape(i)) for i, operand in enumerate(site.operands) if isinstance(operand, Form)]
    if not tensors:
        raise NotExact(Reason.OPERATOR, "a sum of constants")
    (first, shape), *others = tensors
    for form, other in others:
        if len(shape) != len(other) or any(
            (one is None or one != two) and not (axis != 1 and first.is_as_large_as(form, axis))
            for axis, (one, two) in enumerate(zip(shape, other, strict=False))
        ):
            raise NotExact(Reason.BROADCAST, f"tensors {shape} and {other} are not known to be of one shape")
    total: Form | None = None
    for operand, factor in zip(site.operands, factors, strict=True):
        if isinstance(operand, Form):
            form = operand if factor == 1.0 else operand.scaled(_uniform(factor, operand.c_out))
            total = form if total is None else total.plus(form)
    for operand, factor in zip(site.operands, factors, strict=True):
        if not isinstance(operand, Form):
            total = (total or first).shifted(_constant(operand, factor, shape))
    return total or first


def _uniform(factor: float, channels: int) -> Deferred:
    return Deferred((channels,), lambda: np.full(channels, factor))


def _constant(operand: Operand, factor: float, shape: tuple[int | str | None, ...]) -> Deferred:
    if not isinstance(operand, np.ndarray):
        raise NotExact(Reason.OPERATOR, "an operand of the sum is missing")
    shift = per_channel(operand, shape)
    return Deferred(shift.shape, lambda: factor * shift.value)
