"""Where fused nodes come from: ONNX node names and, where an exporter kept them, PyTorch module paths."""

from __future__ import annotations

import ast
from collections.abc import Iterable

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def module_name(node: ir.Node) -> str | None:
    """The PyTorch module that a node was exported from.

    The dynamo exporter writes a list of scopes, the innermost last, ending in the call's own name; the
    TorchScript exporter names nodes ``/stage1/stage1.0/conv/Conv``.
    """
    scopes = node.metadata_props.get(_SCOPES)
    if scopes:
        try:
            path = ast.literal_eval(scopes)
        except (SyntaxError, ValueError):
            return None
        modules = [str(scope) for scope in path[:-1] if scope]
        return modules[-1] if modules else None
    name = node.name or ""
    if name.startswith("/") and name.count("/") > 1:
        return _joined(name.strip("/").split("/")[:-1])
    return None


def _joined(scopes: list[str]) -> str:
    """``["stage1", "stage1.0", "conv"]`` is ``stage1.0.conv``: a scope may repeat the one around it."""
    path = ""
    for scope in scopes:
        path = scope if not path or scope.startswith(f"{path}.") else f"{path}.{scope}"
    return path


def node_names(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    """Names of nodes in the graph's order; a nameless one by its operator and output."""
    return tuple(node.name or f"{node.op_type}:{node.outputs[0].name}" for node in nodes)


def module_names(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    """Modules of nodes, each once, in order."""
    return tuple(dict.fromkeys(name for node in nodes if (name := module_name(node)) is not None))


def metadata_of(nodes: Iterable[ir.Node]) -> dict[str, str]:
    """Metadata for a node that replaces others."""
    ordered = sorted(nodes, key=lambda node: (node.outputs[0].name or "", node.name or ""))
    props = {"monocoque.fused_nodes": ",".join(node_names(ordered))}
    modules = module_names(ordered)
    if modules:
        props["monocoque.fused_modules"] = ",".join(modules)
    return props
