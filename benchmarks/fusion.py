"""Trained against fused, in one run: latency, memory, launches.

    python -m benchmarks.fusion
    python -m benchmarks.fusion --model my.models:network --input-shape 1,3,224,224 --threads 2

Latency on this CPU with ONNX Runtime, the two graphs in turns; memory as the fuser counts live tensors, as the process
grows, and as TensorRT-RTX accounts for it where it is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from build_engine.camera_input import CameraInput, takes_frames
from build_engine.compile.cpu import measure
from build_engine.fuse import fuse
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.load import load_model, parse_source
from build_engine.load.shapes import parse_shape
from build_engine.progress import Bars
from engine.cpu import cpu_name
from engine.errors import RuntimeUnavailable
from engine.tensorrt.plan import PlanOptions, build_plan
from surround.spec import INPUT_SIZE, MEAN, STD

WEIGHTS = Path("surround/weights/surround.safetensors")

_GROWTH = """
import pathlib, sys, numpy, onnxruntime
def most_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
data = pathlib.Path(sys.argv[1]).read_bytes()
before = most_bytes()
session = onnxruntime.InferenceSession(data, options)
inputs = {i.name: numpy.zeros([d if isinstance(d, int) else 1 for d in i.shape],
          numpy.uint8 if "uint8" in i.type else numpy.float32) for i in session.get_inputs()}
session.run(None, inputs)
print(most_bytes() - before)
"""
"""Run in a process of its own: what loading a graph and one inference add to it at most."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="surround.model:deployed", help="as for build_engine (default: %(default)s)")
    parser.add_argument("--input-shape", default=f"1,3,{INPUT_SIZE[1]},{INPUT_SIZE[0]}", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time per graph (default: %(default)s)")
    given = parser.parse_args()
    reference = given.model == parser.get_default("model")
    weights = WEIGHTS if reference and WEIGHTS.exists() else None

    with Bars() as bars:
        with bars.step(f"Loading {given.model}"):
            model = load_model(parse_source(given.model), weights, [parse_shape(given.input_shape)]).model
            trained = takes_frames(model, CameraInput("rgb", MEAN, STD)) if reference else model
        with bars.step("Fusing"):
            result = fuse(trained)
        graphs = {"trained": serialize(trained), "fused": serialize(result.model)}
        inputs = {1: random_inputs(tensor_specs(feeds(trained)), 1, seed=0)}
        latency = {
            row.graph: row
            for row in measure(graphs, inputs, seconds=given.seconds, threads=given.threads, progress=bars)
        }
        with bars.step("Measuring processes"):
            growth = {name: _growth(data, given.threads) for name, data in graphs.items()}
        with bars.step("Compiling with TensorRT-RTX"):
            plans = _plans(graphs)

    before, after = result.report.before, result.report.after
    table = Table(
        "", "trained", "fused", "fused / trained", title=f"{given.model} on {cpu_name()}", title_justify="left"
    )
    _row(table, "convolutions", before.convolutions, after.convolutions)
    _row(table, "operators to launch", before.launches, after.launches)
    _row(table, "multiply-accumulates, G", before.macs / 1e9, after.macs / 1e9, 3)
    _row(table, "parameters, M", before.parameters / 1e6, after.parameters / 1e6, 3)
    _row(table, "peak of live tensors, MB", before.activation_bytes / 1e6, after.activation_bytes / 1e6, 1)
    _row(table, "growth of an ONNX Runtime process, MB", growth["trained"] / 1e6, growth["fused"] / 1e6, 1)
    threads = f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    _row(table, f"latency, {threads}, median ms", latency["trained"].median_ms, latency["fused"].median_ms, 2)
    _row(table, f"latency, {threads}, p90 ms", latency["trained"].p90_ms, latency["fused"].p90_ms, 2)
    for label, (old, new) in plans.items():
        _row(table, label, old, new, 1)
    Console().print(table)


def _plans(graphs: dict[str, bytes]) -> dict[str, tuple[float, float]]:
    """What TensorRT-RTX says, batch 1; nothing where it is not installed."""
    try:
        old, new = (build_plan(graphs[name], "rtx", PlanOptions(max_batch=1)) for name in ("trained", "fused"))
    except RuntimeUnavailable as error:
        print(f"TensorRT-RTX's account is left out: {error.message}", file=sys.stderr)
        return {}
    rows = {"TensorRT-RTX kernels": (float(len(old.layers)), float(len(new.layers)))}
    if old.activation_bytes and new.activation_bytes:
        rows["TensorRT-RTX activation memory, MB"] = (old.activation_bytes / 1e6, new.activation_bytes / 1e6)
    return rows


def _growth(graph: bytes, threads: int) -> int:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(graph)
        file.flush()
        command = [sys.executable, "-c", _GROWTH, file.name, str(threads)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _row(table: Table, label: str, before: float, after: float, digits: int = 0) -> None:
    ratio = f"{after / before:.2f}" if before else "–"
    table.add_row(label, f"{before:,.{digits}f}", f"{after:,.{digits}f}", ratio)


if __name__ == "__main__":
    main()
