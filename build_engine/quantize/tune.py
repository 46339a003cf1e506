"""Weights adapted to 8 bits: rounded by what the layer reads, and a bias that makes up for what rounding shifts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.graph import constants
from build_engine.quantize.statistics import Patches
from build_engine.quantize.weights import Tuned, attributes

WEIGHT_LEVELS = 127
SWEEPS = 6
DAMPING = 0.01
"""Share of the mean second moment that is added to each: places that the samples never lit still count a little."""

Matrix = npt.NDArray[np.float64]


def tune(model: onnx.ModelProto, seen: Mapping[str, Patches], *, learn_rounding: bool) -> dict[str, Tuned]:
    """Adapt convolutions to INT8 weights with a scale per output channel.

    Args:
        model: The float graph.
        seen: What each convolution reads, by the name of its node. Others are left alone.
        learn_rounding: Whether weights are rounded up or down so that the layer's output changes least (`round_to`);
            else each to the nearest.

    Returns:
        Per node, weights that are whole multiples of their channel's scale where rounding was learned, else as they
        were, and a bias that removes the mean of the error that rounding makes (arXiv 1906.04721, section 4.2; with
        the patches that were seen in place of an assumed distribution).
    """
    fixed = constants(model)
    tuned = {}
    for node in model.graph.node:
        if node.name not in seen:
            continue
        weight = fixed[node.input[1]].astype(np.float64)
        patches, groups = seen[node.name], int(attributes(node).get("group", 1))
        rows = weight.reshape(groups, weight.shape[0] // groups, -1)
        scale = weight_scales(rows)
        if learn_rounding and patches.moments is not None:
            rounded = np.stack([round_to(r, s, m) for r, s, m in zip(rows, scale, patches.moments, strict=True)])
        else:
            rounded = np.clip(np.round(rows / scale), -WEIGHT_LEVELS, WEIGHT_LEVELS) * scale
        shift = np.einsum("gop,gp->go", rounded - rows, patches.mean).reshape(-1)
        bias = fixed[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(weight.shape[0])
        kept = rounded.reshape(weight.shape) if learn_rounding else weight
        tuned[node.name] = Tuned(kept.astype(np.float32), (bias - shift).astype(np.float32))
    return tuned


def weight_scales(rows: Matrix) -> Matrix:
    """The step of each output channel, as ONNX Runtime's quantizer chooses it.

    Args:
        rows: `(groups, C_out/groups, P)`.

    Returns:
        `(groups, C_out/groups, 1)`.
    """
    peak = np.abs(rows).max(axis=-1, keepdims=True)
    return np.where(peak > 0, peak / WEIGHT_LEVELS, 1.0)


def round_to(rows: Matrix, scale: Matrix, moments: Matrix) -> Matrix:
    """Round each weight up or down so that the layer's output changes least on what it reads.

    The objective is AdaRound's (Nagel et al., arXiv 2004.10568, eq. 13): minimise `d H d'` per output channel, where d
    is the rounding error and H the second moments of the patches. Their relaxation is trained by gradient steps; here
    one weight after the other takes the better of its two neighbours, which never gets worse, needs no setting, gives
    the same outcome each time and takes a second per layer.

    Args:
        rows: `(C_out, P)` weights.
        scale: `(C_out, 1)` step of each row.
        moments: `(P, P)`.

    Returns:
        `(C_out, P)`, whole multiples of `scale`.
    """
    steps = rows / scale
    low = np.clip(np.floor(steps), -WEIGHT_LEVELS, WEIGHT_LEVELS - 1)
    up = np.round(steps) > low
    ridge = DAMPING * max(float(np.trace(moments)) / len(moments), 1e-12)
    hessian = moments + ridge * np.eye(len(moments))
    push = (low + up - steps) @ hessian  # (C_out, P): half the gradient
    diagonal = np.diag(hessian)
    for _ in range(SWEEPS):
        flips = 0
        for index in range(rows.shape[1]):
            change = np.where(up[:, index], -1.0, 1.0)
            gain = change * (2 * push[:, index] + change * diagonal[index])
            better = gain < -1e-12 * diagonal[index]
            if better.any():
                flips += int(better.sum())
                up[better, index] ^= True
                push[better] += change[better, None] * hessian[index]
        if not flips:
            break
    return (low + up) * scale
