from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from build_engine.outcome import FLOAT, UNFUSED, Built, Latency
from build_engine.report.stayed_out import few, slower, stayed_out
from build_engine.summary import print_built


def test_every_graph_says_which_layers_it_left_out_and_the_budget_why(built: Built) -> None:
    assert built.lowered is not None and built.lowered.found is not None
    found = built.lowered.found
    assert found.kept
    cpu, rtx, budget = stayed_out(built)
    layers = len(built.lowered.core.weighted) + len(built.lowered.core.last)
    for line, graph, rest in ((cpu, "cpu-int8", "FP32"), (rtx, "trt-int8", "FP16")):
        match = re.fullmatch(rf"{graph}: (\d+) of (\d+) layers in INT8; (\d+) stayed {rest}: .+", line)
        assert match is not None, line
        assert int(match[2]) == layers == int(match[1]) + int(match[3])
        assert int(match[3]) >= len(found.kept)
    assert re.fullmatch(
        rf"budget: {found.drop:.2g} points lost of {built.lowered.budget:g} allowed \(.+ of (cpu|trt)-int8\); "
        rf"to keep it, {len(found.kept)} stayed out: .+",
        budget,
    ), budget


def test_a_budget_that_needed_nothing_says_so(built: Built) -> None:
    assert built.lowered is not None and built.lowered.found is not None
    easy = replace(built.lowered, found=replace(built.lowered.found, kept=frozenset(), drop=0.0), judge="agreement")
    options = replace(built.options, metric=None)
    line = stayed_out(replace(built, lowered=easy, options=options))[-1]
    assert line.startswith("budget: 0 points lost of ") and line.endswith(
        "judged by agreement; no layer had to stay out"
    )


def test_without_a_budget_or_lower_precision_there_is_less_to_say(built: Built) -> None:
    assert built.lowered is not None
    assert len(stayed_out(replace(built, lowered=replace(built.lowered, found=None)))) == 2
    assert stayed_out(replace(built, lowered=None)) == []


@pytest.mark.parametrize(("int8_ms", "said"), [(0.82, True), (0.5, False), (0.48, False), (0.3, False)])
def test_integers_that_are_slower_than_floats_are_told(built: Built, int8_ms: float, said: bool) -> None:
    times = {UNFUSED: 0.52, FLOAT: 0.48, "cpu-int8": int8_ms}
    latency = tuple(Latency(name, 1, ms, ms, 100) for name, ms in times.items())
    lines = slower(replace(built, latency=latency))
    assert len(lines) == said
    assert all(line.startswith("cpu-int8 is slower than FP32 on this CPU: 0.82 against 0.48 ms; ") for line in lines)
    assert slower(replace(built, latency=())) == []


@pytest.mark.parametrize(
    ("count", "said"), [(1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (40, "0, 1, 2 and 37 more")]
)
def test_a_few_names_and_the_number_of_the_others(count: int, said: str) -> None:
    assert few([str(index) for index in range(count)]) == said


def test_the_terminal_and_the_report_say_the_same(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    print_built(built)
    told = " ".join(capsys.readouterr().out.split())
    facts = json.loads((built.options.output / "report.json").read_bytes())
    page = " ".join((built.options.output / "report.html").read_text().split())
    for line in (facts["headline"], *stayed_out(built)):
        assert line in told
        assert line in page.replace("&#39;", "'")
    assert facts["stayed_out"] == stayed_out(built)
