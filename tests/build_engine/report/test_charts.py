from __future__ import annotations

from xml.etree import ElementTree as ET

from build_engine.report import charts

BLOCK = [
    {"label": "3×3", "column": 0, "sources": [-1]},
    {"label": "BN", "column": 1, "sources": [0]},
    {"label": "1×1", "column": 0, "sources": [-1]},
    {"label": "+", "column": 2, "sources": [1, 2]},
]


def rectangles(svg: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(svg).iter() if element.tag.endswith("rect")]


def test_bars_are_to_scale_and_start_at_zero() -> None:
    first, second = (float(bar.attrib["width"]) for bar in rectangles(charts.bars({"a": 10.0, "b": 5.0}, "ms")))
    assert abs(first / second - 2) < 0.01


def test_labels_cannot_break_out_of_the_drawing() -> None:
    svg = charts.bars({"<script>": 1.0}, "ms") + charts.block(
        [{"label": "<b>&", "column": 0, "sources": [-1]}], ["<i>"]
    )
    assert "<script>" not in svg and "<b>" not in svg and "<i>" not in svg


def test_nothing_to_scale_by_is_no_division_by_zero() -> None:
    assert len(rectangles(charts.bars({"a": 0.0}, "MB"))) == 1


def test_boxes_of_a_block_do_not_overlap() -> None:
    boxes = [
        tuple(float(box.attrib[side]) for side in ("x", "y", "width", "height"))
        for box in rectangles(charts.block(BLOCK, ["3×3"]))
    ]
    assert len(boxes) == 5
    for index, (x, y, w, h) in enumerate(boxes):
        for other_x, other_y, other_w, other_h in boxes[index + 1 :]:
            apart = x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y
            assert apart


def test_a_block_that_disappears_is_drawn_as_nothing() -> None:
    assert "nothing" in charts.block(BLOCK, [])
