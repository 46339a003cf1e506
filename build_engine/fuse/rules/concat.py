from __future__ import annotations

import itertools

from build_engine.fuse.algebra import Form, NotExact, Reason
from build_engine.fuse.rules.site import Site


def concat(site: Site) -> Form:
    """Concat of channels: rows of all tensors, one under the other.

    1. The axis is that of the channels.
    2. Where two tensors have a source in common, `Window.union` can align their windows on it. Parts that read
       ranges of its channels in the same order as they are concatenated are one grouped convolution
       (`Placed.beside`); others are made dense.
    """
    forms = [site.form(i) for i in range(len(site.operands))]
    if site.integer("axis", 1) % (forms[0].axes + 2) != 1:
        raise NotExact(Reason.OPERATOR, "it concatenates along the image or the batch, not along channels")
    total = sum(form.c_out for form in forms)
    starts = itertools.accumulate((form.c_out for form in forms), initial=0)
    first, *others = (form.placed(start, total) for form, start in zip(forms, starts, strict=False))
    return first.plus(*others)
