"""The build: load, fuse, quantize, compile, verify, bundle. Each step is a function; this file is their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from build_engine import accuracy, bundling
from build_engine.accuracy import Accuracy
from build_engine.camera_input import takes_frames
from build_engine.compile.cpu import Latency, batch_sizes, integer_kernels, measure
from build_engine.compile.tensorrt import Compiled, compile_graph
from build_engine.errors import BuildError
from build_engine.frames import FEW_FRAMES, Samples, read_samples
from build_engine.fusing import fuse_network
from build_engine.given import (
    check_folder,
    check_identity,
    check_output,
    check_outputs,
    check_targets,
    read_postprocessing,
)
from build_engine.graph import dimensions, feeds, random_inputs, serialize, tensor_specs
from build_engine.load import load_model, parse_source
from build_engine.load.free import FreeDimensions, check_fixed, find_free
from build_engine.options import COMPILED_HERE, BuildOptions
from build_engine.outcome import FLOAT, UNFUSED, Built, Graph
from build_engine.precisions import lower
from build_engine.progress import Progress, Silent
from build_engine.quantize import CPU_INT8, fused_arithmetic
from build_engine.quantize.core import with_node_names
from build_engine.session import Session
from engine.manifest import DetectionPostprocessing, Preprocessing
from engine.tensorrt.plan import PlanOptions
from engine.tensors import TensorSpec

RANDOM_SEEDS = (1, 2)
RANDOM_SAMPLES = 8


def build(options: BuildOptions, progress: Progress | None = None) -> Built:
    """Build a bundle; it appears at `options.output` complete, or not at all.

    Raises:
        BuildError: Something that was given is missing, corrupt or does not fit, or an outcome misses its bound.
        EngineError: A compiler or the bundle's own checks refuse it.
    """
    said = _Remembering(progress or Silent())
    source = parse_source(options.model)
    name = options.name or source.name
    check_identity(name, options.version)
    check_output(options.output)
    check_folder(options.calibration_data)
    postprocessing = read_postprocessing(options.postprocess)
    check_targets(options.precision, options.targets)
    if options.precision in ("int8", "fp8") and options.calibration_data is None:
        raise BuildError(
            f"{options.precision.upper()} needs to see what the network's tensors hold on real frames",
            remedy=f"add --calibration-data DIR with {FEW_FRAMES} to 500 frames of varied scenes (no labels needed), "
            "or build with --precision fp16",
        )
    metric = accuracy.load_metric(options.metric) if options.metric else None

    with said.step(f"Loading {source.given}"):
        loaded = load_model(source, options.weights, options.input_shapes, options.opset, options.dimensions)
        trained = takes_frames(loaded.model, options.camera) if options.camera else loaded.model
        trained = with_node_names(trained)
        Session(trained)  # refuses what no CPU can run, before minutes are spent
    inputs, outputs = tensor_specs(feeds(trained)), tensor_specs(list(trained.graph.output))
    check_outputs(postprocessing, outputs)
    max_batch = options.max_batch if any(spec.batched for spec in inputs) else 1
    if options.camera is not None:
        check_fixed(trained, "cameras have one size")
    planned = [target for target in options.targets if target != "cpu"]
    free = find_free(trained, options.dimensions, max_batch, planned)
    preprocessing = _preprocessing(options, trained)
    if metric:
        metric = accuracy.with_preprocessing(metric, preprocessing)
    samples = None
    if options.calibration_data is not None:
        samples = read_samples(
            options.calibration_data, inputs, preprocessing, options.calibration_frames, said, free.by_name
        )

    noise = [random_inputs(inputs, 1, seed, free.usual) for seed in RANDOM_SEEDS]
    cases = [*(samples.spread(options.verify_frames) if samples else ()), *noise]
    fused = fuse_network(trained, cases, options, said)

    lowered, graphs = lower(options, fused.model, fused_arithmetic(fused.report), samples, postprocessing, metric, said)
    judged = _Judged(options, samples, inputs, free, postprocessing, metric)
    accuracies = judged.measure(graphs, lowered.measured if lowered else {}, said)
    unfused = serialize(trained)
    plans = PlanOptions(max_batch=max_batch, dimensions=free.by_name)
    compiled = _compile(options, graphs, unfused, plans, said)
    latency = _latency(options, graphs, unfused, inputs, free, samples, max_batch, said)

    built = Built(
        options=options,
        name=name,
        loaded=loaded,
        unfused=trained,
        inputs=inputs,
        outputs=outputs,
        max_batch=max_batch,
        free=free,
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        samples=samples,
        fusion=fused.report,
        verification=fused.verification,
        shortcuts=fused.shortcuts,
        mean=fused.mean,
        graphs=graphs,
        lowered=lowered,
        accuracy=accuracies,
        compiled=compiled,
        latency=latency,
        integer_kernels=_integer_kernels(graphs),
        notes=tuple(said.notes),
    )
    with said.step("Writing the bundle"):
        bundling.write(built)
    return built


@dataclass(frozen=True)
class _Judged:
    """On what graphs are compared, and by whom."""

    options: BuildOptions
    samples: Samples | None
    inputs: tuple[TensorSpec, ...]
    free: FreeDimensions
    postprocessing: DetectionPostprocessing | None
    metric: Callable[..., Any] | None

    def measure(
        self, graphs: tuple[Graph, ...], known: Mapping[str, Mapping[str, float]], progress: Progress
    ) -> tuple[Accuracy, ...]:
        """Accuracy of every graph, the float one first.

        Args:
            graphs: The graphs.
            known: What the metric said before, by graph.
            progress: Told about every sample.

        Raises:
            NotFinite: A graph answers a NaN or an infinity on a calibration sample: no such bundle leaves.
        """
        noise = tuple(random_inputs(self.inputs, 1, seed, self.free.usual) for seed in range(RANDOM_SAMPLES))
        compared = self.samples.spread(self.options.evaluation_frames) if self.samples else noise
        everything = self.samples.inputs if self.samples else noise
        chosen = {id(sample) for sample in compared}
        computed: dict[str, list[Any]] = {}
        with progress.step("Comparing precisions", len(graphs) * len(everything)) as advance:
            for graph in graphs:
                session = Session(graph.executable, threads=0)
                computed[graph.name] = []
                for sample in everything:
                    outputs = session.run(sample)
                    if self.samples:
                        accuracy.check_finite(graph.name, outputs)
                    if id(sample) in chosen:
                        computed[graph.name].append(outputs)
                    advance()
        results = []
        for graph in sorted(graphs, key=lambda graph: graph.name != FLOAT):
            expected, actual = computed[FLOAT], computed[graph.name]
            found = accuracy.compare(graph.name, graph.precision, expected, actual, self.postprocessing)
            if self.metric:
                figures = known.get(graph.name) or self._evaluate(graph, progress)
                found = replace(found, metric=dict(figures))
            results.append(found)
        return tuple(results)

    def _evaluate(self, graph: Graph, progress: Progress) -> Mapping[str, float]:
        assert self.metric is not None  # noqa: S101 - the caller has looked
        name = feeds(graph.model)[0].name
        data = serialize(graph.executable)
        return accuracy.evaluate(self.metric, self.options.metric_args, graph.name, data, name, progress)


def _compile(
    options: BuildOptions, graphs: tuple[Graph, ...], unfused: bytes, plans: PlanOptions, progress: Progress
) -> tuple[Compiled, ...]:
    """Plans of the graph that is served, and where it can be done here, of the float and unfused ones to compare."""
    compiled = []
    for target in options.targets:
        if target == "cpu":
            continue
        if target not in COMPILED_HERE:
            progress.note(f"{target}: compiled on the device at its first start, from the graph in the bundle")
            continue
        served = next(graph for graph in graphs if target in graph.targets)
        plan = compile_graph(served.name, served.data, target, plans, progress, served.precision)
        if plan is None:
            continue
        compiled.append(plan)
        others = {FLOAT: graphs[-1].data, UNFUSED: unfused}
        others.pop(served.name, None)
        for name, data in others.items():
            plan = compile_graph(name, data, target, plans, progress)
            compiled += [plan] if plan else []
    return tuple(compiled)


def _latency(
    options: BuildOptions,
    graphs: tuple[Graph, ...],
    unfused: bytes,
    inputs: tuple[TensorSpec, ...],
    free: FreeDimensions,
    samples: Samples | None,
    max_batch: int,
    progress: Progress,
) -> tuple[Latency, ...]:
    """On this machine's CPU. TensorRT's graphs would be emulated here, so they are left out."""
    if options.latency_seconds <= 0:
        return ()
    measured = {UNFUSED: unfused} | {
        graph.name: graph.data for graph in reversed(graphs) if graph.name in (FLOAT, CPU_INT8.name)
    }
    by_batch = {}
    for batch in batch_sizes(max_batch):
        feed = random_inputs(inputs, batch, RANDOM_SEEDS[0], free.usual)
        if samples and not free.by_name:  # samples of different sizes are no batch
            some = [samples.inputs[index % len(samples.inputs)] for index in range(batch)]
            feed = {
                spec.name: np.concatenate([one[spec.name] for one in some]) if spec.batched else some[0][spec.name]
                for spec in inputs
            }
        by_batch[batch] = feed
    return measure(measured, by_batch, seconds=options.latency_seconds, threads=options.threads, progress=progress)


def _integer_kernels(graphs: tuple[Graph, ...]) -> dict[str, int]:
    """What ONNX Runtime really computes on integers, by operator."""
    for graph in graphs:
        if graph.name == CPU_INT8.name:
            return integer_kernels(graph.data)
    return {}


def _preprocessing(options: BuildOptions, model: onnx.ModelProto) -> Preprocessing | None:
    if options.camera is None:
        return None
    value = feeds(model)[0]
    _, height, width, _ = dimensions(value)
    return Preprocessing(
        input=value.name,
        color=options.camera.color,
        width=int(width),
        height=int(height),
        resize=options.resize,
    )


class _Remembering:
    """Passes everything on and keeps the notes, which belong into the report too."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self.notes: list[str] = []

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Callable[[], None]]:
        return self._inner.step(title, total)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._inner.note(text)
