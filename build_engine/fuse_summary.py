"""What the fuser did, for a terminal."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import fields

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from build_engine.fuse import Cost, FusedRegion, FuseReport
from build_engine.fuse_command import FusedFile
from build_engine.report.layers import common_module
from build_engine.report.units import count, size
from build_engine.shortcuts import Shortcuts

MOST_ROWS = 60
"""Regions and reasons that are listed; `--json` has all of them."""

_LABELS = {
    "convolutions": "convolutions",
    "nodes": "nodes",
    "macs": "multiply-accumulates",
    "parameters": "parameters",
    "activation_bytes": "peak of live activations",
    "launches": "operators to launch",
}


def print_fused(fused: FusedFile) -> None:
    """Tables of what went where, what did not and why, and what it saved."""
    console = Console(width=None if os.isatty(1) else 160)
    report = fused.report
    _regions(console, report)
    _kept(console, report)
    _whole(console, report)
    if fused.shortcuts is not None:
        _shortcuts(console, fused.shortcuts)
    if fused.verification is not None:
        worst = max(fused.verification.outputs, key=lambda output: output.fused / output.bound, default=None)
        said = f": {worst.name} is off by {worst.fused:.1e} of its scale, {worst.bound:.1e} allowed" if worst else ""
        console.print(
            f"verified on {fused.verification.inputs} inputs against {fused.verification.reference}{escape(said)}",
            highlight=False,
        )
    for note in fused.notes:
        console.print(f"[yellow]note[/] {escape(note)}", highlight=False)
    for file in fused.files:
        console.print(f"wrote {escape(str(file))}, {size(file.stat().st_size)}", highlight=False)


def _regions(console: Console, report: FuseReport) -> None:
    merged = [region for region in report.regions if region.before.nodes > 1]
    if not merged:
        console.print("nothing to fuse: between any two nonlinearities there is one operation already")
        return
    table = Table(title=f"{len(merged)} regions fused", title_justify="left")
    table.add_column("region", overflow="fold")
    table.add_column("nodes that went in", overflow="fold")
    for title in ("now", "MACs", "parameters", "live", "launches"):
        table.add_column(title, justify="right" if title != "now" else "left")
    for region in merged[:MOST_ROWS]:
        table.add_row(*_region(region))
    console.print(table)
    if len(merged) > MOST_ROWS:
        console.print(f"and {len(merged) - MOST_ROWS} more regions; --json lists them all", highlight=False)


def _region(region: FusedRegion) -> tuple[str, ...]:
    kinds = Counter(region.operators)
    went_in = ", ".join(f"{number} {kind}" if number > 1 else kind for kind, number in kinds.items())
    before, after = region.before, region.after
    return (
        escape(common_module(region.modules) or region.name),
        escape(went_in),
        escape(region.plan),
        f"{count(before.macs)} → {count(after.macs)}",
        f"{count(before.parameters)} → {count(after.parameters)}",
        f"{size(before.activation_bytes)} → {size(after.activation_bytes)}",
        f"{before.launches} → {after.launches}",
    )


def _kept(console: Console, report: FuseReport) -> None:
    if not report.kept:
        return
    numbers = Counter(line.reason for line in report.kept)
    said = ", ".join(f"{reason} {number}" for reason, number in numbers.most_common())
    others = [line for line in report.kept if line.reason != "nonlinearity"]
    table = Table("operation", "reason", "in words", title=f"kept apart: {said}", title_justify="left")
    for line in others[:MOST_ROWS]:
        name = line.modules[0] if line.modules else line.name
        table.add_row(escape(name), line.reason, escape(line.sentence))
    console.print(table if others else f"kept apart: {said}", highlight=False)


def _whole(console: Console, report: FuseReport) -> None:
    table = Table("whole model, one inference", title_justify="left")
    for title in ("as it came", "fused", "ratio"):
        table.add_column(title, justify="right")
    for field in fields(Cost):
        before, after = getattr(report.before, field.name), getattr(report.after, field.name)
        form = size if field.name == "activation_bytes" else "{:,}".format
        table.add_row(_LABELS[field.name], form(before), form(after), f"{after / before:.2f}" if before else "–")
    console.print(table)


def _shortcuts(console: Console, shortcuts: Shortcuts) -> None:
    what = f"{len(shortcuts.removable)} shortcuts " + ("removed" if shortcuts.removed else "stay")
    console.print(f"[bold]{what}[/]: {escape(shortcuts.reason)}", highlight=False)
