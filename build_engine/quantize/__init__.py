"""Lower precision, in the graph itself: FP16 by casts, INT8 by QuantizeLinear and DequantizeLinear pairs.

::

    core = lower_precision_core(model)
    ranges = calibrate(model, core.tensors, samples, method="percentile")
    int8 = to_int8(model, core, ranges, recipe=CPU_INT8)
    fp16 = to_fp16(model, core)
"""

from build_engine.quantize.calibration import METHODS, Method, Ranges, calibrate
from build_engine.quantize.core import Core, fused_arithmetic, lower_precision_core
from build_engine.quantize.fp16 import half_tensors, to_fp16
from build_engine.quantize.int8 import CPU_INT8, TENSORRT_INT8, Recipe, to_int8

__all__ = [
    "CPU_INT8",
    "METHODS",
    "TENSORRT_INT8",
    "Core",
    "Method",
    "Ranges",
    "Recipe",
    "calibrate",
    "fused_arithmetic",
    "half_tensors",
    "lower_precision_core",
    "to_fp16",
    "to_int8",
]
