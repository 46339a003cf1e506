"""What a person sees in the terminal: a build in a few lines, a bundle as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from engine.bundle import Bundle

if TYPE_CHECKING:
    from build_engine.outcome import Built


def print_built(built: Built) -> None:
    """The outcome of a build."""
    from build_engine.report.headline import headline  # noqa: PLC0415
    from build_engine.report.stayed_out import slower, stayed_out  # noqa: PLC0415

    console = Console()
    console.print(headline(built), style="bold", highlight=False, markup=False)
    for line in (*stayed_out(built), *slower(built)):
        console.print(line, highlight=False, markup=False)
    console.print(f"bundle  {built.options.output}", highlight=False)
    if built.options.output.suffix != ".zip":
        console.print(f"report  {built.options.output / 'report.html'}", highlight=False)
    console.print(f"next    python -m server {built.options.output}", highlight=False)


def print_bundle(bundle: Bundle) -> None:
    """What a bundle says about itself."""
    manifest = bundle.manifest
    console = Console()
    console.print(f"[bold]{manifest.name} {manifest.version}[/]  {bundle.digest[:12]}", highlight=False)
    source = manifest.provenance
    console.print(f"from {source.source}, opset {source.opset}, batches up to {manifest.max_batch}", highlight=False)
    for name, dimension in manifest.dimensions.items():
        least = f"{dimension.smallest} to" if dimension.smallest else "up to"
        sizes = f"{least} {dimension.largest}, usually {dimension.usual}"
        console.print(f"{name}: {sizes}", highlight=False, markup=False)
    if manifest.preprocessing:
        seen = manifest.preprocessing
        console.print(f"takes {seen.color} frames, {seen.resize} to {seen.width}x{seen.height}", highlight=False)
    tensors = Table("tensor", "type", "shape", title="inputs and outputs", title_justify="left")
    for kind, specs in (("in", manifest.inputs), ("out", manifest.outputs)):
        for spec in specs:
            tensors.add_row(f"{kind}  {spec.name}", spec.dtype, " x ".join(map(str, spec.shape)))
    console.print(tensors)
    graphs = Table("graph", "precision", "serves", "size", title="graphs", title_justify="left")
    served: set[str] = set()
    for name, graph in manifest.graphs.items():
        serves = [target for target in graph.targets if target not in served]
        served.update(serves)
        graphs.add_row(
            name, graph.precision, ", ".join(serves) or "fallback", _size(manifest.files[graph.path].size_bytes)
        )
    console.print(graphs)
    if manifest.plans:
        plans = Table("plan", "graph", "runtime", "size", title="plans", title_justify="left")
        for plan in manifest.plans:
            runtime = f"{plan.key.get('runtime', '')} {plan.key.get('runtime_version', '')}"
            plans.add_row(plan.path, plan.graph, runtime, _size(manifest.files[plan.path].size_bytes))
        console.print(plans)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
