from __future__ import annotations

from xml.etree import ElementTree as ET

from build_engine.report import charts


def rectangles(svg: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(svg).iter() if element.tag.endswith("rect")]


def test_bars_are_to_scale_and_start_at_zero() -> None:
    first, second = (float(bar.attrib["width"]) for bar in rectangles(charts.bars({"a": 10.0, "b": 5.0}, "ms")))
    assert abs(first / second - 2) < 0.01


def test_labels_cannot_break_out_of_the_drawing() -> None:
    assert "<script>" not in charts.bars({"<script>": 1.0}, "ms")


def test_nothing_to_scale_by_is_no_division_by_zero() -> None:
    assert len(rectangles(charts.bars({"a": 0.0}, "MB"))) == 1
