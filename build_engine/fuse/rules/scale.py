import numpy as np

from build_engine.fuse.algebra import Deferred, Form, NotExact, Reason
from build_engine.fuse.rules.site import Site, per_channel


def mul(site: Site) -> Form:
    """Mul by a constant.

    1. One factor is a constant that `per_channel` accepts.
    """
    left, right = site.operands
    constant, index = (right, 0) if isinstance(left, Form) else (left, 1)
    if not isinstance(constant, np.ndarray):
        raise NotExact(Reason.NONLINEARITY, "both factors are computed at run time: the product is no linear map")
    return site.form(index).scaled(per_channel(constant, site.shape(index)))


def div(site: Site) -> Form:
    """Div by a constant.

    1. The divisor is a constant that `per_channel` accepts.
    2. No element of it is zero.
    """
    divisor = per_channel(site.constant(1), site.shape(0))
    if np.any(divisor.value == 0):
        raise NotExact(Reason.NONLINEARITY, "the divisor contains zero")
    return site.form(0).scaled(Deferred(divisor.shape, lambda: 1.0 / divisor.value))


def neg(site: Site) -> Form:
    """Neg; always."""
    form = site.form(0)
    return form.scaled(Deferred((form.c_out,), lambda: np.full(form.c_out, -1.0)))
