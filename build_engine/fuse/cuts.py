"""Every form that a tensor has, relative to every set of earlier tensors worth knowing.

This is cut enumeration as logic synthesis does it (Cong and Ding, FlowMap, 1994; Mishchenko et al., 2007):
a *cut* of a tensor is a set of earlier tensors that determine it, here together with the convolution form
that says how. Cuts of a node's output are combinations of its inputs' cuts, passed through the node's rule.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from build_engine.fuse.algebra import Arranged, Form, Framed, NotExact, Reason
from build_engine.fuse.cost import is_constant, node_ns
from build_engine.fuse.moved import MovedNodes
from build_engine.fuse.options import FuseOptions
from build_engine.fuse.provenance import node_names
from build_engine.fuse.realize import realization
from build_engine.fuse.rules import RULES, Site
from build_engine.fuse.rules.site import Computed, Constant, Operand

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_COMBINATIONS = 64
# A batch norm that nothing takes in is written as the scale and shift that it is, which quantizers and compilers know
# what to do with, so that no graph comes out with one: it counts as a hair cheaper.
_NORM_AS_AFFINE = 0.999
# Nodes that one form may absorb: weights are computed by recipes within recipes.
_MOST_NODES = 150


@dataclass(frozen=True, eq=False)
class Cut:
    """A tensor's form relative to its leaves.

    Args:
        root: The tensor.
        form: Its form; the sources are the leaves.
        nodes: The nodes between leaves and root, which the form replaces.
        cost_ns: What the cheapest way to compute the form costs.
    """

    root: ir.Value
    form: Form
    nodes: frozenset[ir.Node]
    cost_ns: float

    @property
    def leaves(self) -> tuple[ir.Value, ...]:
        """The tensors it is relative to."""
        return tuple(source for source in self.form.terms if isinstance(source, ir.Value))


@dataclass
class Cuts:
    """All cuts of a graph, and why there are no more.

    Args:
        of: Cuts per tensor, the trivial one (the tensor itself) not included.
        unfinished: Per tensor what has no form yet but may have one after the next nodes.
        constants: Values of constant tensors.
        moved: Copies of nodes that forms are relative to.
        refusals: Per node the first obstacle each set of absorbed nodes met.
    """

    of: dict[ir.Value, list[Cut]] = field(default_factory=dict)
    unfinished: dict[ir.Value, list[tuple[Framed | Arranged, frozenset[ir.Node]]]] = field(default_factory=dict)
    constants: dict[ir.Value, Constant] = field(default_factory=dict)
    moved: MovedNodes = field(default_factory=MovedNodes)
    refusals: dict[ir.Node, list[tuple[frozenset[ir.Node], NotExact]]] = field(default_factory=dict)


def enumerate_cuts(graph: ir.Graph, opset: int, options: FuseOptions) -> Cuts:
    """Cuts of all tensors of a graph in topological order."""
    cuts = Cuts()
    flow: dict[ir.Value, float] = {}
    for node in graph:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or not all(_is_float(output) for output in node.outputs if output.uses()):
            continue
        if options.excluded and node_names([node])[0] in options.excluded:
            left = NotExact(Reason.VERIFICATION, "it stays as it is, because fusing it missed the bound")
            cuts.refusals[node] = [(frozenset(), left)]
            continue
        found: dict[ir.Value, dict[frozenset[ir.Value], Cut]] = {output: {} for output in node.outputs}
        for operands, absorbed in _combinations(node, cuts):
            if len(absorbed) > _MOST_NODES:
                continue
            try:
                result = rule(Site(node, operands, opset, functools.partial(cuts.moved.on, node)))
            except NotExact as obstacle:
                cuts.refusals.setdefault(node, []).append((absorbed, obstacle.with_traceback(None)))
                continue
            forms = [result] if isinstance(result, Form | Framed | Arranged) else list(result)
            for output, form in zip(node.outputs, forms, strict=False):
                if not isinstance(form, Form):
                    cuts.unfinished.setdefault(output, []).append((form, absorbed | {node}))
                    continue
                cost_ns = realization(form, output, options).cost_ns
                if node.op_type == "BatchNormalization" and not absorbed:
                    cost_ns = min(cost_ns, _NORM_AS_AFFINE * node_ns(node, options))
                cut = Cut(output, form, absorbed | {node}, cost_ns)
                key = frozenset(cut.leaves)
                if key not in found[output] or cut.cost_ns < found[output][key].cost_ns:
                    found[output][key] = cut
        kept_flow = node_ns(node, options) + sum(_share(v, flow) for v in node.inputs if v is not None)
        for output, by_leaves in found.items():
            ranked = sorted(by_leaves.values(), key=lambda c: (_open(c, cuts), _flow(c, flow)))
            cuts.of[output] = ranked[: options.cuts_per_tensor]
            flow[output] = min([kept_flow, *(_flow(cut, flow) for cut in by_leaves.values())])
    return cuts


def _open(cut: Cut, cuts: Cuts) -> bool:
    """Whether a leaf could itself be looked through; forms that reach all the way are ranked first."""
    return any(cuts.of.get(leaf) for leaf in cut.leaves)


def _share(value: ir.Value, flow: dict[ir.Value, float]) -> float:
    return flow.get(value, 0.0) / max(1, len(value.uses()))


def _flow(cut: Cut, flow: dict[ir.Value, float]) -> float:
    """Area flow: a cut's cost with its share of its leaves' costs."""
    return cut.cost_ns + sum(_share(leaf, flow) for leaf in cut.leaves)


def _combinations(node: ir.Node, cuts: Cuts) -> Iterator[tuple[tuple[Operand, ...], frozenset[ir.Node]]]:
    """Operands of a node by every combination of its inputs' cuts, with the nodes these absorb."""
    choices: list[list[tuple[Operand, frozenset[ir.Node]]]] = []
    for value in node.inputs:
        if value is None:
            choices.append([(None, frozenset())])
        elif is_constant(value) and value.const_value is not None:
            if value not in cuts.constants:  # a protobuf hands out a new copy each time
                cuts.constants[value] = value.const_value.numpy()
            choices.append([(cuts.constants[value], frozenset())])
        else:
            choices.append(_operand_choices(value, cuts))
    if any(not choice for choice in choices):
        return
    seen: set[tuple[int, ...]] = set()
    for combination in itertools.islice(_deepest_first(choices), _COMBINATIONS):
        operands = tuple(operand for operand, _ in combination)
        key = tuple(map(id, operands))
        if key not in seen:
            seen.add(key)
            yield operands, frozenset[ir.Node]().union(*(nodes for _, nodes in combination))


