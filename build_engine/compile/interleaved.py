"""Graphs timed against each other on ONNX Runtime, in turns within one process.

On a shared machine a time says little and a ratio of two times much: both graphs of a round meet the same disturbance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.graph import Tensors, feeds, random_inputs, serialize, tensor_specs
from build_engine.progress import Advance, Progress
from build_engine.session import Session

Times = npt.NDArray[np.float64]
"""Milliseconds per round, shape (rounds,)."""

WARM_UP_RUNS = 3
FEWEST_ROUNDS = 7
"""With fewer, no interval of the median ratio reaches 95 %."""


@dataclass(frozen=True)
class Ratio:
    """How one graph's time compares with another's, from the rounds in which both ran.

    Attributes:
        median: Of time / other time, round by round.
        low: Lower end of the median's 95 % interval.
        high: Upper end.
        rounds: How many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def is_faster(self) -> bool:
        """Whether the interval lies below 1: the time is smaller, not just measured so."""
        return self.high < 1

    def __str__(self) -> str:
        return f"{self.median:.3f} (95 % within {self.low:.3f} to {self.high:.3f}, {self.rounds} rounds)"


def interleaved(
    graphs: Mapping[str, bytes],
    inputs: Mapping[str, Tensors],
    *,
    seconds: float,
    threads: int = 1,
    progress: Progress | None = None,
    title: str = "Measuring latency",
) -> dict[str, Times]:
    """Run graphs in turns, each once a round, every other round in reverse.

    Args:
        graphs: Bytes by name.
        inputs: Each graph's inputs, by the graph's name.
        seconds: Time per graph, warm-up apart; at least `FEWEST_ROUNDS` rounds are run.
        threads: Threads of one inference.
        progress: Shown a bar of the rounds.
        title: What the bar is called.

    Returns:
        Times by name, all of one length.
    """
    sessions = {name: Session(data, threads=threads) for name, data in graphs.items()}
    started = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        for name, session in sessions.items():
            session.run(inputs[name])
    round_seconds = (time.perf_counter() - started) / WARM_UP_RUNS
    rounds = max(FEWEST_ROUNDS, round(seconds * len(sessions) / round_seconds))
    if progress is None:
        return _rounds(sessions, inputs, rounds, lambda: None)
    with progress.step(title, rounds) as advance:
        return _rounds(sessions, inputs, rounds, advance)


def _rounds(
    sessions: Mapping[str, Session], inputs: Mapping[str, Tensors], rounds: int, advance: Advance
) -> dict[str, Times]:
    order = list(sessions)
    times: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        for name in order:
            started = time.perf_counter()
            sessions[name].run(inputs[name])
            times[name].append(1000 * (time.perf_counter() - started))
        order.reverse()
        advance()
    return {name: np.array(found) for name, found in times.items()}


def ratio(times: Times, other: Times) -> Ratio:
    """One graph's times over another's, with the distribution-free interval of the median (order statistics).

    Args:
        times: Shape (rounds,).
        other: Of the same rounds.
    """
    ratios = np.sort(times / other)
    count = len(ratios)
    # The median lies between the k-th smallest and the k-th largest but for 2 P(Binomial(count, 1/2) < k).
    outside, rank = _probability(count, 0), 0
    while rank < count // 2 and 2 * outside <= 0.05:
        rank += 1
        outside += _probability(count, rank)
    low, high = (ratios[rank - 1], ratios[count - rank]) if rank else (-math.inf, math.inf)
    return Ratio(float(np.median(ratios)), float(low), float(high), count)


def _probability(count: int, successes: int) -> float:
    """Of so many successes in fair tosses. By logarithms: a small network is timed in ten thousands of rounds."""
    log_ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(log_ways - count * math.log(2))


def latencies(
    models: Mapping[str, onnx.ModelProto],
    *,
    seconds: float,
    threads: int = 1,
    batch: int = 1,
    progress: Progress | None = None,
) -> dict[str, Times]:
    """`interleaved` for models as they are, on random inputs of their own shapes.

    Args:
        models: Models by name; only their batch may be open.
        seconds: Time per model, warm-up apart.
        threads: Threads of one inference.
        batch: Size of an open batch.
        progress: Shown a bar of the rounds.

    Raises:
        BuildError: ONNX Runtime refuses a model, or a size other than the batch is open.
    """
    inputs = {name: random_inputs(tensor_specs(feeds(model)), batch, 0) for name, model in models.items()}
    graphs = {name: serialize(model) for name, model in models.items()}
    return interleaved(graphs, inputs, seconds=seconds, threads=threads, progress=progress)
