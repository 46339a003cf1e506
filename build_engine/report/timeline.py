"""Memory of activations from input to output, before and after, one over the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from build_engine.report.units import size

_WIDTH, _HEIGHT = 1000, 200


def chart(fusion: Mapping[str, Any]) -> str:
    """Two areas on one scale. A fused operator is as wide as those it stands for, so that places correspond.

    Args:
        fusion: A fuser's report as `FuseReport.to_dict` gives it.
    """
    was, now = fusion["live_before"], fusion["live_after"]
    if not was or not now:
        return ""
    ends = _ends(fusion)
    peak = max(step["live_bytes"] for step in (*was, *now)) or 1
    before = _area([step["live_bytes"] for step in was], list(range(1, len(was) + 1)), peak, len(was))
    after = _area([step["live_bytes"] for step in now], ends, peak, len(was))
    top_before, top_after = (max(steps, key=lambda step: step["live_bytes"]) for steps in (was, now))
    said = f"peak {size(top_before['live_bytes'])} as trained, {size(top_after['live_bytes'])} fused"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" class="timeline" role="img" '
        f'aria-label="{escape(said)}"><path d="{before}" class="live-was"/><path d="{after}" class="live-now"/></svg>'
        f'<div class="axis"><span>input</span><span>{len(was)} operators → {len(now)}</span><span>output</span></div>'
        f'<p class="legend"><i class="live-was"></i> as trained: peak <b>{size(top_before["live_bytes"])}</b> '
        f"at <code>{escape(top_before['node'])}</code></p>"
        f'<p class="legend"><i class="live-now"></i> fused: peak <b>{size(top_after["live_bytes"])}</b> '
        f"at <code>{escape(top_after['node'])}</code></p>"
    )


def _ends(fusion: Mapping[str, Any]) -> list[int]:
    """Where each step now ends, in steps as trained."""
    place = {step["node"]: index for index, step in enumerate(fusion["live_before"])}
    last = dict(place)
    for region in fusion["regions"]:
        known = [place[node] for node in region["nodes"] if node in place]
        if known:
            last[region["name"]] = max(known)
    ends: list[int] = []
    steps, total = fusion["live_after"], len(fusion["live_before"])
    for index, step in enumerate(steps):
        reached = ends[-1] if ends else 0
        left = len(steps) - index
        # A step that nothing is known of takes its share of what is left.
        end = last[step["node"]] + 1 if step["node"] in last else reached + max(0, total - reached) // left
        ends.append(max(reached, end))
    ends[-1] = total
    return ends


def _area(values: Sequence[int], ends: Sequence[int], peak: int, total: int) -> str:
    path = [f"M0 {_HEIGHT}"]
    start = 0
    hidden = 0  # of steps without width: no peak may disappear
    for value, end in zip(values, ends, strict=True):
        hidden = max(hidden, value)
        if end <= start:
            continue
        y = _HEIGHT - (_HEIGHT - 4) * hidden / peak
        path.append(f"L{_WIDTH * start / total:.1f} {y:.1f} L{_WIDTH * end / total:.1f} {y:.1f}")
        start, hidden = end, 0
    return " ".join([*path, f"L{_WIDTH} {_HEIGHT} Z"])
