"""One batch, from pixel bytes to answers: decode, preprocess, infer, postprocess."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.allocate import TensorSlots
from engine.errors import RunFailed
from engine.manifest import DetectionPostprocessing, Manifest, Preprocessing
from engine.postprocess import Detections, detections
from engine.preprocess import Placement
from engine.runtime import Batch, Runtime
from protos.monocoque.v1 import result_pb2 as pb
from server.decode import Decoded, DecodeFailed, decode
from server.frames import TORN, Answer, Frame
from server.schedule.scheduler import is_late
from server.stream.answers import AnswerWriter

Outputs = Mapping[str, npt.NDArray[Any]]

LATE_BEFORE_LAUNCH = "past its maximum age before the engine was launched"


@dataclass(slots=True)
class _Entry:
    """A frame in the network input."""

    frame: Frame
    placement: Placement
    damage: str


@dataclass(slots=True)
class Prepared:
    """A batch whose network input is filled.

    Attributes:
        side: Number of the slots it lies in.
        entries: Its frames, in the order of the network input.
        answers: Frames that have an answer without the engine, and those that got one since.
        fault: Why the engine failed to compute it; empty where it did not.
    """

    side: int
    entries: list[_Entry]
    answers: list[Answer]
    fault: str = ""


class Pipeline:
    """What is done with a batch, in three steps: `prepare`, `launch` and `answer`.

    Steps of different batches may run at the same time on different threads, each batch on a side of its own; only one
    thread may launch.

    Args:
        manifest: The bundle's; it must have preprocessing.
        runtime: The engine.
        slots: Room for its largest batch, once per side.
        max_batch: Frames of that.
        writer: Writes the answers.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        runtime: Runtime,
        slots: Sequence[TensorSlots],
        max_batch: int,
        writer: AnswerWriter,
        clock: Callable[[], int],
    ) -> None:
        self._preprocessing = preprocessing
        self._postprocessing = manifest.postprocessing
        self._runtime = runtime
        self._writer = writer
        self._clock = clock
        self._sides = [_Side.of(side, preprocessing.input, max_batch) for side in slots]

    @property
    def sides(self) -> int:
        """Batches that may be under way at the same time."""
        return len(self._sides)

    def run(self, frames: Sequence[Frame]) -> list[Answer]:
        """Compute a batch on the first side; every frame gets exactly one answer.

        Args:
            frames: At most as many as the slots take.
        """
        prepared = self.prepare(frames, 0)
        self.launch(prepared)
        return self.answer(prepared)

    def prepare(self, frames: Sequence[Frame], side: int) -> Prepared:
        """Decode frames and fill the network input.

        Args:
            frames: At most as many as the slots take.
            side: The slots to use.
        """
        answers: list[Answer] = []
        entries = self._fill_input(self._decode(frames, answers), answers, self._sides[side].input)
        return Prepared(side, entries, answers)

    def launch(self, prepared: Prepared) -> None:
        """Compute what is not late by now."""
        side = self._sides[prepared.side]
        entries = prepared.entries = self._shed_late(prepared.entries, prepared.answers, side.input)
        if not entries:
            return
        try:
            self._runtime.run(side.batches[len(entries)])
        except RunFailed as error:
            failed = self._clock()
            for entry in entries:
                entry.frame.ledger.inferred = failed
                prepared.answers.append(self._writer.without_numbers(entry.frame, "failed", error.message))
            prepared.entries, prepared.fault = [], error.message
            return
        inferred = self._clock()
        for entry in entries:
            entry.frame.ledger.inferred = inferred

    def answer(self, prepared: Prepared) -> list[Answer]:
        """Every frame's answer, once the batch was launched; its slots are free after that."""
        outputs = self._sides[prepared.side].outputs
        for position, entry in enumerate(prepared.entries):
            prepared.answers.append(self._answer(outputs, position, entry, len(prepared.entries)))
        return prepared.answers

    def _decode(self, frames: Sequence[Frame], answers: list[Answer]) -> list[tuple[Frame, Decoded]]:
        """The frames that can be decoded; the others are answered."""
        decoded: list[tuple[Frame, Decoded]] = []
        for frame in frames:
            frame.ledger.selected = self._clock()
            try:
                samples = decode(frame.header, frame.pixels, self._preprocessing, frame.picture)
                frame.decoded_bytes = samples.nbytes
                decoded.append((frame, samples))
            except DecodeFailed as error:
                status, reason = ("torn", TORN) if frame.torn else ("failed", str(error))
                answers.append(self._writer.without_numbers(frame, status, reason))
            frame.ledger.decoded = self._clock()
        return decoded

    def _fill_input(
        self, decoded: list[tuple[Frame, Decoded]], answers: list[Answer], network_input: npt.NDArray[Any]
    ) -> list[_Entry]:
        """Write the network input; the samples and the bytes they came from are not needed after that.

        Samples may be a view of shared memory, so whether it was overwritten is known only now.
        """
        batched = self._clock()
        entries: list[_Entry] = []
        for frame, samples in decoded:
            frame.ledger.batched = batched
            placement = samples.write_into(network_input[len(entries)])
            if frame.torn:
                answers.append(self._writer.without_numbers(frame, "torn", TORN))
            else:
                entries.append(_Entry(frame, placement, samples.damage))
            frame.release()
        preprocessed = self._clock()
        for entry in entries:
            entry.frame.ledger.preprocessed = preprocessed
        return entries

    def _shed_late(self, entries: list[_Entry], answers: list[Answer], network_input: npt.NDArray[Any]) -> list[_Entry]:
        """Answer what is past its age, and close the gaps it leaves in the network input."""
        now = self._clock()
        kept: list[_Entry] = []
        for position, entry in enumerate(entries):
            entry.frame.ledger.launched = now
            if is_late(entry.frame, now):
                answers.append(self._writer.without_numbers(entry.frame, "late", LATE_BEFORE_LAUNCH))
                continue
            if position != len(kept):
                network_input[len(kept)] = network_input[position]
            kept.append(entry)
        return kept

    def _answer(self, outputs: Outputs, position: int, entry: _Entry, batch_size: int) -> Answer:
        frame = entry.frame
        found: Detections | None = None
        invalid = entry.damage
        wanted: Sequence[str] = frame.camera.tensors
        if isinstance(self._postprocessing, DetectionPostprocessing):
            spec = frame.camera.spec
            found = detections(
                outputs,
                position,
                self._postprocessing,
                entry.placement,
                spec.width,
                spec.height,
                frame.camera.focal_px,
            )
            if not found.finite:
                invalid = invalid or "a score, box or distance is not a finite number"
        else:
            wanted = tuple(outputs)
        if gone := [name for name in wanted if name not in outputs]:
            invalid = invalid or f"the engine was swapped for one without {', '.join(gone)}"
            wanted = [name for name in wanted if name in outputs]
        tensors = [_tensor(name, outputs[name][position]) for name in wanted]
        for name in wanted:
            if not _finite(outputs[name][position]):
                invalid = invalid or f"output {name} is not finite everywhere"
        frame.ledger.postprocessed = self._clock()
        return self._writer.computed(frame, found, tensors, invalid, batch_size)


@dataclass(frozen=True)
class _Side:
    """One set of slots. Views and batches are the same for every turn; making them anew took 40 µs of each."""

    input: npt.NDArray[Any]
    outputs: Outputs
    batches: Mapping[int, Batch]

    @classmethod
    def of(cls, slots: TensorSlots, network_input: str, max_batch: int) -> _Side:
        return cls(
            input=slots.view(network_input),
            outputs={name: slots.view(name) for name in slots.outputs},
            batches={count: slots.batch(count) for count in range(1, max_batch + 1)},
        )


def _tensor(name: str, value: npt.NDArray[Any]) -> pb.Tensor:
    return pb.Tensor(name=name, dtype=_dtype_name(value.dtype), shape=value.shape, data=value.tobytes())


@functools.cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    """Cached: it takes 3 µs to work out."""
    return str(dtype.name)


def _finite(value: npt.NDArray[Any]) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())
