"""Lower precision, in the graph itself: FP16 and BF16 by casts, INT8 and FP8 by Quantize- and DequantizeLinear pairs.

What the build does, and what a program of yours can::

    core = lower_precision_core(model)                          # where lower precision is borne
    quantizer = Quantizer(model, core, samples, [CPU_INT8, TENSORRT_INT8], progress)
    noise = Noise(model, core, samples[:8], Store(None, progress))
    choice, tried = best_choice(quantizer, noise, None, progress)  # calibration, equalization, rounding: by measurement
    int8 = quantizer.graph(choice, CPU_INT8)

A budget is kept by `Search`, a judge on labelled data is a `Metric`; `calibrate`, `choose_limits`, `to_int8` and
`to_half` are the single steps.
"""

from build_engine.quantize.calibration import METHODS, Limits, Method, Ranges, calibrate, choose_limits
from build_engine.quantize.choice import Tried, best_choice
from build_engine.quantize.core import Core, fused_arithmetic, lower_precision_core
from build_engine.quantize.emulate import emulated
from build_engine.quantize.equalize import equalize
from build_engine.quantize.half import BF16, FP16, HalfFormat, half_tensors, to_half
from build_engine.quantize.int8 import (
    CPU_INT8,
    TENSORRT_FP8,
    TENSORRT_INT8,
    Recipe,
    quantized_nodes,
    quantized_tensors,
    to_int8,
)
from build_engine.quantize.judge import Judge, Judgement, Metric
from build_engine.quantize.noise import Noise, layer_errors
from build_engine.quantize.quantizer import PLAIN, Choice, Quantizer
from build_engine.quantize.search import Found, Search
from build_engine.quantize.store import Store

__all__ = [
    "BF16",
    "CPU_INT8",
    "FP16",
    "METHODS",
    "PLAIN",
    "TENSORRT_FP8",
    "TENSORRT_INT8",
    "Choice",
    "Core",
    "Found",
    "HalfFormat",
    "Judge",
    "Judgement",
    "Limits",
    "Method",
    "Metric",
    "Noise",
    "Quantizer",
    "Ranges",
    "Recipe",
    "Search",
    "Store",
    "Tried",
    "best_choice",
    "calibrate",
    "choose_limits",
    "emulated",
    "equalize",
    "fused_arithmetic",
    "half_tensors",
    "layer_errors",
    "lower_precision_core",
    "quantized_nodes",
    "quantized_tensors",
    "to_half",
    "to_int8",
]