def _operand_choices(value: ir.Value, cuts: Cuts) -> list[tuple[Operand, frozenset[ir.Node]]]:
    choices: list[tuple[Operand, frozenset[ir.Node]]] = [(cut.form, cut.nodes) for cut in cuts.of.get(value, ())]
    choices.extend(cuts.unfinished.get(value, ()))
    if _is_float(value) and value.shape is not None and len(value.shape) >= 2 and isinstance(value.shape[1], int):
        sizes = [dim if isinstance(dim, int) else None for dim in value.shape[2:]]
        choices.append((Form.of(value, value.shape[1], sizes), frozenset()))
    elif not _is_float(value):
        choices.append((Computed(), frozenset()))
    return choices


def _deepest_first(
    choices: Sequence[Sequence[tuple[Operand, frozenset[ir.Node]]]],
) -> Iterator[tuple[tuple[Operand, frozenset[ir.Node]], ...]]:
    """All combinations, or those that matter where there are too many: all deepest, all trivial, one of each."""
    total = 1
    for choice in choices:
        total *= len(choice)
    if total <= _COMBINATIONS:
        yield from itertools.product(*choices)
        return
    for depth in range(max(map(len, choices))):
        yield tuple(choice[min(depth, len(choice) - 1)] for choice in choices)
    for index, choice in enumerate(choices):
        for option in choice:
            yield tuple(option if i == index else other[-1] for i, other in enumerate(choices))
            yield tuple(option if i == index else other[0] for i, other in enumerate(choices))
    yield from itertools.product(*choices)


def _is_float(value: ir.Value) -> bool:
    return value.dtype in _FLOATS
