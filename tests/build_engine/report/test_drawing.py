from __future__ import annotations

from typing import Any

from build_engine.report import drawing
from tests.build_engine.report.test_charts import rectangles

BLOCK: list[dict[str, Any]] = [
    {"label": "3×3", "column": 0, "sources": [-1]},
    {"label": "BN", "column": 1, "sources": [0]},
    {"label": "1×1", "column": 0, "sources": [-1]},
    {"label": "+", "column": 2, "sources": [1, 2]},
]


def test_boxes_of_a_block_do_not_overlap() -> None:
    boxes = [
        tuple(float(box.attrib[side]) for side in ("x", "y", "width", "height"))
        for box in rectangles(drawing.before(BLOCK))
    ]
    assert len(boxes) == 4
    for index, (x, y, w, h) in enumerate(boxes):
        for other_x, other_y, other_w, other_h in boxes[index + 1 :]:
            apart = x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y
            assert apart


def test_a_block_flows_downwards_so_that_it_stays_narrow() -> None:
    boxes = rectangles(drawing.before([{"label": "3×3", "column": c, "sources": [c - 1]} for c in range(12)]))
    assert len({box.attrib["x"] for box in boxes}) == 1


def test_a_block_that_disappears_has_no_box() -> None:
    assert not rectangles(drawing.after([]))
    assert "now: nothing" in drawing.after([])


def test_labels_cannot_break_out_of_the_drawing() -> None:
    svg = drawing.before([{"label": "<b>&", "column": 0, "sources": [-1]}]) + drawing.after(["<i>"])
    assert "<b>" not in svg and "<i>" not in svg
