from __future__ import annotations

from build_engine.fuse.algebra import Form, NotExact, Reason
from build_engine.fuse.rules.site import Site


def concat(site: Site) -> Form:
    """Concat of channels: rows of all tensors, one under the other.

    1. The axis is that of the channels.
    2. Where two tensors have a source in common, `Window.union` can align their windows on it.
    """
    forms = [site.form(i) for i in range(len(site.operands))]
    if site.integer("axis", 1) % (forms[0].axes + 2) != 1:
        raise NotExact(Reason.OPERATOR, "it concatenates along the image or the batch, not along channels")
    total = sum(form.c_out for form in forms)
    result: Form | None = None
    start = 0
    for form in forms:
        placed = form.placed(start, total)
        result = placed if result is None else result.plus(placed)
        start += form.c_out
    if result is None:
        raise NotExact(Reason.OPERATOR, "a concatenation of nothing")
    return result
