"""Structural re-parameterization of any ONNX graph: what is linear becomes one convolution.

from build_engine.fuse import fuse

result = fuse(onnx.load("trained.onnx"))
onnx.save(result.model, "fused.onnx")
print(result.report)

`fuse_verified` also compares the outcome on inputs of yours; a region that misses its bound stays as it was.
"""

from build_engine.fuse.cost import Cost, count
from build_engine.fuse.fusion import FuseResult, fuse
from build_engine.fuse.options import FuseOptions
from build_engine.fuse.report import FusedRegion, FuseReport, KeptRegion
from build_engine.fuse.verified import VerifiedFusion, fuse_verified
from build_engine.fuse.verify import FusionMismatch, Verifier

__all__ = [
    "Cost",
    "FuseOptions",
    "FuseReport",
    "FuseResult",
    "FusedRegion",
    "FusionMismatch",
    "KeptRegion",
    "VerifiedFusion",
    "Verifier",
    "count",
    "fuse",
    "fuse_verified",
]
