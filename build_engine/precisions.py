"""From the fused float graph to the graphs of a bundle: one per precision and kind of runtime."""

from __future__ import annotations

import onnx

from build_engine.frames import Samples
from build_engine.graph import serialize
from build_engine.options import NVIDIA_TARGETS, BuildOptions
from build_engine.outcome import FLOAT, Graph
from build_engine.progress import Progress
from build_engine.quantize import (
    CPU_INT8,
    TENSORRT_INT8,
    Core,
    Ranges,
    Recipe,
    calibrate,
    half_tensors,
    lower_precision_core,
    to_fp16,
    to_int8,
)
from build_engine.quantize.int8 import quantized_nodes, quantized_tensors
from engine.manifest import Target


def graphs_of(
    options: BuildOptions,
    model: onnx.ModelProto,
    arithmetic: frozenset[str],
    samples: Samples | None,
    progress: Progress,
) -> tuple[Core | None, tuple[Graph, ...]]:
    """The graph of each recipe that a target asks for, then the float graph, which serves them all.

    Args:
        options: Precision, targets and calibration method.
        model: The fused graph, every node named.
        arithmetic: Nodes that the fuser made of arithmetic alone.
        samples: Calibration data; INT8 needs it.
        progress: Told about every calibration sample.

    Returns:
        Where lower precision is borne (None for FP32), and the graphs in the bundle's order.

    Raises:
        BuildError: Nothing in the network bears lower precision, or a tensor holds a NaN.
    """
    nvidia = tuple(target for target in options.targets if target in NVIDIA_TARGETS)
    cpu = tuple(target for target in options.targets if target == "cpu")
    graphs: list[Graph] = []
    core = lower_precision_core(model, arithmetic) if options.precision != "fp32" else None
    if core and options.precision == "int8" and samples:
        wanted = [(recipe, targets) for recipe, targets in ((CPU_INT8, cpu), (TENSORRT_INT8, nvidia)) if targets]
        watched = dict.fromkeys(
            name for recipe, _ in wanted for name in quantized_tensors(model, quantized_nodes(model, core, recipe))
        )
        ranges = calibrate(model, tuple(watched), samples.inputs, progress)
        graphs += [_int8(options, model, core, ranges, recipe, targets) for recipe, targets in wanted]
    if core and options.precision == "fp16":
        if cpu:
            progress.note("CPUs compute FP16 slower than FP32: target cpu is served by the float graph")
        if nvidia:
            seen = calibrate(model, half_tensors(model, core), samples.inputs, progress) if samples else None
            half = to_fp16(model, core, seen)
            done = tuple(n for n in (*core.weighted, *core.between, *core.last) if n not in half.kept_float)
            graphs.append(Graph("trt-fp16", "fp16", nvidia, half.model, serialize(half.model), done, half.kept_float))
    graphs.append(Graph(FLOAT, "fp32", tuple(dict.fromkeys(options.targets)), model, serialize(model)))
    return core, tuple(graphs)


def _int8(
    options: BuildOptions,
    model: onnx.ModelProto,
    core: Core,
    ranges: Ranges,
    recipe: Recipe,
    targets: tuple[Target, ...],
) -> Graph:
    quantized = to_int8(model, core, ranges, recipe, options.calibration_method)
    kept = dict.fromkeys(core.last, "a last layer: its output is read by the decoding")
    if recipe.first_in_float:
        kept |= dict.fromkeys(core.first, "it reads the image, where the float kernel is faster")
    return Graph(
        recipe.name, "int8", targets, quantized, serialize(quantized), quantized_nodes(model, core, recipe), kept
    )
