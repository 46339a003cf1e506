"""From TensorRT's own words to an error that says which operator, which node, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import BuildFailed

CPU = "serve this graph on the CPU: build with --target cpu"

_REMEDIES: tuple[tuple[str, str], ...] = (
    ("NonMaxSuppression", "find peaks inside the graph by MaxPool and TopK, or decode boxes on the host"),
    ("antialias", "export the Resize with antialias=0: AveragePool shrinks by whole factors without aliasing"),
    ("must have same input types", "cast both inputs to one type: TensorRT converts nothing by itself"),
    ("zero point", "quantize activations symmetrically: --precision int8 does for TensorRT's targets"),
    ("but must have type Int8", "leave biases in floating point: --precision int8 does for TensorRT's targets"),
    ("compute capability", "name those that this version knows: 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
    ("Plugin", f"replace the operator by ones that TensorRT knows, or {CPU}"),
    ("plugin", f"replace the operator by ones that TensorRT knows, or {CPU}"),
    ("workspace", "allow more scratch memory: raise or drop the workspace limit"),
    ("emory", "free memory on the device, or raise the workspace limit"),
)
"""What to do, by the operator's name or a part of TensorRT's message; the first match wins."""


@dataclass(frozen=True)
class Refusal:
    """One thing that TensorRT refused.

    Attributes:
        words: TensorRT's own message.
        operator: ONNX operator, where known.
        node: Name of the ONNX node, or its number where it has none; None where unknown.
    """

    words: str
    operator: str | None = None
    node: str | None = None

    def __str__(self) -> str:
        if self.operator is None:
            return self.words
        return f"{self.operator} (node {self.node}): {self.words}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        for part, remedy in _REMEDIES:
            if part == self.operator or part in self.words:
                return remedy
        return f"export the model without it, or {CPU}" if self.operator else CPU


def build_failed(title: str, refusals: list[Refusal]) -> BuildFailed:
    """One error for everything that was refused.

    Args:
        title: The library and its version.
        refusals: What it refused, the cause first.
    """
    distinct = list(dict.fromkeys(refusals)) or [Refusal("it gave no reason")]
    told = "\n  ".join(str(refusal) for refusal in distinct)
    return BuildFailed(f"{title} refuses the network: {told}", remedy=distinct[0].remedy)
