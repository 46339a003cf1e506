"""Whether frames of several cameras are worth computing at once: decided by what the engine was measured to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WORTHWHILE = 0.95
"""A batch must bring the time per frame below this part of what half of it takes: its first frame waits for all of the
batch, which a few percent of throughput do not repay."""
TOLERATED = 1.05
"""And not above this part of what any smaller batch takes: single measurements are off by as much."""
MEASURED_RUNS = 5
"""Per batch size; the fastest counts, since anything else on the machine only ever adds."""


@dataclass(frozen=True)
class LatencyCurve:
    """What batches cost on an engine.

    Attributes:
        latency_ns: Nanoseconds per batch size, from one frame up without gaps.
    """

    latency_ns: Mapping[int, int]

    def __str__(self) -> str:
        times = ", ".join(f"{size}: {ns / 1e6:.2f} ms" for size, ns in self.latency_ns.items())
        paying = [str(size) for size in self.latency_ns if size > 1 and self.pays(size)]
        return f"time per batch size {times}; batches that pay: {', '.join(paying) or 'none'}"

    def best(self, deadlines_ns: Sequence[int | None], now_ns: int) -> int:
        """Frames of the next batch.

        Args:
            deadlines_ns: Of the frames that wait, the most urgent source first.
            now_ns: The monotonic clock.

        Returns:
            The largest size that pays and ends before the tightest deadline of its frames. One frame goes however
            little time it has left: whether it is late is not for a guess to say.
        """
        for size in range(min(len(deadlines_ns), max(self.latency_ns)), 1, -1):
            tightest = min((deadline for deadline in deadlines_ns[:size] if deadline is not None), default=None)
            in_time = tightest is None or now_ns + self.latency_ns[size] <= tightest
            if in_time and self.pays(size):
                return size
        return min(1, len(deadlines_ns))

    def pays(self, size: int) -> bool:
        """Whether a batch takes clearly less time per frame than one of half its size, and no more than any smaller."""
        per_frame = {other: self.latency_ns[other] / other for other in range(1, size + 1)}
        half = min(per_frame[other] for other in range(1, max(2, size // 2 + 1)))
        return per_frame[size] <= WORTHWHILE * half and per_frame[size] <= TOLERATED * min(per_frame.values())


def measure(run: Callable[[int], object], max_batch: int, clock: Callable[[], int]) -> LatencyCurve:
    """Measure an engine.

    Args:
        run: Computes a batch of so many frames.
        max_batch: Largest size.
        clock: Monotonic clock in nanoseconds.
    """
    latency_ns = {}
    for size in range(1, max_batch + 1):
        times = []
        for _ in range(MEASURED_RUNS):
            started = clock()
            run(size)
            times.append(clock() - started)
        latency_ns[size] = min(times)
    return LatencyCurve(latency_ns)
