from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import onnx
import onnx_ir as ir

from build_engine.errors import BuildError
from build_engine.fuse.cost import Cost, cost_of, live_steps, sized_for
from build_engine.fuse.cover import cheapest_cover
from build_engine.fuse.cuts import Cut, enumerate_cuts
from build_engine.fuse.emit import apply
from build_engine.fuse.kept import kept_regions
from build_engine.fuse.options import FuseOptions
from build_engine.fuse.prepare import prepare, tidy
from build_engine.fuse.provenance import module_names, node_names
from build_engine.fuse.report import FusedRegion, FuseReport, KeptRegion
from build_engine.fuse.skeleton import skeleton

Model = TypeVar("Model", onnx.ModelProto, ir.Model)


@dataclass(frozen=True)
class FuseResult(Generic[Model]):
    """A fused model and the account of how it came about."""

    model: Model
    report: FuseReport


def fuse(
    model: Model,
    options: FuseOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> FuseResult[Model]:
    """Turns every linear region of a network into as few convolutions as are worth having.

    Structural re-parameterization of a network nobody described: branches, batch norms, scales and shortcuts
    between two nonlinearities become the one convolution that they are. What is not provably equal, borders
    included, stays as it is; see `build_engine.fuse.rules` for each operator's conditions.

    Args:
        model: Any ONNX model in inference form; it is not changed. As an `onnx_ir.Model` its weights may lie outside
            memory: they are mapped while they are read, and new ones are computed when they are saved.
        options: The cost model. None means default.
        progress: Called with a step's name, the work done and the work in all.

    Returns:
        The new model, of the type that was given, with the same inputs and outputs; and the report.

    Raises:
        BuildError: The model is invalid, too old (before operator set 11), or holds weights that are no finite
            numbers.
    """
    options = options or FuseOptions()
    say = progress or _silent
    say("preparing", 0, 2)
    working = prepare(model)
    options = sized_for(working.graph, options)
    before, live_before = cost_of(working.graph, options), live_steps(working.graph, options)
    regions: list[FusedRegion] = []
    kept: list[KeptRegion] = []
    graphs = list(working.graphs())  # the main graph, and the bodies of its loops and conditionals
    for index, graph in enumerate(graphs):
        say("fusing", index, len(graphs))
        fused_here, kept_here = _fuse_graph(graph, working.opset_imports.get("", 1), options)
        regions.extend(fused_here)
        kept.extend(kept_here)
    working.graph.sort()
    tidy(working)
    after = finished(working, model)
    say("done", 2, 2)
    report = FuseReport(
        regions=tuple(regions),
        kept=tuple(kept),
        before=before,
        after=cost_of(working.graph, options),
        live_before=live_before,
        live_after=live_steps(working.graph, options),
    )
    return FuseResult(after, report)


def _fuse_graph(graph: ir.Graph, opset: int, options: FuseOptions) -> tuple[list[FusedRegion], tuple[KeptRegion, ...]]:
    """Fuses one graph in place."""
    cuts = enumerate_cuts(graph, opset, options)
    cover = cheapest_cover(graph, cuts, options)
    kept = kept_regions(graph, cuts, cover)
    order = {node: index for index, node in enumerate(graph)}
    chosen = [choice for choice in cover.choice.values() if isinstance(choice, Cut) and cover.runs(choice)]
    moved = cuts.moved
    del cuts, cover  # with all the forms that were considered and not chosen
    drafts = [_draft(cut, order, options) for cut in chosen]
    regions = [
        dataclasses.replace(
            draft,
            name=(written[-1].name if written else None) or draft.name,
            plan=", ".join(node.op_type for node in written) or "nothing",
            after=cost_of(written, options),
        )
        for draft, written in zip(drafts, apply(graph, chosen, options), strict=True)
    ]
    moved.forget_unused()
    return regions, kept


def _draft(cut: Cut, order: dict[ir.Node, int], options: FuseOptions) -> FusedRegion:
    """A region as it was, written down before the graph changes."""
    nodes = sorted(cut.nodes, key=order.__getitem__)
    name = str(cut.root.name)
    return FusedRegion(
        name=name,
        nodes=node_names(nodes),
        modules=module_names(nodes),
        operators=tuple(node.op_type for node in nodes),
        rules=tuple(dict.fromkeys(node.op_type for node in nodes)),
        output=name,
        plan="",
        before=cost_of(nodes, options),
        after=Cost(),
    )


def finished(working: ir.Model, original: Model) -> Model:
    """The working copy as the original's type, with its outputs' declared shapes.

    Raises:
        BuildError: It is not valid ONNX.
    """
    try:
        onnx.checker.check_model(skeleton(working))
    except onnx.checker.ValidationError as error:
        raise BuildError(
            f"fusing wrote a model that is not valid ONNX: {str(error).strip()}",
            remedy="this is a defect of the fuser: build with fusion off, and report it with the model",
        ) from error
    if isinstance(original, ir.Model):
        for value, declared in zip(working.graph.outputs, original.graph.outputs, strict=True):
            value.type, value.shape = declared.type, declared.shape
        return working
    fused = ir.serde.serialize_model(working)
    del fused.graph.output[:]
    fused.graph.output.extend(original.graph.output)
    return fused


def _silent(step: str, done: int, total: int) -> None:
    """Says nothing."""
