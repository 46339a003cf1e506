"""A raw frame by Triton-compatible system shared memory: Triton and ours side by side, the same client.

    python -m benchmarks.peers.frames                  6.2 MB frames, 15 rounds: half a minute once installed
    python -m benchmarks.peers.frames --size 640x384

`tritonclient.grpc` copies the frame into its region and calls; the model answers with the frame's first pixels, so
that moving the frame is all there is. Servers are called in turns. `handle` is the call alone, the frame being there
already.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks import reference_model
from benchmarks.peers import servers
from benchmarks.peers.environments import python_of
from benchmarks.peers.triton_models import frame_entry
from benchmarks.serving import machine, verdict
from benchmarks.small_bundle import write_bundle
from engine.tensors import TensorSpec

AIM = 1.4
"""Ours over Triton's."""


def write_frame_bundle(path: Path, width: int, height: int) -> Path:
    """Write a bundle whose engine gives the first pixels of a frame.

    Args:
        path: Where; must not exist.
        width: Columns of the frame.
        height: Rows of the frame.
    """
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Slice", ["frame", "starts", "ends"], ["corner"])],
        "frame",
        [value("frame", TensorProto.UINT8, [height, width, 3])],
        [value("corner", TensorProto.UINT8, [1, 8, 3])],
        [
            numpy_helper.from_array(np.array(sizes, np.int64), name)
            for name, sizes in (("starts", [0, 0]), ("ends", [1, 8]))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return write_bundle(
        path,
        model.SerializeToString(),
        TensorSpec(name="frame", dtype="uint8", shape=(height, width, 3)),
        TensorSpec(name="corner", dtype="uint8", shape=(1, 8, 3)),
    )


def measure(python: Path, width: int, height: int, rounds: int, frames: int) -> dict[str, dict[str, list[float]]]:
    """Medians per round in milliseconds, by way and server.

    Args:
        python: Interpreter of Triton's environment.
        width: Columns of the frame.
        height: Rows of the frame.
        rounds: Rounds.
        frames: For each server per round.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = write_frame_bundle(folder / "frame-corner", width, height)
        entry = frame_entry(folder / "repository", width, height)
        running = [
            stack.enter_context(servers.ours(bundle, folder, None)),
            stack.enter_context(servers.triton(python, entry, folder, None)),
        ]
        task: dict[str, Any] = {
            "servers": [{"name": one.name, "address": one.address, "model": one.model} for one in running],
            "width": width,
            "height": height,
            "rounds": rounds,
            "frames": frames,
        }
        command = [str(python), str(servers.HERE / "measure_frames.py"), json.dumps(task)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            logs = "\n".join(f"── {log.name}\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log")))
            raise SystemExit(f"the client failed\n{logs}")
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    return found


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080", help="of the frame (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (%(default)s)")
    parser.add_argument("--frames", type=int, default=40, help="for each server per round (%(default)s)")
    parser.add_argument(
        "--environments", type=Path, default=reference_model.CACHE / "environments", help="folder (%(default)s)"
    )
    arguments = parser.parse_args()
    python = python_of("triton", arguments.environments)
    if python is None:
        print("Triton could not be installed", file=sys.stderr)
        return 2
    width, height = (int(size) for size in arguments.size.split("x"))
    found = measure(python, width, height, arguments.rounds, arguments.frames)
    console = Console()
    table = Table(title=f"{width}x{height} by system shared memory, {machine()}", title_justify="left")
    for name in ("", "server", "p50 ms", "x Triton, median of rounds", "least", "most"):
        table.add_column(name, justify="right" if "s" in name and name != "server" else "left")
    reached = {}
    for way, by_server in found.items():
        (triton,) = [times for name, times in by_server.items() if name.startswith("Triton")]
        for name, times in by_server.items():
            ratios = [one / other for one, other in zip(times, triton, strict=True)]
            reached[way, name] = statistics.median(ratios)
            shown = (statistics.median(times), statistics.median(ratios), min(ratios), max(ratios))
            table.add_row(way, name, *(f"{value:.3f}" for value in shown))
    console.print(table)
    console.print(
        verdict("ours over Triton, the client's copy included", reached["copied", "ours"], AIM), highlight=False
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
