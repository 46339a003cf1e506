"""Runs a graph with ONNX Runtime: the build's own view of what a graph computes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime

from build_engine.errors import BuildError
from build_engine.graph import Tensors, serialize

_NOT_IMPLEMENTED = re.compile(r"Could not find an implementation for (\S+) node with name '([^']*)'")
_NOT_REGISTERED = re.compile(r"(?:Fatal error: )?(\S+?)\(-?\d+\) is not a registered function/op")


class Session:
    """A graph that ONNX Runtime loaded on the CPU.

    Args:
        model: The graph.
        threads: Threads of one inference. One by default: the same sums in the same order, so the same bits.

    Raises:
        BuildError: ONNX Runtime refuses the graph; the operator and its node are named.
    """

    def __init__(self, model: onnx.ModelProto | bytes, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin for the next operator take a third of the CPU time, and on a busy machine most of the rest.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        data = model if isinstance(model, bytes) else serialize(model)
        try:
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise _refused(data, str(error)) from None
        self.outputs: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name, for inputs by name.

        Raises:
            BuildError: ONNX Runtime fails on these inputs.
        """
        names = tuple(outputs or self.outputs)
        try:
            return dict(zip(names, self._session.run(list(names), dict(inputs)), strict=True))
        except Exception as error:  # as above
            shapes = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in inputs.items())
            raise BuildError(
                f"the model fails on inputs {shapes}: {_first_line(str(error))}",
                remedy="check --input-shape, or that the model computes these inputs where it was trained",
            ) from None


def _refused(data: bytes, words: str) -> BuildError:
    remedy = (
        "replace the operator in the model, or end the model before it and do that part on the host "
        f"(ONNX Runtime {onnxruntime.__version__}'s operators: https://onnxruntime.ai/docs/reference/operators/)"
    )
    if found := _NOT_IMPLEMENTED.search(words):
        return BuildError(
            f"operator {found[1]} of node {found[2]!r} is not supported on the CPU: {_where(data, found[2])}",
            remedy=remedy,
        )
    if found := _NOT_REGISTERED.search(words):
        kind = found[1].rpartition(":")[2].rpartition(".")[2]
        return BuildError(f"operator {found[1]} is unknown: {_where_kind(data, kind)}", remedy=remedy)
    return BuildError(f"ONNX Runtime refuses the graph: {_first_line(words)}", remedy=remedy)


def _where(data: bytes, name: str) -> str:
    nodes = [node for node in onnx.load_from_string(data).graph.node if node.name == name]
    return _describe(nodes[:1]) or "inside a subgraph"


def _where_kind(data: bytes, kind: str) -> str:
    nodes = [node for node in onnx.load_from_string(data).graph.node if node.op_type == kind]
    return _describe(nodes[:5]) or "inside a subgraph"


def _describe(nodes: Sequence[onnx.NodeProto]) -> str:
    return "; ".join(
        f"node {node.name or '(unnamed)'!r} reads {', '.join(node.input)} and writes {', '.join(node.output)}"
        for node in nodes
    )


def _first_line(words: str) -> str:
    return words.strip().splitlines()[0][:400] if words.strip() else "(no reason given)"
