from __future__ import annotations

from build_engine.fuse.algebra import Form, Framed, NotExact, Reason
from build_engine.fuse.rules.border import settle
from build_engine.fuse.rules.site import Site


def transpose(site: Site) -> Form | Framed:
    """Transpose of a tensor whose border is being written over."""
    tensor = site.operands[0]
    rank = len(site.shape(0))
    permutation = site.integers("perm", range(rank - 1, -1, -1))
    if isinstance(tensor, Framed):
        return settle(tensor.transposed(permutation))
    raise NotExact(Reason.OPERATOR, "a transposition")
