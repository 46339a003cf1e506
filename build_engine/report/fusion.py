"""The part of a report that is about fusion: its facts, and what a page draws of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from build_engine.fuse import FuseReport
from build_engine.fuse.verify import Verification
from build_engine.mean import MeanFolding
from build_engine.report import drawing, timeline
from build_engine.report.blocks import Structure, blocks
from build_engine.report.ribbon import ribbons
from build_engine.report.units import count, size
from build_engine.shortcuts import Shortcuts

FOLDER = Path(__file__).parent


def fusion_facts(
    report: FuseReport,
    trained: Structure,
    fused: Structure,
    verification: Verification | None,
    shortcuts: Shortcuts | None,
    mean: MeanFolding | None = None,
) -> dict[str, Any]:
    """The facts, JSON-able.

    Args:
        report: What the fuser did.
        trained: The graph it was given.
        fused: The graph it made.
        verification: How far apart they are; None where that was not measured.
        shortcuts: What became of shortcuts; None where they were to be left.
        mean: What became of a camera's mean; None without one.
    """
    return {
        **report.to_dict(),
        "blocks": [asdict(block) for block in blocks(report, trained, fused)],
        "verification": verification and verification.to_dict(),
        "shortcuts": shortcuts and shortcuts.to_dict(),
        "mean": mean and mean.to_dict(),
    }


def drawn(facts: dict[str, Any]) -> dict[str, Any]:
    """What the template `fusion.html.j2` needs beside the facts."""
    was, now = ribbons(facts)
    return {
        "drawings": [(drawing.before(block["before"]), drawing.after(block["after"])) for block in facts["blocks"]],
        "ribbon_before": was,
        "ribbon_after": now,
        "timeline": timeline.chart(facts),
        "merged": [region for region in facts["regions"] if region["before"]["nodes"] > 1],
        "reasons": Counter(kept["reason"] for kept in facts["kept"]).most_common(),
    }


def environment() -> jinja2.Environment:
    """Where the report's templates are, with the filters they use."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"size": size, "count": count}
    return found


def fuse_page(source: str, facts: dict[str, Any], notes: tuple[str, ...]) -> str:
    """A page about fusion alone.

    Args:
        source: What was fused.
        facts: As `fusion_facts` gives them, once they went through JSON.
        notes: What a person should know.
    """
    style = (FOLDER / "report.css").read_text()
    template = environment().get_template("fuse.html.j2")
    return template.render(source=source, fusion=facts, notes=notes, style=style, **drawn(facts))
