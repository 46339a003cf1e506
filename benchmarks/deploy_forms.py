"""Fused against trained, and against the form that a family's authors deploy; memory as TensorRT-RTX accounts for it.

    python -m benchmarks.deploy_forms
    python -m benchmarks.deploy_forms --seconds 60       narrower intervals

MobileOne-S0 (arXiv 2206.04040) and RepVGG-A0 (arXiv 2101.03697) at 224x224, random weights, ONNX Runtime on one thread:
all three forms of a network run in every round. The deploy form is made by the family's own arithmetic in PyTorch; ours
is made from the ONNX export of the trained form, which says nothing of families. Memory: a RepVGG-shaped network at
1x3x512x1024 in FP16, less what TensorRT-RTX takes for any network.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.families import classifier, deployed, mobileone, repvgg, settled
from build_engine.compile.interleaved import latencies, ratio
from build_engine.compile.rtx_memory import rtx_memory
from build_engine.fuse import count, fuse
from build_engine.graph import feeds, random_inputs, tensor_specs
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from build_engine.progress import Bars, Progress
from build_engine.session import Session
from engine.cpu import cpu_name

DEPLOY_TOLERANCE = 0.02
MEMORY_AIM = 0.5


@dataclass(frozen=True)
class Case:
    """A network and how much faster fusing is to make it."""

    name: str
    trained: nn.Module
    speedup_aim: float


def main() -> int:
    """Print the table; exit code 1 where an aim is missed, the whole interval of a ratio beyond it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="time per form (default: %(default)s)")
    given = parser.parse_args()
    torch.manual_seed(0)
    cases = (
        Case("MobileOne-S0", classifier(mobileone((2, 8, 10, 1), (48, 128, 256, 1024), 4), 1024), 3.5),
        Case("RepVGG-A0", classifier(repvgg((1, 2, 4, 14, 1), (48, 48, 96, 192, 1280)), 1280), 1.1),
    )
    reached: list[bool] = []
    console = Console(width=None if sys.stdout.isatty() else 140)
    with Bars() as bars:
        rows = [row for case in cases for row in _speed(case, given.seconds, bars, reached)]
        memory = _memory(bars, reached)
    table = Table("network", "", "measured", "aim", "", title=f"one thread of {cpu_name()}", title_justify="left")
    for row in (*rows, *memory):
        table.add_row(*row)
    console.print(table)
    return int(not all(reached))


def _speed(case: Case, seconds: float, progress: Progress, reached: list[bool]) -> list[tuple[str, ...]]:
    network = settled(case.trained)
    shape = [InputShape(None, (1, 3, 224, 224))]
    with progress.step(f"Exporting and fusing {case.name}"):
        trained, plain = export(network, shape, None), export(deployed(network), shape, None)
        forms = {"trained": trained, "fused": fuse(trained).model, "deployed": plain}
    times = latencies(forms, seconds=seconds, progress=progress)
    faster, against = ratio(times["trained"], times["fused"]), ratio(times["fused"], times["deployed"])
    counts = [count(form).convolutions for form in forms.values()]
    medians = [f"{np.median(found):.2f} ms" for found in times.values()]
    same = counts[1] <= counts[2]
    reached += [same, faster.high >= case.speedup_aim, against.low <= 1 + DEPLOY_TOLERANCE]
    return [
        (case.name, "convolutions: trained, fused, deployed", ", ".join(map(str, counts)), "as deployed", _mark(same)),
        ("", "medians", ", ".join(medians), "", ""),
        (
            "",
            "trained / fused",
            str(faster),
            f">= {case.speedup_aim}",
            _judged(faster.median >= case.speedup_aim, reached[-2]),
        ),
        (
            "",
            "fused / deployed",
            str(against),
            f"<= {1 + DEPLOY_TOLERANCE}",
            _judged(against.median <= 1 + DEPLOY_TOLERANCE, reached[-1]),
        ),
        ("", "largest difference, fused and deployed", f"{_difference(forms['fused'], plain):.1e}", "", ""),
    ]


def _difference(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """Relative to the largest output."""
    inputs = random_inputs(tensor_specs(feeds(one)), 1, 0)
    a, b = (next(iter(Session(model).run(inputs).values())) for model in (one, other))
    return float(np.abs(a - b).max() / np.abs(b).max())


def _memory(progress: Progress, reached: list[bool]) -> list[tuple[str, ...]]:
    network = settled(nn.Sequential(*repvgg((2, 3, 4, 2), (48, 96, 192, 384))))
    with progress.step("Compiling with TensorRT-RTX"):
        model = export(network, [InputShape(None, (1, 3, 512, 1024))], None)
        trained, fused = rtx_memory(model), rtx_memory(fuse(model).model)
    if trained is None or fused is None:
        return [("RepVGG-shaped, 512x1024", "TensorRT-RTX is not installed", "", "", "")]
    share = fused.own_activation_bytes / trained.own_activation_bytes
    reached.append(share <= MEMORY_AIM)
    return [
        ("RepVGG-shaped", "TensorRT-RTX kernels", f"{trained.kernels} → {fused.kernels}", "", ""),
        (
            "1x3x512x1024, FP16",
            f"activation memory less {trained.constant_bytes / 1e6:.1f} MB",
            f"{trained.own_activation_bytes / 1e6:.1f} → {fused.own_activation_bytes / 1e6:.1f} MB, {share:.2f}x",
            f"<= {MEMORY_AIM}",
            _mark(share <= MEMORY_AIM),
        ),
    ]


def _judged(reached: bool, possible: bool) -> str:
    """A measured ratio against its aim; where the aim lies inside the interval, noise leaves it open."""
    return _mark(reached) if reached or not possible else "[yellow]open[/]"


def _mark(passed: bool) -> str:
    return "[green]reached[/]" if passed else "[red]missed[/]"


if __name__ == "__main__":
    sys.exit(main())
