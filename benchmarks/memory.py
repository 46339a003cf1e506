"""What fusing a large model takes in memory, against what its weights take.

    python -m benchmarks.memory                  1.2 GB of weights in external data, then inside the file; 0.3 GB
    python -m benchmarks.memory --gigabytes 3

Each model is written to the disk, and fused by `python -m build_engine fuse` in a process of its own, whose peak is the
kernel's (VmHWM), less what the imports alone take. Verification is apart: it runs both networks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from build_engine.load.wire import write_inside, write_outside

AIMS = ((1e9, 3.0), (float("inf"), 1.5))
"""Up to so many bytes of weights, the peak is at most so many times them."""

_PEAK = """
import pathlib, sys
def most_bytes():
    return 1024 * int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
from build_engine.__main__ import main
import build_engine.fuse_command, build_engine.fuse_summary
imports = most_bytes()
code = main(sys.argv[1:])
print(most_bytes() - imports, file=sys.stderr)
sys.exit(code)
"""


def write_model(path: Path, size_bytes: float, *, inside: bool, channels: int = 1024) -> int:
    """A chain of RepVGG-like blocks with about so many bytes of weights; returns how many.

    Args:
        path: The `.onnx` file.
        size_bytes: Of all weights.
        inside: Whether the weights are in the file itself.
        channels: Of each block.
    """
    random = np.random.default_rng(0)
    shape = ir.Shape([1, channels, 4, 4])
    y = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    graph = ir.Graph([y], [], nodes=[], opset_imports={"": 18}, name="large")
    large, small = (random.standard_normal((channels, channels, k, k), np.float32) / channels for k in (3, 1))
    blocks = round(size_bytes / (large.nbytes + small.nbytes))
    for index in range(blocks):
        branches = []
        for weight, pad in ((large, 1), (small, 0)):
            name = f"block{index}.{weight.shape[2]}x{weight.shape[2]}"
            value = ir.Value(name=name, const_value=ir.tensor(weight, name=name))  # one array, written many times
            graph.register_initializer(value)
            node = ir.node("Conv", [y, value], {"pads": [pad] * 4}, name=f"{name}/conv")
            branches.append(_append(graph, node, shape))
        y = _append(graph, ir.node("Relu", [_append(graph, ir.node("Add", branches), shape)]), shape)
    graph.outputs.append(y)
    model = ir.Model(graph, ir_version=9)
    with path.open("wb") as file:
        if inside:
            write_inside(model, file)
        else:
            data = path.with_suffix(".data")
            with data.open("wb") as outside:
                write_outside(model, file, outside, data.name)
    return blocks * (large.nbytes + small.nbytes)


def _append(graph: ir.Graph, node: ir.Node, shape: ir.Shape) -> ir.Value:
    graph.append(node)
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), shape
    return node.outputs[0]


def peak_bytes(model: Path, output: Path) -> int:
    """Peak memory of a process that fuses a model, above its imports."""
    command = [sys.executable, "-c", _PEAK, "fuse", str(model), "-o", str(output), "--no-verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stderr.strip().splitlines()[-1])


def main() -> int:
    """Print the table; exit code 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gigabytes", type=float, default=1.2, help="weights of the large model (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the models lie meanwhile (default: the system's)")
    given = parser.parse_args()
    table = Table(
        "weights", "where", "peak above imports", "times the weights", "aim", "", title="python -m build_engine fuse"
    )
    missed = False
    for gigabytes, inside in ((given.gigabytes, False), (min(given.gigabytes, 1.9), True), (0.3, False), (0.3, True)):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            path = Path(folder) / "large.onnx"
            weights = write_model(path, 1e9 * gigabytes, inside=inside)
            peak = peak_bytes(path, Path(folder) / "fused.onnx")
        aim = next(ratio for limit, ratio in AIMS if weights <= limit)
        missed |= peak > aim * weights
        verdict = "[green]reached[/]" if peak <= aim * weights else "[red]missed[/]"
        where = "in the file" if inside else "external data"
        table.add_row(
            f"{weights / 1e9:.2f} GB", where, f"{peak / 1e9:.2f} GB", f"{peak / weights:.2f}", f"{aim}", verdict
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
