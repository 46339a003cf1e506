"""Which way to INT8 suits a network: tried and measured, since none is the best for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from build_engine.progress import Progress
from build_engine.quantize.calibration import METHODS, Method
from build_engine.quantize.noise import Noise
from build_engine.quantize.quantizer import PLAIN, Choice, Equalization, Quantizer, Weights

LEARNING_PAYS = 0.97
"""Learned rounding is taken where it leaves less than this share of the noise."""


@dataclass(frozen=True)
class Tried:
    """One choice, measured.

    Attributes:
        choice: What was tried.
        noise: Of every runtime's graph, by its name.
    """

    choice: Choice
    noise: dict[str, float]

    @property
    def worst(self) -> float:
        """Noise of the worse graph: one choice has to suit them all."""
        return max(self.noise.values())


def best_choice(
    quantizer: Quantizer,
    noise: Noise,
    method: Method | None,
    progress: Progress,
    announce: Callable[[Sequence[float], int], None] = lambda _seconds, _trials: None,
) -> tuple[Choice, tuple[Tried, ...]]:
    """Measure calibration methods, equalizations and ways to round, and take what makes least noise.

    Args:
        quantizer: Makes the graphs.
        noise: Measures them.
        method: The only calibration method to consider; None considers all.
        progress: Told about every choice.
        announce: Told, after the first choice, the seconds that it took for every runtime, and how many follow.

    Returns:
        The best choice, and everything that was tried: plain max-calibrated quantization first.
    """
    methods: Sequence[Method] = (method,) if method else METHODS
    equalizations: Sequence[Equalization] = ("none", "weights", "activations") if quantizer.can_equalize else ("none",)
    trials = len(methods) * len(equalizations) + 2
    first = {name: noise.measured(candidate) for name, candidate in quantizer.candidates(PLAIN).items()}
    announce([one.seconds for one in first.values()], trials)
    tried = [Tried(PLAIN, {name: one.figures["noise"] for name, one in first.items()})]
    with progress.step("Choosing how to quantize", trials) as advance:
        for equalization in equalizations:
            for one in methods:
                tried.append(_measure(quantizer, noise, Choice(one, equalization, "corrected")))
                advance()
        best = min(tried, key=lambda one: one.worst)
        ways: tuple[Weights, ...] = ("learned", "nearest")
        for weights in ways:
            tried.append(_measure(quantizer, noise, replace(best.choice, weights=weights)))
            advance()
    learned, nearest = tried[-2:]
    if nearest.worst < best.worst:
        best = nearest
    if learned.worst < LEARNING_PAYS * best.worst:
        best = learned
    return best.choice, tuple(tried)


def _measure(quantizer: Quantizer, noise: Noise, choice: Choice) -> Tried:
    return Tried(choice, {name: noise(candidate) for name, candidate in quantizer.candidates(choice).items()})
