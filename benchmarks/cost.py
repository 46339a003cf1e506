"""Does the cost model order what it decides between as the runtimes do?

    python -m benchmarks.cost                    20 random regions on ONNX Runtime, and by TensorRT-RTX's compiler
    python -m benchmarks.cost --regions 60 --seed 7

Each region is a few linear operators before a ReLU, as exported and merged into as few as the algebra allows; the model
predicts which is cheaper. ONNX Runtime runs both in turns on one thread; where the 95 % interval of the ratio holds 1,
neither is faster. TensorRT-RTX cannot run without a GPU: what its compiler says, kernels and activation memory, is
compared instead, and says nothing about time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from benchmarks.cost_regions import Region, regions
from build_engine.compile.interleaved import Ratio, latencies, ratio
from build_engine.compile.rtx_memory import RtxMemory, rtx_memory
from build_engine.fuse import FuseOptions
from build_engine.fuse.cost import node_ns
from build_engine.progress import Bars, Progress
from engine.cpu import cpu_name


@dataclass(frozen=True)
class Outcome:
    """A region and what was found of it; ratios are merged / apart.

    Attributes:
        region: The region.
        predicted: Ratio of the model's estimates for a CPU.
        measured: Ratio of the times on ONNX Runtime.
    """

    region: Region
    predicted: float
    measured: Ratio

    @property
    def verdict(self) -> str:
        """Whether the model's order is the measured one."""
        if self.measured.low <= 1 <= self.measured.high:
            return "tie"
        return "agrees" if (self.predicted < 1) == (self.measured.median < 1) else "misorder"


def estimate_ns(model: onnx.ModelProto, options: FuseOptions) -> float:
    """The cost model's estimate for a graph."""
    return sum(node_ns(node, options) for node in ir.serde.deserialize_model(model).graph)


def predicted_ratio(region: Region, options: FuseOptions) -> float:
    """Estimate merged / apart."""
    return estimate_ns(region.merged, options) / estimate_ns(region.apart, options)


def main() -> int:
    """Print both tables; exit code 1 where more than a tenth of the regions is misordered on ONNX Runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="time per form (default: %(default)s)")
    given = parser.parse_args()
    drawn = regions(given.regions, given.seed)
    with Bars() as bars:
        outcomes = _measured(drawn, given.seconds, bars)
        accounts = _compiled(drawn, bars)
    console = Console(width=None if sys.stdout.isatty() else 120)
    misorders = _print_measured(console, outcomes)
    _print_compiled(console, drawn, accounts)
    return int(misorders > len(outcomes) / 10)


def _measured(drawn: list[Region], seconds: float, progress: Progress) -> list[Outcome]:
    outcomes = []
    with progress.step("Measuring regions on ONNX Runtime", len(drawn)) as advance:
        for region in drawn:
            times = latencies({"apart": region.apart, "merged": region.merged}, seconds=seconds)
            predicted = predicted_ratio(region, FuseOptions.for_target("cpu"))
            outcomes.append(Outcome(region, predicted, ratio(times["merged"], times["apart"])))
            advance()
    return outcomes


def _compiled(drawn: list[Region], progress: Progress) -> list[tuple[RtxMemory, RtxMemory]]:
    accounts = []
    with progress.step("Compiling regions with TensorRT-RTX", len(drawn)) as advance:
        for region in drawn:
            apart, merged = rtx_memory(region.apart), rtx_memory(region.merged)
            if apart is None or merged is None:
                return []
            accounts.append((apart, merged))
            advance()
    return accounts


def _print_measured(console: Console, outcomes: list[Outcome]) -> int:
    table = Table("region", title=f"ONNX Runtime, one thread of {cpu_name()}: merged / apart", title_justify="left")
    for title in ("predicted", "measured", "95 %", ""):
        table.add_column(title, justify="right")
    colors = {"agrees": "green", "misorder": "red", "tie": "yellow"}
    for outcome in outcomes:
        found, verdict = outcome.measured, outcome.verdict
        interval = f"{found.low:.2f} to {found.high:.2f}"
        said = f"[{colors[verdict]}]{verdict}[/]"
        table.add_row(outcome.region.name, f"{outcome.predicted:.2f}", f"{found.median:.2f}", interval, said)
    console.print(table)
    misorders = [outcome for outcome in outcomes if outcome.verdict == "misorder"]
    # What a wrong choice costs: the time of the one the model takes over that of the better one.
    loss = max((max(o.measured.median, 1 / o.measured.median) for o in misorders), default=1.0)
    console.print(
        f"{len(misorders)} of {len(outcomes)} misordered; the worst choice costs {100 * (loss - 1):.0f} %",
        highlight=False,
    )
    for outcome in misorders:
        console.print(f"  misorder: {outcome.region.name}", highlight=False)
    return len(misorders)


def _print_compiled(console: Console, drawn: list[Region], accounts: list[tuple[RtxMemory, RtxMemory]]) -> None:
    if not accounts:
        console.print("TensorRT-RTX is not installed: its compiler was not asked")
        return
    title = "TensorRT-RTX's compiler, FP16 (no GPU: no times)"
    table = Table("region", title=title, title_justify="left")
    for name in ("predicted", "kernels", "activations, kB", ""):
        table.add_column(name, justify="right")
    against = []
    for region, (apart, merged) in zip(drawn, accounts, strict=True):
        predicted = predicted_ratio(region, FuseOptions.for_target("rtx"))
        before, after = apart.own_activation_bytes / 1e3, merged.own_activation_bytes / 1e3
        better, worse = (
            merged.kernels < apart.kernels and after <= before,
            merged.kernels > apart.kernels or after > before,
        )
        verdict = "agrees" if (predicted < 1 and better) or (predicted >= 1 and worse) else "open"
        if (predicted < 1 and worse) or (predicted >= 1 and better):
            verdict = "against"
            against.append(region.name)
        kernels = f"{apart.kernels} → {merged.kernels}"
        table.add_row(region.name, f"{predicted:.2f}", kernels, f"{before:,.0f} → {after:,.0f}", verdict)
    console.print(table)
    console.print(
        f"{len(against)} of {len(drawn)} against what the compiler says of kernels and memory", highlight=False
    )
    for name in against:
        console.print(f"  against: {name}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
