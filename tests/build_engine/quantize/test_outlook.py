from __future__ import annotations

from build_engine.quantize.outlook import FEWER_FRAMES, Pace, outlook, ways_to_shorten

PACE = Pace([2.0, 1.0], float_seconds=0.5, few_seconds=0.1, judged_seconds=1.0)


def test_choice_and_search_are_told_apart_and_together() -> None:
    """14 ways at 1.2 times 2 s, twice the faster runtime; to make graphs takes 1 s, so 24 layers take 1.2 s each, and
    21 judgements 1 s and 1 s more for either runtime."""
    told = outlook(PACE, trials=14, layers=24, budget=0.5, ways_to_shorten=())
    assert "among 14 ways to quantize, about 34 s; if the best loses more than 0.5 points" in told
    assert "a search among 24 layers, about 2 min if all of 21 judgements are needed" in told
    assert "; about 2 min together" in told and "at most" not in told


def test_what_takes_long_comes_with_what_makes_it_shorter() -> None:
    ways = ways_to_shorten(None, 32, None)
    told = outlook(PACE, trials=14, layers=24, budget=0.5, ways_to_shorten=ways)
    assert told.endswith(f"add {ways[0]} or {ways[1]}")
    assert "--calibration-method percentile" in ways[0] and f"--calibration-frames {FEWER_FRAMES} (2.7" in ways[1]
    short = outlook(PACE, trials=5, layers=2, budget=0.5, ways_to_shorten=ways)
    assert "shorter" not in short


def test_only_what_is_not_typed_yet_and_helps_is_advised() -> None:
    assert ways_to_shorten("mse", FEWER_FRAMES, None) == ()
    assert ways_to_shorten("mse", 32, "shop.metrics:f") == ("a --metric-arg by which shop.metrics:f looks at less",)
