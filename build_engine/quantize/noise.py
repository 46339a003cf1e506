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
    model: onnx.ModelProto, lower: onnx.ModelProto, outputs: Mapping[str, str], samples: Sequence[Tensors]
) -> dict[str, float]:
    """Relative error of activations inside the network, as it has built up to there.

    Args:
        model: The float graph.
        lower: The graph of lower precision.
        outputs: Activation by the name of a layer.
        samples: Inputs by name.

    Returns:
        By layer; those whose activation the lower graph no longer has are left out.
    """
    written = {name for node in lower.graph.node for name in node.output}
    taps = {layer: name for layer, name in outputs.items() if name in written}
    names = list(dict.fromkeys(taps.values()))
    expected, found = _values(model, samples, names), _values(lower, samples, names)
    errors = {
        name: math.sqrt(np.mean([relative_error(a[name], b[name]) ** 2 for a, b in zip(expected, found, strict=True)]))
        for name in names
    }
    return {layer: errors[name] for layer, name in taps.items()}


def relative_error(wanted: npt.NDArray[Any], given: npt.NDArray[Any]) -> float:
    """`|given - wanted| / |wanted|` in the L2 norm; infinite where a value is not finite."""
    a, b = wanted.astype(np.float64).ravel(), given.astype(np.float64).ravel()
    if not np.isfinite(b).all():
        return math.inf
    return float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-12))


def _values(model: onnx.ModelProto, samples: Sequence[Tensors], names: list[str]) -> list[dict[str, npt.NDArray[Any]]]:
    session = Session(watched(model, names), threads=0)
    return [session.run(sample, names) for sample in samples]
