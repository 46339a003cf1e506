from __future__ import annotations

import numpy as np

from build_engine.fuse.algebra import Array, Deferred, Form, Window
from build_engine.fuse.rules.site import Site


def space_to_depth(site: Site) -> Form:
    """SpaceToDepth: a ``b x b`` convolution with stride ``b`` that sorts pixels into channels.

    Output channel ``(dy * b + dx) * C + c`` is pixel ``(dy, dx)`` of channel ``c``. The size is a multiple of
    the block, as ONNX demands.
    """
    form, block = site.form(0), site.integer("blocksize", 1)
    channels = form.c_out
    shape = (channels * block * block, channels, block, block)

    def compute() -> Array:
        weight = np.zeros((block, block, channels, channels, block, block))
        for dy in range(block):
            for dx in range(block):
                weight[dy, dx, range(channels), range(channels), dy, dx] = 1.0
        return weight.reshape(shape)

    return form.convolved(Deferred(shape, compute), [Window(block, block)] * 2, 1)
