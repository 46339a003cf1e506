"""Which clock a stream's times are in, and how the server's relates to it.

The offset between two clocks is estimated from exchanges of four times (RFC 5905, section 8): the client sends at
`t1`, the server receives at `t2` and replies at `t3`, the client receives at `t4`. With

    offset = ((t2 - t1) + (t3 - t4)) / 2        delay = (t4 - t1) - (t3 - t2)

the true offset is within `delay / 2` of `offset`, whatever the two ways took. Queues only ever add delay, so of the
recent samples the one with the least delay is the best (the clock filter of section 10).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protos.monocoque.v1 import stream_pb2

ClockName = Literal["monotonic", "utc"]
"""`monotonic`: CLOCK_MONOTONIC of this host. `utc`: the system's UTC, kept by PTP or NTP."""

SAMPLES = 8
"""Exchanges that the filter looks back on, as in RFC 5905."""

DRIFT_PPM = 50.0
"""How fast two crystals may drift apart, parts per million."""


@dataclass(frozen=True)
class StreamClock:
    """The clock of a stream's capture and send times.

    Attributes:
        name: Which clock is read.
        error_ns: Bound of its error against true UTC; for `utc` only.
    """

    name: ClockName = "monotonic"
    error_ns: int = 0

    def now_ns(self) -> int:
        """The time now."""
        return time.monotonic_ns() if self.name == "monotonic" else time.time_ns()

    def declaration(self) -> stream_pb2.Clock:
        """What the stream's `Open` says about it.

        A monotonic clock is declared with the proof that it may be the server's own; a server on another host sees
        that it is not, and reckons with an unknown clock.
        """
        if self.name == "utc":
            return stream_pb2.Clock(kind=stream_pb2.CLOCK_KIND_SYNCHRONIZED, error_ns=self.error_ns)
        identity = host_identity()
        if identity is None:
            return stream_pb2.Clock(kind=stream_pb2.CLOCK_KIND_UNKNOWN)
        boot_id, time_namespace = identity
        return stream_pb2.Clock(
            kind=stream_pb2.CLOCK_KIND_SAME_HOST_MONOTONIC, boot_id=boot_id, time_namespace=time_namespace
        )


def host_identity(proc: Path = Path("/proc")) -> tuple[str, str] | None:
    """Boot id and time namespace of this process: who shares both shares CLOCK_MONOTONIC. None: not on Linux."""
    try:
        boot_id = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        time_namespace = str((proc / "self/ns/time").readlink())
    except OSError:
        return None
    return boot_id, time_namespace


@dataclass(frozen=True)
class Exchange:
    """Four times of one question and answer, ns; `t1` and `t4` in the client's clock, `t2` and `t3` in the server's."""

    t1: int
    t2: int
    t3: int
    t4: int

    @property
    def offset_ns(self) -> int:
        """Server's clock minus client's, by this exchange alone."""
        return ((self.t2 - self.t1) + (self.t3 - self.t4)) // 2

    @property
    def delay_ns(self) -> int:
        """Round trip without the server's own time."""
        return (self.t4 - self.t1) - (self.t3 - self.t2)


@dataclass(frozen=True)
class Offset:
    """Server's clock minus client's, within `uncertainty_ns`."""

    offset_ns: int
    uncertainty_ns: int


def best_offset(exchanges: Iterable[Exchange], now_ns: int) -> Offset | None:
    """The offset by the exchange that bounds it best at `now_ns`; None without any.

    An exchange's bound is half its delay, and grows with its age by `DRIFT_PPM`.
    """
    bounds = [(_uncertainty_ns(exchange, now_ns), exchange.offset_ns) for exchange in exchanges]
    if not bounds:
        return None
    uncertainty_ns, offset_ns = min(bounds)
    return Offset(offset_ns, uncertainty_ns)


def _uncertainty_ns(exchange: Exchange, now_ns: int) -> int:
    age_ns = max(0, now_ns - exchange.t4)
    return (exchange.delay_ns + 1) // 2 + int(age_ns * DRIFT_PPM * 1e-6)


class OffsetFilter:
    """The running estimate: the last `SAMPLES` exchanges, forgotten when one of the clocks steps.

    Attributes:
        steps: How often a clock was seen to step.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._exchanges: deque[Exchange] = deque(maxlen=SAMPLES)

    def add(self, exchange: Exchange) -> None:
        """Take one exchange in. One that contradicts the estimate means that a clock stepped; it starts afresh."""
        if exchange.delay_ns < 0 or exchange.t4 < exchange.t1:
            self._step()
            return
        before = best_offset(self._exchanges, exchange.t4)
        if before is not None:
            distance = abs(before.offset_ns - exchange.offset_ns)
            if distance > before.uncertainty_ns + _uncertainty_ns(exchange, exchange.t4) + 1:
                self._step()
        self._exchanges.append(exchange)

    def estimate(self, now_ns: int) -> Offset | None:
        """The offset now; None before the first exchange."""
        return best_offset(self._exchanges, now_ns)

    def _step(self) -> None:
        self.steps += 1
        self._exchanges.clear()
