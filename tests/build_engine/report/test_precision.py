from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_engine.report.precision import bars, plots, ticks


@given(st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_reach_the_largest_value(largest: float) -> None:
    marks = ticks(largest)
    assert 3 <= len(marks) <= 7 and marks[0] == 0
    assert marks[-2] < largest <= marks[-1] * (1 + 1e-9)
    assert f"{marks[1]:.0e}"[0] in "125"


def test_the_axis_is_in_per_cent() -> None:
    drawn = bars(["a", "b"], {"alone": [0.004, 0.0157]}, [False, False])
    assert re.findall(r">([\d.]+) %</text>", drawn) == ["0", "0.5", "1", "1.5", "2"]
    assert "a: 0.40 %" in drawn and "kept out" not in drawn


def test_layers_go_by_their_modules_and_graphs_by_their_names() -> None:
    layers = [
        {"name": "conv.fused", "sensitivity": 0.01, "error": {"cpu-int8": 0.02}, "kept": True},
        {"name": "other", "sensitivity": None, "error": {}, "kept": False},
    ]
    found = plots({"layers": layers}, {"conv.fused": "stem.0"}, lambda name: name.upper())
    assert len(found) == 2 and all("kept out" in drawn for _, drawn in found)
    assert "stem.0: 1.00 %" in found[0][1] and "CPU-INT8" in found[1][1]


@pytest.mark.parametrize("nothing", [None, {"layers": []}])
def test_nothing_measured_draws_nothing(nothing: dict[str, list[object]] | None) -> None:
    assert plots(nothing, {}, str) == []
