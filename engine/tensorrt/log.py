"""TensorRT's log: the only place where most failures, and all figures of a build, are said."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.tensorrt.api import TensorRT

_NO_DRIVER = "cudaError 35"
"""Said over and over, harmlessly, where a plan is compiled without a GPU."""

_MEMORY = re.compile(r"Total (Activation|Weights) Memory: (\d+)")
_PARSING = re.compile(r"Parsing node: (.*) \[(\w+)\]$")
_REGISTERING = re.compile(r"Registering layer: (.+) for ONNX node: (.*)$")
_LAYER = re.compile(r"Name: (.*?), LayerType: (\w*)")
_SOURCE = re.compile(r"\[ONNX Layer: (.+?)\](?=\[ONNX Layer: |[\x1e\x1f]|\s*$)")
_HOST_ONLY = {"shape_call", "NoOp"}
"""Kinds of layers that launch nothing: sizes computed on the host, and names without work."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of TensorRT's callbacks.

    TensorRT calls the logger with a mutex of its own held. A collection that begins in there may free an older builder
    or engine, whose destructor wants the same mutex, and the thread waits for itself for ever. What is garbage by now
    is freed first, out here.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class CompiledLayer:
    """One kernel of an engine.

    Attributes:
        name: TensorRT's name for it.
        sources: Names of the ONNX nodes it computes; empty where TensorRT does not say, as for copies.
    """

    name: str
    sources: tuple[str, ...]


class BuildLog:
    """Collects what matters of a log while it is written; a verbose one has a hundred thousand lines.

    Attributes:
        errors: Text of every error that means something, in order.
        activation_bytes: Memory for intermediate tensors; None until said. With several engines, the largest.
        weights_bytes: Likewise for weights.
        layers: The kernels of the engine, in order.
        operators: ONNX operator per node name.
        interrupt: An exception that arrived inside the logger, which must not travel through C++.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.activation_bytes: int | None = None
        self.weights_bytes: int | None = None
        self.layers: tuple[CompiledLayer, ...] = ()
        self.operators: dict[str, str] = {}
        self.interrupt: BaseException | None = None
        self._nodes: dict[str, str] = {}

    def add(self, severity: str, message: str) -> None:
        """Take one entry.

        Args:
            severity: Name of the severity: `INTERNAL_ERROR`, `ERROR`, `WARNING`, `INFO` or `VERBOSE`.
            message: Its text, possibly of many lines.
        """
        if severity in ("ERROR", "INTERNAL_ERROR"):
            if text := without_driver_noise(message):
                self.errors.append(text)
        elif message.startswith("Total "):
            self._memory(message)
        elif message.startswith("Parsing node: ") and (match := _PARSING.match(message)):
            self.operators[match[1]] = match[2]
        elif message.startswith("Registering layer: ") and (match := _REGISTERING.match(message)):
            self._nodes[match[1]] = match[2]
        elif message.startswith("Layers:"):
            self.layers = parse_layers(message)

    def node_in(self, text: str) -> str | None:
        """The ONNX node that an error speaks of, by the layer's or the node's own name; the longest wins."""
        names = {**{name: name for name in self.operators if name}, **self._nodes}
        found = [layer for layer in names if layer in text]
        return names[max(found, key=len)] if found else None

    def adapter(self, tensorrt: TensorRT) -> Any:  # noqa: ANN401 - an ILogger of either library
        """An `ILogger` of the library that writes into this log."""

        def log(_self: object, severity: Any, message: str) -> None:  # noqa: ANN401 - a binding's enum
            try:
                self.add(str(severity).rpartition(".")[2], message)
            except BaseException as error:  # Ctrl-C lands here: the build is the only thing running
                self.interrupt = error

        return type("MonocoqueLogger", (tensorrt.module.ILogger,), {"log": log})()

    def _memory(self, message: str) -> None:
        match = _MEMORY.match(message)
        if match is None:
            return
        size = int(match[2])
        if match[1] == "Activation":
            self.activation_bytes = max(size, self.activation_bytes or 0)
        else:
            self.weights_bytes = max(size, self.weights_bytes or 0)


def without_driver_noise(message: str) -> str:
    """A message less the lines that only say that there is no GPU."""
    return "\n".join(line for line in message.split("\n") if _NO_DRIVER not in line).strip()


def parse_layers(message: str) -> tuple[CompiledLayer, ...]:
    """Read the `Layers:` entry, written with DETAILED profiling verbosity: a line per layer, until an empty one."""
    layers = []
    for line in message.split("\n")[1:]:  # not splitlines: \x1e separates metadata
        if not line.strip():
            break
        match = _LAYER.match(line)
        if match is None or match[2] in _HOST_ONLY:
            continue
        metadata = line.rpartition("Metadata:")[2] if "Metadata:" in line else ""
        layers.append(CompiledLayer(match[1], tuple(dict.fromkeys(_SOURCE.findall(metadata)))))
    return tuple(layers)
