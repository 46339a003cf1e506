"""Which tensors are computed, and each by which form: the cheapest cover of the graph.

Every tensor that is needed is either computed by its own node or by one of its cuts, and makes the leaves of
that choice needed in turn. Starting from the graph as it is, each choice is revisited and the one taken that
makes the *whole* graph cheapest, counted exactly: nodes that nobody needs any more cost nothing, tensors that
others still need cost the same as before. (Exact area recovery, Mishchenko et al., 2007.) The total only ever
falls, so a linear bottleneck that is cheaper as two convolutions stays two.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

import onnx_ir as ir

from build_engine.fuse.cost import CONVOLUTIONS, is_constant, node_ns
from build_engine.fuse.cuts import Cut, Cuts
from build_engine.fuse.options import FuseOptions

Choice: TypeAlias = "ir.Node | Cut"
_ROUNDS = 4
_WORTHWHILE = 1e-6  # relative; keeps rounding of sums from flipping choices back and forth


class Cover:
    """The choices taken so far, with the number of readers of every tensor."""

    def __init__(self, graph: ir.Graph, options: FuseOptions) -> None:
        self._options = options
        self._node_ns: dict[ir.Node, float] = {}
        self.choice: dict[ir.Value, Choice] = {v: node for node in graph for v in node.outputs}
        self._readers: Counter[ir.Value] = Counter()
        self._runs: Counter[Choice] = Counter()

    def is_needed(self, value: ir.Value) -> bool:
        """Whether anything that is computed reads the tensor."""
        return self._readers[value] > 0

    def runs(self, choice: Choice) -> bool:
        """Whether a node or cut is part of the cover."""
        return self._runs[choice] > 0

    def cost_ns(self, choice: Choice) -> float:
        """Cost of a choice without its leaves."""
        if isinstance(choice, Cut):
            return choice.cost_ns
        if choice not in self._node_ns:
            self._node_ns[choice] = node_ns(choice, self._options)
        return self._node_ns[choice]

    def need(self, values: Iterable[ir.Value]) -> float:
        """Adds a reader to each tensor; returns what that adds to the cost."""
        added, pending = 0.0, list(values)
        while pending:
            value = pending.pop()
            self._readers[value] += 1
            choice = self.choice.get(value)
            if choice is None or self._readers[value] > 1:
                continue
            self._runs[choice] += 1
            if self._runs[choice] == 1:
                added += self.cost_ns(choice)
                pending.extend(leaves(choice))
        return added

    def release(self, values: Iterable[ir.Value]) -> float:
        """Takes a reader from each tensor; returns what that takes from the cost."""
        saved, pending = 0.0, list(values)
        while pending:
            value = pending.pop()
            self._readers[value] -= 1
            choice = self.choice.get(value)
            if choice is None or self._readers[value] > 0:
                continue
            self._runs[choice] -= 1
            if self._runs[choice] == 0:
                saved += self.cost_ns(choice)
                pending.extend(leaves(choice))
        return saved

    def choose(self, value: ir.Value, choice: Choice) -> None:
        """Computes a needed tensor another way."""
        self._swap(value, choice)

    def cost_with(self, value: ir.Value, choice: Choice) -> float:
        """Change of the total cost if a needed tensor were computed by ``choice``.

        A convolution that would be computed a second time, to save an element-wise operation after it, counts
        double: runtimes attach such operations to the convolution before them, at next to no cost.
        """
        before = self.choice[value]
        change = self._swap(value, choice)
        if isinstance(choice, Cut) and any(
            node.op_type in CONVOLUTIONS and node.outputs[0] is not value and self.is_needed(node.outputs[0])
            for node in choice.nodes
        ):
            change += choice.cost_ns
        self._swap(value, before)
        return change

    def _swap(self, value: ir.Value, choice: Choice) -> float:
        readers = self._readers[value]
        self._readers[value] = 1
        saved = self.release([value])
        self.choice[value] = choice
        added = self.need([value])
        self._readers[value] = readers
        return added - saved


def leaves(choice: Choice) -> tuple[ir.Value, ...]:
    """The tensors a choice reads, those that its subgraphs capture included."""
    if isinstance(choice, Cut):
        return choice.leaves
    read = [value for value in choice.inputs if value is not None and not is_constant(value)]
    for attribute in choice.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            read.extend(_captured(attribute.as_graph()))
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                read.extend(_captured(graph))
    return tuple(read)


def _captured(graph: ir.Graph) -> list[ir.Value]:
    """Tensors that a subgraph reads from outside; its own do no harm among them."""
    inside = [value for node in graph.all_nodes() for value in node.inputs if value is not None]
    return [value for value in [*inside, *graph.outputs] if not is_constant(value)]


def cheapest_cover(graph: ir.Graph, cuts: Cuts, options: FuseOptions) -> Cover:
    """A cover of the graph that no single change of a choice makes cheaper."""
    cover = Cover(graph, options)
    cover.choice.update({node.outputs[0]: node for node in cuts.moved})
    cover.need(graph.outputs)
    # What only its own node can compute is needed whatever is chosen elsewhere: holding on to it keeps every
    # comparison within its own linear region. Some of it, the arithmetic of shapes and positions, turns out not to be
    # needed once its readers are gone, so it is let go of and the rest looked at again.
    before = -1
    while True:
        held = [
            v
            for node in graph
            for v in node.outputs
            if cover.is_needed(v) and v not in cuts.unfinished and not cuts.of.get(v)
        ]
        if len(held) == before:
            return cover
        before = len(held)
        cover.need(held)
        for _ in range(_ROUNDS):
            if not _improve(graph, cuts, cover):
                break
        cover.release(held)


def _improve(graph: ir.Graph, cuts: Cuts, cover: Cover) -> bool:
    improved = False
    for node in graph:
        for value in node.outputs:
            options = [cut for cut in cuts.of.get(value, ()) if math.isfinite(cut.cost_ns)]
            if not options or not cover.is_needed(value):
                continue
            best, saving = cover.choice[value], -_WORTHWHILE * cover.cost_ns(cover.choice[value])
            choices: list[Choice] = [node, *options]
            for choice in choices:
                change = cover.cost_with(value, choice)
                if change < saving:
                    best, saving = choice, change
            if best is not cover.choice[value]:
                cover.choose(value, best)
                improved = True
    return improved
