"""How long choosing and searching will take together, told before either begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from build_engine.quantize.calibration import Method
from build_engine.quantize.search import duration, most_judgements

LONG_SECONDS = 120.0
"""From here on it is said how to make it shorter."""
FEWER_FRAMES = 12
"""Frames for a try: their budget says less about others."""
WITH_STATISTICS = 1.2
"""Time of a way to quantize over the plain one's: some change weights first. 1.1 and 1.2 on two networks."""


@dataclass(frozen=True)
class Pace:
    """What is known when the first way to quantize has been measured.

    Attributes:
        seconds: Time that it took for every runtime, reading all samples included.
        float_seconds: Time of the float graph on the samples that ways are compared on.
        few_seconds: The same on the few that each layer alone is measured on.
        judged_seconds: Time that judging the float graph took.
    """

    seconds: Sequence[float]
    float_seconds: float
    few_seconds: float
    judged_seconds: float


def outlook(pace: Pace, trials: int, layers: int, budget: float, ways_to_shorten: Sequence[str]) -> str:
    """The announcement, from what the first trial took.

    The first trial has read all samples, which nothing after it does: the fastest runtime's time counts for each. A
    judgement makes every graph, too. The search corrects the rest when it begins.

    Args:
        pace: What was measured.
        trials: How many ways follow.
        layers: How many layers could be kept out.
        budget: Points that may be lost.
        ways_to_shorten: What can be typed to make it take less time.
    """
    runtimes, judgements = len(pace.seconds), most_judgements(layers)
    one = runtimes * min(pace.seconds)
    making = max(0.0, one - runtimes * pace.float_seconds)
    choosing = trials * WITH_STATISTICS * one
    alone = making + runtimes * pace.few_seconds
    searching = layers * alone + judgements * (making + runtimes * pace.judged_seconds)
    text = (
        f"choosing among {trials} ways to quantize, {duration(choosing)}; if the best loses more than {budget:g} "
        f"points, a search among {layers} layers, {duration(searching)} if all of {judgements} judgements are needed; "
        f"{duration(choosing + searching)} together, as far as the first way tells"
    )
    if choosing + searching < LONG_SECONDS or not ways_to_shorten:
        return text
    return f"{text}. To make it shorter, stop and add {' or '.join(ways_to_shorten)}"


def ways_to_shorten(method: Method | None, frames: int, metric: str | None) -> tuple[str, ...]:
    """What can be typed to make choosing and searching take less time.

    Args:
        method: The only calibration method that is considered; None considers all.
        frames: On how many a judgement rests.
        metric: The user's; None judges agreement on those frames.
    """
    ways = [] if method else ["--calibration-method percentile (about a third of the ways, none measured twice)"]
    if metric:
        ways.append(f"a --metric-arg by which {metric} looks at less")
    elif frames > FEWER_FRAMES:
        ways.append(f"--calibration-frames {FEWER_FRAMES} ({frames / FEWER_FRAMES:.2g} times faster judgements)")
    return tuple(ways)
