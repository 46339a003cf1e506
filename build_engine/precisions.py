"""From the fused float graph to the graphs of a bundle: one per precision and kind of runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from build_engine.compile.tensorrt import compile_graph
from build_engine.errors import BuildError
from build_engine.frames import FEW_FRAMES, Samples
from build_engine.graph import feeds, serialize
from build_engine.lowered import Lowered
from build_engine.options import NVIDIA_TARGETS, BuildOptions
from build_engine.outcome import FLOAT, Graph
from build_engine.progress import Progress
from build_engine.quantize import (
    BF16,
    CPU_INT8,
    FP16,
    PLAIN,
    TENSORRT_FP8,
    TENSORRT_INT8,
    Choice,
    Core,
    Found,
    HalfFormat,
    Judge,
    Metric,
    Noise,
    Quantizer,
    Recipe,
    Search,
    Store,
    Tried,
    best_choice,
    calibrate,
    emulated,
    fp8,
    half_tensors,
    layer_errors,
    lower_precision_core,
    to_half,
)
from build_engine.quantize.candidate import Candidate
from build_engine.quantize.half import half_nodes
from build_engine.quantize.int8 import VNNI
from build_engine.quantize.opset import at_least
from build_engine.quantize.outlook import Pace, outlook, ways_to_shorten
from build_engine.quantize.quantizer import units
from build_engine.quantize.store import default_folder
from engine.cpu import cpu_features, missing_features
from engine.manifest import DetectionPostprocessing, Target
from engine.tensorrt.plan import PlanOptions

NOISE_SAMPLES = 8
ORDERING_SAMPLES = 2
"""Each layer alone is measured on so many: they only order what is judged on all."""
FORMS: Mapping[str, HalfFormat] = {form.name: form for form in (FP16, BF16)}


@dataclass(frozen=True)
class Lowering:
    """What it takes to lower a network's precision.

    Attributes:
        options: Precision, targets, budget.
        model: The fused float graph, every node named.
        arithmetic: Nodes that the fuser made of arithmetic alone.
        samples: Calibration data; INT8 and a budget need it.
        postprocessing: For detectors.
        metric: The user's.
        progress: Told about every step.
    """

    options: BuildOptions
    model: onnx.ModelProto
    arithmetic: frozenset[str]
    samples: Samples | None
    postprocessing: DetectionPostprocessing | None
    metric: Callable[..., Mapping[str, float]] | None
    progress: Progress

    def run(self) -> tuple[Lowered | None, tuple[Graph, ...]]:
        """The graph of each recipe that a target asks for, then the float graph, which serves them all.

        Returns:
            How precision was lowered (None for FP32), and the graphs in the bundle's order.

        Raises:
            BuildError: Nothing in the network bears lower precision, a tensor holds a NaN, or the budget cannot be
                kept.
        """
        targets = tuple(dict.fromkeys(self.options.targets))
        nvidia = tuple(target for target in targets if target in NVIDIA_TARGETS)
        cpu = tuple(target for target in targets if target == "cpu")
        lowered: Lowered | None = None
        graphs: list[Graph] = []
        if self.options.precision in ("int8", "fp8"):
            lowered, graphs = self._eight_bits(cpu, nvidia)
        if form := FORMS.get(self.options.precision):
            lowered, graphs = self._half(nvidia, form)
        if cpu and self.options.precision in ("fp16", "bf16", "fp8"):
            title = self.options.precision.upper()
            self.progress.note(
                f"CPUs compute {title} slower than FP32, if at all: target cpu is served by the float graph"
            )
        graphs.append(Graph(FLOAT, "fp32", targets, self.model, serialize(self.model)))
        return lowered, tuple(graphs)

    def _eight_bits(self, cpu: tuple[Target, ...], nvidia: tuple[Target, ...]) -> tuple[Lowered, list[Graph]]:
        samples = self._samples()
        integers = self.options.precision == "int8"
        model = self.model if integers else at_least(self.model, fp8.OPSET, "FP8")
        core = lower_precision_core(model, self.arithmetic)
        offered = ((CPU_INT8, cpu), (TENSORRT_INT8, nvidia)) if integers else ((TENSORRT_FP8, nvidia),)
        wanted = [(recipe, targets) for recipe, targets in offered if targets]
        recipes = [recipe for recipe, _ in wanted]
        if integers and cpu and (absent := missing_features(VNNI, cpu_features())):
            self.progress.note(
                f"this processor has none of {absent[0].replace('|', ', ')}: INT8 products saturate here, so accuracy "
                "is measured lower, and INT8 runs slower, than on a processor that has one. Build on one that has; to "
                "serve on one like this, build with --precision fp32"
            )
        quantizer = Quantizer(model, core, samples.inputs, recipes, self.progress)
        store = self._store()
        noise = Noise(self.model, core, samples.spread(NOISE_SAMPLES), store)
        budget = self.options.max_accuracy_drop
        judge = self._judge(samples, store) if budget is not None else None  # a metric that fails should fail now
        choice, tried = PLAIN, tuple[Tried, ...]()
        if integers:

            def announce(seconds: Sequence[float], trials: int) -> None:
                if judge is not None and budget is not None:
                    few = noise.seconds * ORDERING_SAMPLES / min(NOISE_SAMPLES, len(samples.inputs))
                    pace = Pace(seconds, noise.seconds, few, judge.seconds)
                    frames = min(self.options.evaluation_frames, len(samples.inputs))
                    shorter = ways_to_shorten(self.options.calibration_method, frames, self.options.metric)
                    told = outlook(pace, trials, len(quantizer.units), budget, shorter)
                    self.progress.note(told + (" (less what was measured before)" if store.found else ""))

            choice, tried = best_choice(quantizer, noise, self.options.calibration_method, self.progress, announce)
        elif self.options.calibration_method:  # a float's steps grow with its values: clipping gains little
            choice = Choice(self.options.calibration_method)
        found = None
        if budget is not None and judge is not None:
            if "rtx" in nvidia:  # what it refuses should not take a search to find out
                plain = serialize(quantizer.graph(PLAIN, recipes[-1]))
                plans = PlanOptions(max_batch=self.options.max_batch, dimensions=self.options.dimensions)
                name = f"plain {recipes[-1].name}"
                compile_graph(name, plain, "rtx", plans, self.progress, self.options.precision)

            def graphs(kept: frozenset[str]) -> dict[str, Candidate]:
                return quantizer.candidates(choice.without(kept))

            found = self._search(tuple(quantizer.units), graphs, judge, samples, core, store, budget)
            choice = choice.without(found.kept)
        made = [self._graph(quantizer, choice, recipe, targets, found) for recipe, targets in wanted]
        taps = {unit: self._outputs(members) for unit, members in quantizer.units.items()}
        reference = quantizer.reference(choice)
        errors = {
            graph.name: layer_errors(reference, graph.executable, taps, samples.spread(NOISE_SAMPLES)) for graph in made
        }
        lowered = Lowered(
            core, choice, tried, found, budget, judge.says if judge else None, self._measured(judge, found), errors
        )
        return lowered, made

    def _graph(
        self, quantizer: Quantizer, choice: Choice, recipe: Recipe, targets: tuple[Target, ...], found: Found | None
    ) -> Graph:
        core, able = quantizer.core, quantizer.integer_nodes(PLAIN, recipe)
        rest = "FP16" if recipe.rest_in_half else "FP32"
        kept = {name: f"a last layer, {rest}: its output is read by the decoding" for name in core.last}
        kept |= dict.fromkeys(core.first, "it reads the image, where the float kernel is faster")
        kept = {name: why for name, why in kept.items() if name not in able}
        precision = self.options.precision
        for node in quantizer.model.graph.node:
            if node.name in core.weighted and node.op_type in recipe.no_kernel:
                kept[node.name] = f"the runtime has no integer kernel for {node.op_type}: {rest}"
        for unit in (name for name in quantizer.units if name in choice.float_units and name in able):
            share = f" (noise alone {found.sensitivity[unit]:.4f})" if found and unit in found.sensitivity else ""
            kept[unit] = f"{precision.upper()} costs too much accuracy here{share}: {rest}"
        model = quantizer.graph(choice, recipe)
        nodes = quantizer.integer_nodes(choice, recipe)
        half = quantizer.half_nodes(choice) if recipe.rest_in_half else frozenset()
        return Graph(recipe.name, precision, targets, model, serialize(model), nodes, kept, half)

    def _half(self, nvidia: tuple[Target, ...], form: HalfFormat) -> tuple[Lowered, list[Graph]]:
        model, name = at_least(self.model, form.opset, form.name.upper()), f"trt-{form.name}"
        core = lower_precision_core(model, self.arithmetic)
        if not nvidia:
            return Lowered(core), []
        seen = None
        if self.samples:
            seen = calibrate(model, half_tensors(model, core), self.samples.inputs, self.progress)
        members = units(model, core) | {name: (name,) for name in core.last}
        able, _ = half_nodes(model, core, seen or {}, form)
        layers = [name for name in members if name in able]

        def graphs(kept: frozenset[str]) -> dict[str, Candidate]:
            apart = {node for unit in kept for node in members[unit]}
            return {name: Candidate.of(name, emulated(to_half(model, core, seen, apart, form).model))}

        found, judge, apart = None, None, dict[str, str]()
        if (budget := self.options.max_accuracy_drop) is not None:
            samples, store = self._samples(), self._store()
            judge = self._judge(samples, store)
            found = self._search(layers, graphs, judge, samples, core, store, budget)
            apart = {
                node: f"{form.name.upper()} costs too much accuracy here (noise alone {found.sensitivity[unit]:.4f})"
                for unit in sorted(found.kept)
                for node in members[unit]
            }
        half = to_half(model, core, seen, apart, form)
        kept = half.kept_float | apart
        done = tuple(name for name in (*core.weighted, *core.between, *core.last) if name not in kept)
        graph = Graph(name, form.name, nvidia, half.model, serialize(half.model), done, kept)
        return Lowered(core, None, (), found, budget, judge.says if judge else None, self._measured(judge, found)), [
            graph
        ]

    def _search(
        self,
        layers: tuple[str, ...] | list[str],
        graphs: Callable[[frozenset[str]], Mapping[str, Candidate]],
        judge: Judge,
        samples: Samples,
        core: Core,
        store: Store,
        budget: float,
    ) -> Found:
        noise = Noise(self.model, core, samples.spread(ORDERING_SAMPLES), store)
        return Search(
            layers,
            graphs,
            judge,
            noise,
            budget,
            self.options.precision.upper(),
            store,
            self.progress,
        ).run()

    def _measured(self, judge: Judge | None, found: Found | None) -> dict[str, Mapping[str, float]]:
        if self.metric is None or judge is None or found is None:
            return {}
        return {FLOAT: judge.reference} | {name: one.figures for name, one in found.judgements.items()}

    def _judge(self, samples: Samples, store: Store) -> Judge:
        metric = None
        if self.metric is not None and self.options.metric is not None:
            name = feeds(self.model)[0].name
            metric = Metric(self.options.metric, self.metric, self.options.metric_args, name)
        some = samples.spread(self.options.evaluation_frames)
        return Judge(self.model, some, self.postprocessing, metric, store, self.progress)

    def _store(self) -> Store:
        return Store(self.options.search_cache or default_folder(), self.progress)

    def _samples(self) -> Samples:
        if self.samples is None:
            raise BuildError(
                "an accuracy budget needs frames to measure on",
                remedy=f"add --calibration-data DIR with {FEW_FRAMES} to 500 varied frames (no labels needed)",
            )
        return self.samples

    def _outputs(self, members: tuple[str, ...]) -> tuple[str, ...]:
        """The activations that a unit's nodes write, in order."""
        return tuple(node.output[0] for node in self.model.graph.node if node.name in members)


def lower(
    options: BuildOptions,
    model: onnx.ModelProto,
    arithmetic: frozenset[str],
    samples: Samples | None,
    postprocessing: DetectionPostprocessing | None,
    metric: Callable[..., Any] | None,
    progress: Progress,
) -> tuple[Lowered | None, tuple[Graph, ...]]:
    """Lower a network's precision as the options say (see `Lowering`)."""
    return Lowering(options, model, arithmetic, samples, postprocessing, metric, progress).run()
