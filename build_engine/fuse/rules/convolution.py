import numpy as np

from build_engine.fuse.algebra import Deferred, Form, NotExact, Reason, Window
from build_engine.fuse.rules.site import Constant, Site


def conv(site: Site) -> Form:
    """Conv of a tensor that has a form.

    1. Weight and bias are constants.
    2. `Form.padded` accepts the padding: nothing but zeros lies beyond the tensor's ends.
    """
    form, weight = site.form(0), site.constant(1)
    bias = site.optional_constant(2)
    axes = weight.ndim - 2
    strides, dilations = site.integers("strides", [1] * axes), site.integers("dilations", [1] * axes)
    pads = explicit_pads(site, weight.shape[2:], strides, dilations)
    windows = [
        Window(int(kernel), stride, dilation if kernel > 1 else 1, begin, end)
        for kernel, stride, dilation, (begin, end) in zip(weight.shape[2:], strides, dilations, pads, strict=True)
    ]
    convolved = form.convolved(
        Deferred(weight.shape, lambda: weight.astype(np.float64)),
        windows,
        site.integer("group", 1),
        is_zero=not weight.any(),
    )
    return convolved if bias is None else convolved.shifted(Deferred.of(_checked(bias, convolved.c_out)))


def _checked(bias: Constant, channels: int) -> Constant:
    """A bias, ``(C_out,)``.

    Raises:
        NotExact: It has another shape, as an exporter writes it for three-dimensional convolutions; no runtime runs it.
    """
    if bias.shape != (channels,):
        raise NotExact(Reason.GEOMETRY, f"a bias of shape {bias.shape} for {channels} channels")
    return bias


def explicit_pads(
    site: Site, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """``(begin, end)`` per axis, with `auto_pad` worked out.

    1. ``SAME_*`` with a stride needs the size: the padding depends on it.

    Raises:
        NotExact: The size is unknown.
    """
    axes, auto = len(kernel), site.text("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0)] * axes
    if auto == "NOTSET":
        flat = site.integers("pads", [0] * (2 * axes))
        return list(zip(flat[:axes], flat[axes:], strict=True))
    pads = []
    for size, taps, stride, dilation in zip(site.shape(0)[2:], kernel, strides, dilations, strict=True):
        reach = dilation * (int(taps) - 1)
        if isinstance(size, int):
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
        elif stride == 1:
            total = reach
        else:
            raise NotExact(Reason.UNKNOWN_SHAPE, f"auto_pad={auto} with stride {stride} and unknown size {size}")
        small, large = total // 2, total - total // 2
        pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return pads
