"""Where a frame's time went: one stamp per boundary, so that the stages add up to the total exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STAGE_OF_BOUNDARY = {
    "selected": "queue",
    "decoded": "decode",
    "batched": "batch",
    "preprocessed": "preprocess",
    "launched": "launch",
    "inferred": "inference",
    "postprocessed": "postprocess",
}
"""The stage that ends at each boundary, in the order of a frame's life."""


@dataclass(slots=True)
class Ledger:
    """The boundaries a frame has passed, in nanoseconds of the server's monotonic clock.

    Whoever does the work stamps the boundary that ends it. A frame that leaves early (replaced, late, failed) has no
    stamps past the boundary it left at; the time from there to the answer is the stage `answer`.

    Attributes:
        received: When its message had arrived.
        sent: When the client handed it to gRPC; None where the clocks cannot be compared.
        uncertainty_ns: Error bound of `sent`.
        selected: When it left its camera's slot.
        decoded: When its image was there.
        batched: When the last image of its batch was there.
        preprocessed: When the network input was filled.
        launched: When the engine took it.
        inferred: When every output lay in its slot.
        postprocessed: When its detections or tensors were there.
    """

    received: int
    sent: int | None = None
    uncertainty_ns: int = 0
    selected: int | None = None
    decoded: int | None = None
    batched: int | None = None
    preprocessed: int | None = None
    launched: int | None = None
    inferred: int | None = None
    postprocessed: int | None = None

    def stages(self, answered: int) -> Mapping[str, int]:
        """Nanoseconds per stage that the frame reached; `total` is their sum.

        Args:
            answered: When its answer was handed to gRPC.
        """
        stages: dict[str, int] = {}
        if self.sent is not None:
            stages["transport"] = self.received - self.sent
        last = self.received
        for boundary, stage in STAGE_OF_BOUNDARY.items():
            at: int | None = getattr(self, boundary)
            if at is not None:
                stages[stage] = at - last
                last = at
        stages["answer"] = answered - last
        stages["total"] = answered - (self.received if self.sent is None else self.sent)
        return stages
