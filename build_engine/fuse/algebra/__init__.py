"""Convolution forms and the exact rules that compose them; knows numpy, not ONNX."""

from build_engine.fuse.algebra.arranged import Arranged
from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.exactness import NotExact, Reason
from build_engine.fuse.algebra.form import Form, Source
from build_engine.fuse.algebra.framed import Framed
from build_engine.fuse.algebra.placed import Placed
from build_engine.fuse.algebra.transposed import TransposedConvolution
from build_engine.fuse.algebra.window import Window

__all__ = [
    "Arranged",
    "Array",
    "Convolution",
    "Deferred",
    "Form",
    "Framed",
    "NotExact",
    "Placed",
    "Reason",
    "Source",
    "TransposedConvolution",
    "Window",
]
