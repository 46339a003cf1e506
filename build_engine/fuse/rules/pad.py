from __future__ import annotations

import numpy as np
import onnx_ir as ir

from build_engine.fuse.algebra import Form, Framed, NotExact, Reason
from build_engine.fuse.rules.border import framed
from build_engine.fuse.rules.commute import repeating_pad
from build_engine.fuse.rules.site import Site


def pad(site: Site) -> Form | Framed:
    """Pad with a constant; negative padding crops.

    1. The mode is ``constant`` and the amounts are constants; other modes are `commute.repeating_pad`.
    2. `Form.padded` accepts the border: beyond its ends the tensor continues as the border's value.
    3. The batch is not padded. New channels are zero channels, which needs the value 0.
    """
    form = site.form(0)
    begins, ends, value = _amounts(site, form.axes + 2)
    if site.text("mode", "constant") != "constant":
        return repeating_pad(site)
    if begins[0] or ends[0]:
        raise NotExact(Reason.OPERATOR, "it pads the batch")
    pads = tuple(zip(begins[2:], ends[2:], strict=True))
    try:
        padded = form.padded(pads, value)
    except NotExact:
        if _is_written_over(site.node.outputs[0]) and begins[1] == ends[1] == 0:
            return framed(site, form, pads, value)
        raise
    if not begins[1] and not ends[1]:
        return padded
    if value != 0:
        raise NotExact(Reason.OPERATOR, f"new channels hold {value:.6g}, which no weight produces")
    first, last = max(-begins[1], 0), form.c_out - max(-ends[1], 0)
    return padded.selected([-1] * begins[1] + list(range(first, last)) + [-1] * ends[1])


def _is_written_over(value: ir.Value, transposes: int = 4) -> bool:
    """Whether a border is only a canvas: one of the next nodes, transposes apart, writes into it.

    What else reads it, such as the arithmetic of where to write, needs no form of it.
    """
    for reader in value.consumers():
        if reader.op_type == "ScatterND" and reader.inputs[0] is value:
            return True
        if reader.op_type == "Transpose" and transposes and _is_written_over(reader.outputs[0], transposes - 1):
            return True
    return False


def _amounts(site: Site, rank: int) -> tuple[list[int], list[int], float]:
    """``(begins, ends, value)`` over all axes; opset 11 moved them from attributes to inputs."""
    if site.opset < 11:
        flat = list(site.integers("pads", site.integers("paddings", [0] * (2 * rank))))
        value, axes = site.real("value", 0.0), list(range(rank))
    else:
        flat = [int(i) for i in site.constant(1).reshape(-1)]
        given, listed = site.optional_constant(2), site.optional_constant(3)
        value = 0.0 if given is None or given.size == 0 else float(given.reshape(-1)[0])
        axes = list(range(rank)) if listed is None else [int(a) % rank for a in listed.reshape(-1)]
    amounts = np.zeros((2, rank), dtype=np.int64)
    amounts[0, axes], amounts[1, axes] = flat[: len(axes)], flat[len(axes) :]
    return amounts[0].tolist(), amounts[1].tolist(), value
