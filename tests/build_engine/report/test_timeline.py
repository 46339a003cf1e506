from __future__ import annotations

import re
from typing import Any

from build_engine.report import timeline
from build_engine.report.ribbon import ribbons


def step(node: str, operator: str, live_bytes: int) -> dict[str, Any]:
    return {"node": node, "operator": operator, "live_bytes": live_bytes}


FUSION: dict[str, Any] = {
    "live_before": [step("a", "Conv", 10), step("b", "Conv", 30), step("c", "Add", 40), step("d", "Relu", 20)],
    "live_after": [step("c.fused", "Conv", 20), step("d", "Relu", 20)],
    "regions": [
        {
            "name": "c.fused",
            "nodes": ["a", "b", "c"],
            "modules": ["stage.<0>"],
            "operators": ["Conv", "Conv", "Add"],
            "plan": "Conv",
        }
    ],
}


def test_a_fused_operator_is_as_wide_as_those_it_stands_for() -> None:
    now = re.findall(r'd="([^"]+)" class="live-now"', timeline.chart(FUSION))[0]
    assert "L0.0 102.0 L750.0 102.0 L750.0 102.0 L1000.0 102.0" in now


def test_the_peaks_are_said_and_are_on_the_scale() -> None:
    drawn = timeline.chart(FUSION)
    assert "peak <b>40 B</b> at <code>c</code>" in drawn and "peak <b>20 B</b>" in drawn
    assert re.search(r"L500.0 4.0 L750.0 4.0", drawn), "the largest step reaches the top"


def test_steps_that_nothing_is_known_of_keep_their_order() -> None:
    changed = FUSION | {"live_after": [step("x", "Conv", 5), step("y", "Conv", 50), step("d", "Relu", 20)]}
    assert "peak <b>50 B</b>" in timeline.chart(changed)


def test_every_operator_is_a_dot_and_a_region_a_frame() -> None:
    before, after = ribbons(FUSION)
    assert before.count("<i ") == 4 and before.count('class="many"') == 1
    assert after.count("<i ") == 2
    assert "<0>" not in before
