"""A graph of lower precision that is made when somebody looks at it, known before by what it will be made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from build_engine.graph import Tensors, serialize
from build_engine.quantize.store import digest


@dataclass(frozen=True)
class Candidate:
    """One runtime's graph that may be tried.

    A search that was interrupted, or goes on with another budget, knows most of them already: then none has to be made.

    Attributes:
        name: Of the graph.
        identity: Digest of everything that decides what `make` returns.
        make: Makes it.
    """

    name: str
    identity: str
    make: Callable[[], onnx.ModelProto]

    @classmethod
    def of(cls, name: str, model: onnx.ModelProto) -> Candidate:
        """A graph that is there already."""
        return cls(name, digest(serialize(model)), lambda: model)

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The graph."""
        return self.make()

    @cached_property
    def data(self) -> bytes:
        """The graph's bytes."""
        return serialize(self.model)


def origin(model: onnx.ModelProto, samples: Sequence[Tensors]) -> str:
    """Digest of what every candidate of a network depends on: the network, the samples, and the code that makes it."""
    arrays = (array for sample in samples for array in sample.values())
    return digest(_code(), serialize(model), *(np.ascontiguousarray(array).tobytes() for array in arrays))


@cache
def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest(onnx.__version__, onnxruntime.__version__, np.__version__, *(file.read_bytes() for file in files))
