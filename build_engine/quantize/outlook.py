"""How long choosing and searching will take together, told before either begins."""

from __future__ import annotations

from collections.abc import Sequence

from build_engine.quantize.search import duration, most_judgements

WITH_STATISTICS = 1.5
"""Time of a way to quantize over the plain one's: most read the samples once more. 1.4 and 1.5 on two networks."""


def outlook(seconds: Sequence[float], trials: int, judged_seconds: float, layers: int, budget: float) -> str:
    """The announcement, from what the first trial took.

    The first trial may have read all samples, which those of the layers need not: the fastest runtime's time counts for
    each of them. A judgement makes every graph, too. The search corrects the rest when it begins.

    Args:
        seconds: Time that the first way to quantize took for every runtime.
        trials: How many ways follow.
        judged_seconds: Time that judging the float graph took.
        layers: How many layers could be kept out.
        budget: Points that may be lost.
    """
    alone, judgements = len(seconds) * min(seconds), most_judgements(layers)
    choosing = trials * WITH_STATISTICS * sum(seconds)
    searching = layers * alone + judgements * (alone + len(seconds) * judged_seconds)
    return (
        f"choosing among {trials} ways to quantize, {duration(choosing)}; if the best loses more than {budget:g} "
        f"points, a search among {layers} layers, {duration(searching)} if all of {judgements} judgements are needed; "
        f"{duration(choosing + searching)} together, as far as the first way tells"
    )
