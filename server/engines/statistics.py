"""What an engine has done since it was loaded, and where the time went: what Triton's users know as statistics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.engines.tensor_request import Inferred
from server.frames import Answer


@dataclass
class Duration:
    """How often something happened, and how long it took in all.

    Attributes:
        count: Times.
        ns: Nanoseconds.
    """

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count it once more."""
        self.count += 1
        self.ns += ns


@dataclass
class Compute:
    """The parts of executions.

    Attributes:
        count: Executions.
        input_ns: Time in which their inputs were made.
        infer_ns: Time of the engine.
        output_ns: Time in which their outputs were taken.
    """

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add(self, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count an execution."""
        self.count += 1
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns


@dataclass
class Statistics:
    """The counters of one engine. All of them only grow.

    A camera's frame that was computed is a request with a batch of one; frames that are computed together are one
    execution, and each of them has its whole time, as with Triton's batches. A frame that failed, or was late when its
    turn came, is a request that failed. Frames that were replaced or refused never asked anything of the engine.

    Attributes:
        success: Requests that were answered, from receipt to the end of their computation or later.
        fail: Requests that were not.
        queue: Waiting for their turn.
        compute: Parts of the work for each request.
        batches: Parts of each execution, by the entries of its batch.
        executions: Launches of the engine.
        entries: Entries of the batches of all requests.
        last_inference_ms: When one was last computed, in Unix time.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Compute = field(default_factory=Compute)
    batches: dict[int, Compute] = field(default_factory=dict)
    executions: int = 0
    entries: int = 0
    last_inference_ms: int = 0

    def computed(self, inferred: Inferred, total_ns: int) -> None:
        """Count a request of tensors that was answered.

        Args:
            inferred: What the engine's thread measured.
            total_ns: From receipt to answer.
        """
        self.success.add(total_ns)
        self.queue.add(inferred.queue_ns)
        parts = inferred.compute_input_ns, inferred.compute_infer_ns, inferred.compute_output_ns
        self.compute.add(*parts)
        self._executed(inferred.batch, inferred.batch, *parts)

    def answered(self, answers: Sequence[Answer], batch: int) -> None:
        """Count the frames of a turn.

        Args:
            answers: What became of them.
            batch: Frames that were launched together.
        """
        parts = None
        for answer in answers:
            ledger = answer.frame.ledger
            if answer.status in ("failed", "late"):
                self.fail.add((ledger.selected or ledger.received) - ledger.received)
            if answer.status != "ok" or ledger.selected is None or ledger.postprocessed is None:
                continue
            prepared, inferred = ledger.preprocessed or ledger.selected, ledger.inferred or ledger.selected
            launched = ledger.launched or prepared
            self.success.add(ledger.postprocessed - ledger.received)
            self.queue.add(ledger.selected - ledger.received + launched - prepared)
            parts = prepared - ledger.selected, inferred - launched, ledger.postprocessed - inferred
            self.compute.add(*parts)
            self.entries += 1
        if parts is not None:
            self._executed(batch, 0, *parts)

    def _executed(self, batch: int, entries: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.executions += 1
        self.entries += entries
        of_size = self.batches.get(batch)
        if of_size is None:
            of_size = self.batches[batch] = Compute()
        of_size.add(input_ns, infer_ns, output_ns)
