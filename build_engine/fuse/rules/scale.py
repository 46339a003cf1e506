import numpy as np
import onnx_ir as ir

from build_engine.fuse.algebra import Deferred, Form, NotExact, Reason
from build_engine.fuse.rules.site import Site, per_channel


def mul(site: Site) -> Form:
    """Mul by a constant.

    1. One factor is a constant that `per_channel` accepts.
    2. It is not part of a GELU written out (`refuse_gelu`).
    """
    refuse_gelu(site.node)
    left, right = site.operands
    constant, index = (right, 0) if isinstance(left, Form) else (left, 1)
    if not isinstance(constant, np.ndarray):
        raise NotExact(Reason.NONLINEARITY, "both factors are computed at run time: the product is no linear map")
    return site.form(index).scaled(per_channel(constant, site.shape(index)))


def refuse_gelu(node: ir.Node) -> None:
    """Keeps ``0.5 * (x * (1 + erf(x / sqrt 2)))`` whole: runtimes compute it at once as long as it is.

    Raises:
        NotExact: The node is its first or its last factor.
    """
    if any(reader.op_type == "Erf" for reader in node.outputs[0].consumers()) or _ends_a_gelu(node):
        raise NotExact(Reason.COST, "it is part of a GELU, which runtimes compute at once")


def _ends_a_gelu(node: ir.Node) -> bool:
    """Whether a Mul scales ``x * (1 + erf(...))``."""
    products = [value.producer() for value in node.inputs if value is not None]
    sums = [
        value.producer()
        for product in products
        if product is not None and product.op_type == "Mul"
        for value in product.inputs
        if value is not None
    ]
    inner = [value.producer() for s in sums if s is not None and s.op_type == "Add" for value in s.inputs if value]
    return any(node is not None and node.op_type == "Erf" for node in inner)


def div(site: Site) -> Form:
    """Div by a constant.

    1. The divisor is a constant that `per_channel` accepts.
    2. No element of it is zero.
    3. It is not part of a GELU written out (`refuse_gelu`).
    """
    refuse_gelu(site.node)
    divisor = per_channel(site.constant(1), site.shape(0))
    if np.any(divisor.value == 0):
        raise NotExact(Reason.NONLINEARITY, "the divisor contains zero")
    return site.form(0).scaled(Deferred(divisor.shape, lambda: 1.0 / divisor.value))


def neg(site: Site) -> Form:
    """Neg; always."""
    form = site.form(0)
    return form.scaled(Deferred((form.c_out,), lambda: np.full(form.c_out, -1.0)))
