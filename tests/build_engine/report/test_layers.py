from __future__ import annotations

import pytest
from onnx import helper

from build_engine.report.layers import common_module, kernel


@pytest.mark.parametrize(
    ("attributes", "weight", "text"),
    [
        ({}, (8, 4, 3, 3), "3x3"),
        ({"strides": [2, 2]}, (8, 4, 3, 3), "3x3 s2"),
        ({"group": 8}, (8, 1, 5, 5), "5x5 dw"),
        ({"group": 2, "dilations": [2, 2]}, (8, 4, 3, 1), "3x1 g2 d2"),
    ],
)
def test_a_convolutions_geometry_in_the_fields_shorthand(
    attributes: dict[str, object], weight: tuple[int, ...], text: str
) -> None:
    assert kernel(helper.make_node("Conv", ["x", "w"], ["y"], **attributes), weight) == text


@pytest.mark.parametrize(
    ("modules", "module"),
    [
        (("stage1.0.dense.0", "stage1.0.point.0", "stage1.0"), "stage1.0"),
        (("stem", "head"), "head"),
        (("head",), "head"),
        ((), ""),
    ],
)
def test_a_region_is_called_after_the_module_that_holds_it(modules: tuple[str, ...], module: str) -> None:
    assert common_module(modules) == module
