"""One batch, from pixel bytes to answers: decode, preprocess, infer, postprocess. Runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.allocate import TensorSlots
from engine.errors import RunFailed
from engine.manifest import DetectionPostprocessing, Manifest, Preprocessing
from engine.postprocess import Detections, detections
from engine.preprocess import Placement
from engine.runtime import Runtime
from protos.monocoque.v1 import result_pb2 as pb
from server.answers import AnswerWriter
from server.decode import Decoded, DecodeFailed, decode
from server.frames import TORN, Answer, Frame
from server.scheduler import is_late

LATE_BEFORE_LAUNCH = "past its maximum age before the engine was launched"


@dataclass
class _Entry:
    """A frame in the network input."""

    frame: Frame
    placement: Placement
    damage: str


class Pipeline:
    """What the engine's thread does with a batch.

    Args:
        manifest: The bundle's; it must have preprocessing.
        runtime: The engine.
        slots: Room for its largest batch.
        max_batch: Frames of that.
        writer: Writes the answers.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        runtime: Runtime,
        slots: TensorSlots,
        max_batch: int,
        writer: AnswerWriter,
        clock: Callable[[], int],
    ) -> None:
        self._preprocessing = preprocessing
        self._postprocessing = manifest.postprocessing
        self._runtime = runtime
        self._writer = writer
        self._clock = clock
        # Views and batches are the same for every turn; making them anew took 40 µs of each.
        self._input = slots.view(preprocessing.input)
        self._outputs = {name: slots.view(name) for name in slots.outputs}
        self._batches = {count: slots.batch(count) for count in range(1, max_batch + 1)}

    def run(self, frames: Sequence[Frame]) -> list[Answer]:
        """Compute a batch; every frame gets exactly one answer.

        Args:
            frames: At most as many as the slots take.
        """
        answers: list[Answer] = []
        entries = self._fill_input(self._decode(frames, answers), answers)
        launch = self._shed_late(entries, answers)
        if launch:
            answers.extend(self._infer(launch))
        return answers

    def _decode(self, frames: Sequence[Frame], answers: list[Answer]) -> list[tuple[Frame, Decoded]]:
        """Images of the frames that can be decoded; the others are answered."""
        decoded: list[tuple[Frame, Decoded]] = []
        for frame in frames:
            frame.ledger.selected = self._clock()
            try:
                samples = decode(frame.header, frame.pixels, self._preprocessing)
                frame.decoded_bytes = samples.nbytes
                decoded.append((frame, samples))
            except DecodeFailed as error:
                status, reason = ("torn", TORN) if frame.torn else ("failed", str(error))
                answers.append(self._writer.without_numbers(frame, status, reason))
            frame.ledger.decoded = self._clock()
        return decoded

    def _fill_input(self, decoded: list[tuple[Frame, Decoded]], answers: list[Answer]) -> list[_Entry]:
        """Write the network input; the images and the bytes they came from are not needed after that.

        An image may be a view of shared memory, so whether it was overwritten is known only now.
        """
        batched = self._clock()
        entries: list[_Entry] = []
        for frame, samples in decoded:
            frame.ledger.batched = batched
            placement = samples.write_into(self._input[len(entries)])
            if frame.torn:
                answers.append(self._writer.without_numbers(frame, "torn", TORN))
            else:
                entries.append(_Entry(frame, placement, samples.damage))
            frame.release()
        return entries

    def _shed_late(self, entries: list[_Entry], answers: list[Answer]) -> list[_Entry]:
        """Answer what is past its age, and close the gaps it leaves in the network input."""
        now = self._clock()
        kept: list[_Entry] = []
        for position, entry in enumerate(entries):
            entry.frame.ledger.preprocessed = now
            if is_late(entry.frame, now):
                answers.append(self._writer.without_numbers(entry.frame, "late", LATE_BEFORE_LAUNCH))
                continue
            if position != len(kept):
                self._input[len(kept)] = self._input[position]
            kept.append(entry)
        return kept

    def _infer(self, entries: list[_Entry]) -> list[Answer]:
        try:
            self._runtime.run(self._batches[len(entries)])
        except RunFailed as error:
            failed = self._clock()
            for entry in entries:
                entry.frame.ledger.inferred = failed
            return [self._writer.without_numbers(entry.frame, "failed", error.message) for entry in entries]
        inferred = self._clock()
        answers = []
        for position, entry in enumerate(entries):
            entry.frame.ledger.inferred = inferred
            answers.append(self._answer(position, entry, len(entries)))
        return answers

    def _answer(self, position: int, entry: _Entry, batch_size: int) -> Answer:
        frame = entry.frame
        found: Detections | None = None
        invalid = entry.damage
        wanted: Sequence[str] = frame.camera.tensors
        if isinstance(self._postprocessing, DetectionPostprocessing):
            spec = frame.camera.spec
            found = detections(
                self._outputs,
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
            wanted = tuple(self._outputs)
        tensors = [self._tensor(name, position) for name in wanted]
        for name in wanted:
            if not self._finite(name, position):
                invalid = invalid or f"output {name} is not finite everywhere"
        frame.ledger.postprocessed = self._clock()
        return self._writer.computed(frame, found, tensors, invalid, batch_size)

    def _tensor(self, name: str, position: int) -> pb.Tensor:
        value = self._outputs[name][position]
        return pb.Tensor(name=name, dtype=value.dtype.name, shape=value.shape, data=value.tobytes())

    def _finite(self, name: str, position: int) -> bool:
        value = self._outputs[name][position]
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
