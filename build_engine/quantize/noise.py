"""How far a graph of lower precision is from the float graph, before anything is decoded: smooth, label-free, fast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.graph import Tensors, serialize
from build_engine.quantize.core import Core
from build_engine.quantize.statistics import watched
from build_engine.quantize.store import Store, digest
from build_engine.session import Session


class Noise:
    """Error at the network's last layers, relative to what they hold.

    Decoded outputs jump: a peak is found or not. What the last weighted layers hold moves smoothly, so a few samples
    order choices and layers well.

    Args:
        model: The float graph.
        core: Its `last` layers are where the error is taken.
        samples: Inputs; a handful will do.
        store: Where measurements are kept.
    """

    def __init__(self, model: onnx.ModelProto, core: Core, samples: Sequence[Tensors], store: Store) -> None:
        self._samples, self._store = samples, store
        self._taps = [node.output[0] for node in model.graph.node if node.name in core.last]
        self._expected = [_values(model, [sample], self._taps)[0] for sample in samples]
        arrays = (np.ascontiguousarray(array).tobytes() for one in self._expected for array in one.values())
        self._identity = digest(*arrays)

    def __call__(self, model: onnx.ModelProto) -> float:
        """Root of the mean squared relative error; infinite where something is not finite."""
        key = digest("noise", self._identity, serialize(model))
        if (known := self._store.get(key)) is not None:
            return known["noise"]
        found = _values(model, self._samples, self._taps)
        shares = [relative_error(a[name], b[name]) for a, b in zip(self._expected, found, strict=True) for name in a]
        noise = float(np.sqrt(np.mean(np.square(shares))))
        self._store.put(key, {"noise": noise})
        return noise


def layer_errors(
    model: onnx.ModelProto, lower: onnx.ModelProto, outputs: Mapping[str, Sequence[str]], samples: Sequence[Tensors]
) -> dict[str, float]:
    """Relative error of activations inside the network, as it has built up to there.

    Args:
        model: The float graph.
        lower: The graph of lower precision.
        outputs: By the name of a layer, the activations from its own to the last before the next layer.
        samples: Inputs by name.

    Returns:
        By layer; those whose activations the lower graph no longer has are left out.
    """
    written = {name for node in lower.graph.node for name in node.output}
    taps: dict[str, tuple[str, str]] = {}
    for layer, names in outputs.items():
        # Quantized tensors are read behind their pair: a ReLU may have become the lower end of the range, and then
        # what stands before the pair is not what the next layer sees.
        behind = [name for one in reversed(names) for name in (f"{one}_DequantizeLinear_Output", one)]
        found = next((name for name in behind if name in written), None)
        if found is not None:
            taps[layer] = (names[-1], found)
    expected = _values(model, samples, list(dict.fromkeys(name for name, _ in taps.values())))
    given = _values(lower, samples, list(dict.fromkeys(name for _, name in taps.values())))
    return {
        layer: math.sqrt(
            np.mean([relative_error(a[wanted], b[found]) ** 2 for a, b in zip(expected, given, strict=True)])
        )
        for layer, (wanted, found) in taps.items()
        if expected[0][wanted].shape == given[0][found].shape
    }


def relative_error(wanted: npt.NDArray[Any], given: npt.NDArray[Any]) -> float:
    """`|given - wanted| / |wanted|` in the L2 norm; infinite where a value is not finite."""
    a, b = wanted.astype(np.float64).ravel(), given.astype(np.float64).ravel()
    if not np.isfinite(b).all():
        return math.inf
    return float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-12))


def _values(model: onnx.ModelProto, samples: Sequence[Tensors], names: list[str]) -> list[dict[str, npt.NDArray[Any]]]:
    session = Session(watched(model, names), threads=0)
    return [session.run(sample, names) for sample in samples]
