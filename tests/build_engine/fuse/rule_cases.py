"""What the tests of the rules build their cases from."""

from __future__ import annotations

import numpy as np

from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators

RNG = np.random.default_rng(7)


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def norm(c: int) -> list[np.ndarray]:
    return [RNG.uniform(0.5, 1.5, c), RNG.normal(size=c), RNG.normal(size=c), RNG.uniform(0.3, 2, c)]


def conv(g: GraphBuilder, x: str, c_in: int, c_out: int, kernel: int | tuple[int, int] = 3, **kwargs: object) -> str:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    group = int(kwargs.get("group", 1))  # type: ignore[call-overload]
    operands = [weight(c_out, c_in // group, *size)]
    if kwargs.pop("bias", True):
        operands.append(weight(c_out))
    name: str = g.add("Conv", x, *operands, kernel_shape=list(size), **kwargs)
    return name


def result_of(g: GraphBuilder, *outputs: str, n: int = 2) -> list[str]:
    return operators(fused(g.model(*outputs), n=n).model)
