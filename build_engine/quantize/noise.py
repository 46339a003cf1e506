"""How far a graph of lower precision is from the float graph, before anything is decoded: smooth, label-free, fast."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.accuracy import joined
from build_engine.graph import Tensors
from build_engine.quantize.candidate import Candidate, origin
from build_engine.quantize.core import DECODING, Core, downstream
from build_engine.quantize.outputs import parts, relative_error
from build_engine.quantize.statistics import watched
from build_engine.quantize.store import Measured, Store, digest
from build_engine.session import Session

SELECTING = (DECODING - {"Exp"}) | {"If", "Loop"}
"""Operators whose answer jumps: another element is taken, or one more."""


class Noise:
    """Error at the network's last layers and of its answers, relative to what they hold.

    A decoded list jumps: a peak is found or not. What the last weighted layers hold moves smoothly, and so do scores
    and coordinates before anything is selected, so a few samples order choices and layers well.

    Args:
        model: The float graph.
        core: Its `last` layers are where the error is taken.
        samples: Inputs; a handful will do.
        store: Where measurements are kept.

    Attributes:
        seconds: Time that the float graph took on the samples.
    """

    def __init__(self, model: onnx.ModelProto, core: Core, samples: Sequence[Tensors], store: Store) -> None:
        self._samples, self._store = samples, store
        self._last = [node.output[0] for node in model.graph.node if node.name in core.last]
        self._outputs = _smooth_outputs(model)
        self._names = list(dict.fromkeys((*self._last, *self._outputs)))
        started = time.perf_counter()
        self._expected = _values(model, samples, self._names)
        self.seconds = time.perf_counter() - started
        self._identity = origin(model, samples)

    def __call__(self, candidate: Candidate) -> float:
        """Root of the mean squared relative error, last layers and parts of the answer (see `outputs.parts`) alike.

        Infinite where something is not finite.
        """
        return self.measured(candidate).figures["noise"]

    def measured(self, candidate: Candidate) -> Measured:
        """The same, as the figure `noise`, with the time that it took, the making of the graph included."""
        return self._store.measured_once(
            digest("noise", self._identity, candidate.name, candidate.identity),
            lambda: {"noise": self._measure(candidate.model)},
        )

    def _measure(self, model: onnx.ModelProto) -> float:
        found = _values(model, self._samples, self._names)
        last = [
            relative_error(a[name], b[name]) for a, b in zip(self._expected, found, strict=True) for name in self._last
        ]
        groups = [float(np.mean(np.square(last)))]
        for name in self._outputs:
            wanted, given = joined(self._expected, name), joined(found, name)
            groups += [relative_error(a, b) ** 2 for a, b in parts(wanted, given).values()]
        return math.sqrt(float(np.mean(groups)))


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


def _smooth_outputs(model: onnx.ModelProto) -> list[str]:
    """Names of the outputs that are float and of nothing that was selected from a list."""
    selecting = {node.name for node in model.graph.node if node.op_type in SELECTING}
    after = selecting | downstream(model, selecting)
    selected = {name for node in model.graph.node if node.name in after for name in node.output}
    return [
        value.name
        for value in model.graph.output
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in selected
    ]


def _values(model: onnx.ModelProto, samples: Sequence[Tensors], names: list[str]) -> list[dict[str, npt.NDArray[Any]]]:
    session = Session(watched(model, names), threads=0)
    return [session.run(sample, names) for sample in samples]
