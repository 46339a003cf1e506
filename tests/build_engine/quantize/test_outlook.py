from __future__ import annotations

from build_engine.quantize.outlook import outlook


def test_choice_and_search_are_told_apart_and_together() -> None:
    """14 ways at 1.5 times 3 s; 24 layers at 2 s, twice the faster runtime; 21 judgements at 2 s more for both."""
    told = outlook([2.0, 1.0], trials=14, judged_seconds=1.0, layers=24, budget=0.5)
    assert "among 14 ways to quantize, about 63 s; if the best loses more than 0.5 points" in told
    assert "a search among 24 layers, about 2 min if all of 21 judgements are needed" in told
    assert "; about 3 min together" in told and "at most" not in told
