"""One network and everything that can be tried on it: a choice in, the graph of each runtime out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx

from build_engine.graph import Tensors, constants
from build_engine.progress import Progress
from build_engine.quantize.calibration import Limits, Method, Range, Ranges, calibrate, choose_limits
from build_engine.quantize.candidate import Candidate, origin
from build_engine.quantize.core import Core
from build_engine.quantize.emulate import emulated
from build_engine.quantize.equalize import Scales, equalizable, equalize
from build_engine.quantize.half import cast_nodes, half_nodes, half_tensors
from build_engine.quantize.int8 import Recipe, integer_heads, quantized_nodes, quantized_tensors, to_int8
from build_engine.quantize.statistics import Patches, patches
from build_engine.quantize.store import digest
from build_engine.quantize.tune import tune
from build_engine.quantize.weights import Tuned, with_tuned

Equalization = Literal["none", "weights", "activations"]
Weights = Literal["nearest", "corrected", "learned"]
STATISTICS_SAMPLES = 24


@dataclass(frozen=True)
class Choice:
    """How a network is brought to INT8; every runtime's graph follows from it.

    Attributes:
        method: How the range of an activation is chosen.
        equalization: Whether channels are equalized across layers first, and by what (see `equalize`).
        weights: `nearest` rounds weights to the nearest step; `corrected` also corrects biases; `learned` rounds by
            what the layer reads, and corrects biases.
        float_units: Weighted layers that stay out of INT8, by name.
    """

    method: Method
    equalization: Equalization = "none"
    weights: Weights = "nearest"
    float_units: frozenset[str] = frozenset()

    def without(self, layers: frozenset[str]) -> Choice:
        """The same with these layers out of INT8."""
        return replace(self, float_units=layers)

    def __str__(self) -> str:
        parts: list[str] = [self.method]
        if self.equalization != "none":
            parts.append(f"equalized by {self.equalization}")
        parts += {"nearest": [], "corrected": ["bias correction"], "learned": ["learned rounding", "bias correction"]}[
            self.weights
        ]
        return ", ".join(parts)


PLAIN = Choice("max")
"""Plain post-training quantization: largest values as ranges, weights to the nearest step, nothing equalized."""


class Quantizer:
    """Makes graphs of lower precision and remembers what it took to make them.

    Args:
        model: The fused float graph, every node named, with inferred shapes.
        core: Where lower precision is borne.
        samples: Calibration data.
        recipes: The runtimes.
        progress: Told about every pass over the samples.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        core: Core,
        samples: Sequence[Tensors],
        recipes: Sequence[Recipe],
        progress: Progress,
    ) -> None:
        self.model, self.core, self.recipes = model, core, tuple(recipes)
        self._scaled = tuple(dict.fromkeys(name for group in equalizable(model) for name in group.tensors))
        self.can_equalize = bool(self._scaled)
        self._samples, self._progress = samples, progress
        self._origin = origin(model, samples)
        nodes = [quantized_nodes(model, core, recipe) for recipe in recipes]
        heads = [integer_heads(model, core, one, some) for one, some in zip(recipes, nodes, strict=True)]
        self._heads = tuple(name for name in core.last if any(name in some for some in heads))
        self.units: Mapping[str, tuple[str, ...]] = units(model, core) | {name: (name,) for name in self._heads}
        self._tensors = tuple(dict.fromkeys(name for some in nodes for name in quantized_tensors(model, some)))
        self._halves = half_tensors(model, core) if any(recipe.rest_in_half for recipe in recipes) else ()
        self._models: dict[Equalization, tuple[onnx.ModelProto, Scales]] = {"none": (model, {})}
        self._ranges: dict[Equalization, dict[str, Range]] = {}
        self._limits: dict[tuple[Equalization, Method, bool], Limits] = {}
        self._patches: Mapping[str, Patches] | None = None
        self._tuned: dict[tuple[Equalization, Weights], Mapping[str, Tuned]] = {}

    def candidates(self, choice: Choice) -> dict[str, Candidate]:
        """The graph of every runtime by name, as it can be executed here, made when somebody looks at it."""

        def one(recipe: Recipe) -> Candidate:
            words = [repr(sorted(one) if isinstance(one, frozenset) else one) for one in vars(recipe).values()]
            identity = digest(self._origin, *words, str(choice), *sorted(choice.float_units))
            return Candidate(recipe.name, identity, lambda: emulated(self.graph(choice, recipe)))

        return {recipe.name: one(recipe) for recipe in self.recipes}

    def graph(self, choice: Choice, recipe: Recipe) -> onnx.ModelProto:
        """The graph for one runtime."""
        nodes = self.integer_nodes(choice, recipe)
        source = self.reference(choice)
        tuned = self._tuned_weights(choice)
        source = with_tuned(source, {name: tuned[name] for name in nodes if name in tuned})
        apart = self._apart(choice)
        limits = self._chosen(choice, symmetric=recipe.symmetric)
        wanted = quantized_tensors(source, tuple(name for name in nodes if name not in self._heads))
        result = to_int8(source, self.core, {name: limits[name] for name in wanted}, recipe, apart)
        if recipe.rest_in_half:
            result = cast_nodes(result, self.half_nodes(choice))
        return result

    def reference(self, choice: Choice) -> onnx.ModelProto:
        """The float graph that a choice quantizes: the network's own, or equalized."""
        return self._equalized(choice.equalization)[0]

    def integer_nodes(self, choice: Choice, recipe: Recipe) -> tuple[str, ...]:
        """Names of the nodes with 8-bit inputs."""
        apart = self._apart(choice)
        nodes = tuple(name for name in quantized_nodes(self.model, self.core, recipe) if name not in apart)
        heads = integer_heads(self.model, self.core, recipe, nodes)
        return (*nodes, *(name for name in heads if name not in apart))

    def half_nodes(self, choice: Choice) -> frozenset[str]:
        """Names of the nodes that a runtime with fast FP16 computes so: heads, and layers that stay out of INT8."""
        able, _ = half_nodes(self.reference(choice), self.core, self.ranges(choice.equalization))
        apart = self._apart(choice)
        return frozenset(able & (apart | set(self.core.last)))

    def _apart(self, choice: Choice) -> set[str]:
        return {name for unit in choice.float_units for name in self.units[unit]}

    def ranges(self, equalization: Equalization) -> Ranges:
        """What activations hold on the samples: watched once, since equalized ones are theirs divided by scales."""
        if equalization == "none" and equalization not in self._ranges:
            names = tuple(dict.fromkeys((*self._tensors, *self._halves, *self._scaled)))
            self._ranges["none"] = calibrate(self.model, names, self._samples, self._progress, self._scaled)
        elif equalization not in self._ranges:
            scales, seen = self._equalized(equalization)[1], self.ranges("none")
            self._ranges[equalization] = {
                name: one.divided(scales[name]) if name in scales else one for name, one in seen.items()
            }
        return self._ranges[equalization]

    def _chosen(self, choice: Choice, *, symmetric: bool) -> Limits:
        key = (choice.equalization, choice.method, symmetric)
        if key not in self._limits:
            self._limits[key] = choose_limits(self.ranges(choice.equalization), choice.method, symmetric=symmetric)
        return self._limits[key]

    def _equalized(self, equalization: Equalization) -> tuple[onnx.ModelProto, Scales]:
        if equalization not in self._models:
            peaks = None
            if equalization == "activations":
                peaks = {name: one.channels.peaks for name, one in self.ranges("none").items() if one.channels}
            self._models[equalization] = equalize(self.model, peaks)
        return self._models[equalization]

    def _tuned_weights(self, choice: Choice) -> Mapping[str, Tuned]:
        if choice.weights == "nearest":
            return {}
        key = (choice.equalization, choice.weights)
        if key not in self._tuned:
            source, learned = self.reference(choice), choice.weights == "learned"
            seen = self._seen_by_layers(choice.equalization)
            with self._progress.step("Learning to round" if learned else "Correcting biases"):
                self._tuned[key] = tune(source, seen, learn_rounding=learned)
        return self._tuned[key]

    def _seen_by_layers(self, equalization: Equalization) -> Mapping[str, Patches]:
        """What the window of each layer sees: watched once, as `ranges`."""
        if self._patches is None:
            count = min(STATISTICS_SAMPLES, len(self._samples))
            some = [self._samples[i] for i in np.linspace(0, len(self._samples) - 1, count).round().astype(int)]
            self._patches = patches(self.model, (*self.core.weighted, *self._heads), some, self._progress)
        scales = self._equalized(equalization)[1]
        read = {node.name: node.input[0] for node in self.model.graph.node if node.name in self._patches}
        return {
            name: seen.divided(scales[read[name]]) if read[name] in scales else seen
            for name, seen in self._patches.items()
        }


def units(model: onnx.ModelProto, core: Core) -> dict[str, tuple[str, ...]]:
    """What is quantized or left alone as one: a weighted layer with the operators up to the next one.

    Returns:
        By the name of the weighted node, in order: it, then the nodes of `core.between` that follow it last.
    """
    found: dict[str, list[str]] = {name: [name] for name in core.weighted}
    order = {name: index for index, name in enumerate(core.weighted)}
    owner: dict[str, str] = {}
    between, fixed = set(core.between), constants(model)
    for node in model.graph.node:
        unit = node.name if node.name in found else None
        if node.name in between:
            owners = [owner[name] for name in node.input if name in owner and name not in fixed]
            unit = max(owners, key=order.__getitem__, default=None)
            if unit is not None:
                found[unit].append(node.name)
        if unit is not None:
            owner |= dict.fromkeys(node.output, unit)
    return {name: tuple(members) for name, members in found.items()}
