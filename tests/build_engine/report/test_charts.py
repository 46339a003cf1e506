from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from build_engine.report import charts


def rectangles(svg: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(svg).iter() if element.tag.endswith("rect")]


def widths(chart: str) -> list[float]:
    return [float(width) for width in re.findall(r"width:([\d.]+)%", chart)]


def test_bars_are_to_scale_and_start_at_zero() -> None:
    assert widths(charts.bars({"a": 10.0, "b": 5.0}, "ms")) == [100, 50]


def test_labels_cannot_break_out_of_the_drawing() -> None:
    assert "<script>" not in charts.bars({"<script>": 1.0}, "ms")


def test_nothing_to_scale_by_is_no_division_by_zero() -> None:
    assert widths(charts.bars({"a": 0.0}, "MB")) == [0]
