"""As much lower precision as a budget of accuracy allows: which layers stay out, found by measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from build_engine.errors import BuildError
from build_engine.progress import Progress
from build_engine.quantize.candidate import Candidate
from build_engine.quantize.judge import Judge, Judgement
from build_engine.quantize.noise import Noise
from build_engine.quantize.store import Measured, Store

RETURNS = 16
"""Most trials of taking layers inside again: the order by sensitivity is a good guess, not a proof."""

PATIENCE = 3
"""Single layers in a row that have to stay out, after which those that make more noise are left out untried."""

Graphs = Callable[[frozenset[str]], Mapping[str, Candidate]]
"""The graph of every runtime, by name, with these layers kept out of the lower precision."""


@dataclass(frozen=True)
class Trial:
    """One set of graphs that was judged.

    Attributes:
        kept: How many layers stayed out.
        drop: Points lost by the graph that lost most of those that were judged: one that loses too much ends a trial.
        worst: Which graph, and which figure.
        complete: Whether that graph was judged on every sample; else `drop` is what it loses at least.
    """

    kept: int
    drop: float
    worst: str
    complete: bool = True


@dataclass(frozen=True)
class Found:
    """Where the search ended.

    Attributes:
        kept: Layers that stay out of the lower precision.
        drop: Points lost, by the graph that lost most.
        worst: Which graph, and which figure.
        sensitivity: Noise that a layer alone makes in the lower precision, all others in float, by layer; empty where
            nothing had to be kept out.
        judgements: Per graph.
        trials: Everything that was judged, in order.
    """

    kept: frozenset[str]
    drop: float
    worst: str
    sensitivity: Mapping[str, float]
    judgements: Mapping[str, Judgement]
    trials: tuple[Trial, ...]


@dataclass
class Search:
    """Keeps the fewest layers out that a budget allows.

    1. With every layer in lower precision, is the budget kept? Then there is nothing to search.
    2. Each layer alone in lower precision makes some noise: the order in which layers are kept out. A few samples tell.
    3. Bisection finds how many of the noisiest have to stay out.
    4. Of those, the least noisy are tried inside again, many at once where that succeeds (see `_return_some`).

    Everything measured is kept in the store under what it was measured on, so a second search with another budget,
    or one that was interrupted, repeats nothing.

    Attributes:
        layers: Names of the layers, in the network's order.
        graphs: Makes the graphs.
        judge: Says what a graph costs.
        noise: Says how far a graph is from the float graph.
        budget: Points that may be lost, in the figure and by the graph that lose most.
        precision: For messages, `INT8` or `FP16`.
        store: Where measurements are kept.
        progress: Told how far the search is and how long it will take.
    """

    layers: Sequence[str]
    graphs: Graphs
    judge: Judge
    noise: Noise
    budget: float
    precision: str
    store: Store
    progress: Progress
    _trials: list[Trial] = field(default_factory=list)
    _known: dict[frozenset[str], dict[str, Judgement]] = field(default_factory=dict)
    _suspect: str = ""

    def run(self) -> Found:
        """Search.

        Raises:
            BuildError: Not even one layer can be in lower precision within the budget; the best reachable point and
                what limits it are named.
        """
        if self._fits(frozenset(), all_graphs=True):
            return self._found(frozenset(), {})
        self._announce(sum(one.seconds for one in self._alone(self.layers[0])))
        sensitivity = self._sensitivity()
        order = sorted(self.layers, key=lambda layer: (-sensitivity[layer], layer))
        kept = self._return_some(self._bisect(order), sensitivity)
        if len(kept) == len(order):
            self._give_up(order)
        return self._found(kept, sensitivity)

    def _announce(self, seconds_per_layer: float) -> None:
        layers, judgements = len(self.layers), most_judgements(len(self.layers))
        seconds_per_judgement = sum(one.seconds for one in self._known[frozenset()].values())
        seconds = judgements * seconds_per_judgement + layers * seconds_per_layer
        first = self._trials[0]
        lost = f"{first.drop:.2f} points" if math.isfinite(first.drop) else "everything"
        text = f"{self.precision} throughout loses {lost} ({first.worst}), "
        text += f"allowed are {self.budget:g}: searching which of {layers} layers to keep out; "
        text += f"{layers} layers alone at {seconds_per_layer:.2g} s and at most {judgements} judgements of "
        text += f"{seconds_per_judgement:.2g} s, {duration(seconds)} if all are needed"
        self.progress.note(text + (" (less what was measured before)" if self.store.found else ""))

    def _alone(self, layer: str) -> list[Measured]:
        """Noise of one layer in lower precision, the rest in float, in every graph."""
        return [self.noise.measured(one) for one in self.graphs(frozenset(self.layers) - {layer}).values()]

    def _sensitivity(self) -> dict[str, float]:
        found = {}
        with self.progress.step("Measuring each layer alone", len(self.layers)) as advance:
            for layer in self.layers:
                found[layer] = max(one.figures["noise"] for one in self._alone(layer))
                advance()
        return found

    def _bisect(self, order: Sequence[str]) -> list[str]:
        """The fewest of the first layers of an order that have to stay out; all of them, if the last costs too much."""
        low, high = 0, len(order)  # `low` of them do not suffice
        with self.progress.step("Judging how many to keep out", math.ceil(math.log2(len(order) + 1))) as advance:
            while high - low > 1:
                middle = (low + high) // 2
                if self._fits(frozenset(order[:middle])):
                    high = middle
                else:
                    low = middle
                advance()
        return list(order[:high])

    def _return_some(self, kept: list[str], sensitivity: Mapping[str, float]) -> frozenset[str]:
        """Take layers inside again, the least noisy first.

        Where the order was wrong, one layer far down keeps many out that cost nothing. So half of them are tried at
        once; after a success twice as many, after a failure half as many, until single ones have to stay out.
        """
        waiting = sorted(kept, key=lambda layer: (sensitivity[layer], layer))
        inside, size, failed = set(kept), max(1, len(kept) // 2), 0
        with self.progress.step("Trying layers inside again", RETURNS) as advance:
            for _ in range(RETURNS):
                group = set(waiting[:size])
                if not group or group == inside or (failed >= PATIENCE and len(inside) < len(self.layers)):
                    break
                if self._fits(frozenset(inside - group)):
                    inside -= group
                    waiting, size, failed = waiting[size:], 2 * size, 0
                elif size == 1:
                    waiting, failed = waiting[1:], failed + 1
                else:
                    size //= 2
                advance()
        return frozenset(inside)

    def _fits(self, kept: frozenset[str], *, all_graphs: bool = False) -> bool:
        """Judge a trial; the graph that lost most before comes first, and one that loses too much ends it.

        What loses too much need not be known exactly, but with a single layer inside: that is the best reachable point.
        """
        judged: dict[str, Judgement] = {}
        graphs = self.graphs(kept)
        enough = math.inf if all_graphs or len(kept) + 1 >= len(self.layers) else self.budget
        for name in sorted(graphs, key=lambda name: name != self._suspect):
            judged[name] = self.judge(graphs[name], enough)
            if judged[name].drop > self.budget and not all_graphs:
                break
        self._known[kept] = judged
        self._suspect = max(judged, key=lambda name: judged[name].drop)
        drop, worst = worst_of(judged)
        self._trials.append(Trial(len(kept), drop, worst, judged[self._suspect].complete))
        return drop <= self.budget

    def _found(self, kept: frozenset[str], sensitivity: Mapping[str, float]) -> Found:
        drop, worst = worst_of(self._known[kept])
        return Found(kept, drop, worst, dict(sensitivity), self._known[kept], tuple(self._trials))

    def _give_up(self, order: Sequence[str]) -> None:
        exact = [one for one, judged in self._known.items() if all(each.complete for each in judged.values())]
        kept = min(exact, key=lambda one: (worst_of(self._known[one])[0], len(one)))
        self._fits(kept, all_graphs=True)
        best = self._trials[-1]
        advice = "find out why with the metric alone"
        if math.isfinite(best.drop):
            advice = f"allow it with --max-accuracy-drop {_round_up(best.drop)}, give more or more varied frames to "
            advice += "--calibration-data"
        raise BuildError(
            f"a drop of {self.budget:g} points cannot be kept in {self.precision}: the best reachable point is "
            f"{_points(best.drop)} with {len(order) - best.kept} of {len(order)} layers in {self.precision}; "
            f"what limits it is {best.worst}, and the most sensitive layers are {', '.join(order[:3])}",
            remedy=f"{advice}, or build with --precision fp16 or fp32; nothing was written, and what was measured is "
            "kept for the next try",
        )


def worst_of(judged: Mapping[str, Judgement]) -> tuple[float, str]:
    """The largest drop of several graphs, and where it is."""
    name = max(judged, key=lambda one: judged[one].drop)
    return judged[name].drop, f"{judged[name].worst} of {name}"


def most_judgements(layers: int) -> int:
    """Sets of graphs that a search judges at most, after the one with every layer in lower precision."""
    return math.ceil(math.log2(layers + 1)) + RETURNS


def duration(seconds: float) -> str:
    """A time that was estimated, for a person."""
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {round(seconds / 60)} min"


def _round_up(drop: float) -> str:
    return f"{math.ceil(drop * 100 + 1e-9) / 100:g}"


def _points(drop: float) -> str:
    return f"{drop:.3g} points" if math.isfinite(drop) else "beyond measure"
