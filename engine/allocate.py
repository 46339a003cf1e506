"""Room for one batch: every input and output of an engine, side by side in one shared region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy.typing as npt

from engine.runtime import Batch, RuntimeDescription
from engine.slots import RegionTable, SlotHandle, aligned


@dataclass(frozen=True)
class TensorSlots:
    """Slots for an engine's tensors, at the largest batch they were allocated for.

    ::

        with allocate(runtime.describe(), regions, batch=1) as slots:
            slots.view("images")[:] = frame
            runtime.run(slots.batch(1))
            scores = slots.view("scores").copy()

    Attributes:
        inputs: Handle per input name, as large as the largest batch.
        outputs: Handle per output name, likewise.
        regions: The table that holds their memory.
        batched: Names of the tensors whose first dimension is the batch.
    """

    inputs: Mapping[str, SlotHandle]
    outputs: Mapping[str, SlotHandle]
    regions: RegionTable
    batched: frozenset[str]

    def batch(self, count: int) -> Batch:
        """The first `count` entries of every tensor, ready for `Runtime.run`.

        Raises:
            ValueError: `count` is not between 1 and the batch that was allocated.
        """
        return Batch(
            inputs={name: self._first(name, handle, count) for name, handle in self.inputs.items()},
            outputs={name: self._first(name, handle, count) for name, handle in self.outputs.items()},
        )

    def shaped(self, shapes: Mapping[str, tuple[int, ...]]) -> Batch:
        """Every tensor with a shape of its own, for an engine with free dimensions besides the batch.

        Args:
            shapes: By name, of every input and output.

        Raises:
            ValueError: A slot is smaller than that.
        """
        return Batch(
            inputs={name: handle.shaped(shapes[name]) for name, handle in self.inputs.items()},
            outputs={name: handle.shaped(shapes[name]) for name, handle in self.outputs.items()},
        )

    def view(self, name: str, count: int | None = None) -> npt.NDArray[Any]:
        """An input or an output as an array over the shared memory.

        Args:
            name: The tensor's name.
            count: Entries of the batch; None means all that were allocated.

        Raises:
            KeyError: The engine has no such tensor.
            ValueError: More entries than were allocated.
        """
        handle = self.inputs[name] if name in self.inputs else self.outputs[name]
        return self.regions.view(handle if count is None else self._first(name, handle, count))

    def close(self) -> None:
        """Give the region back. A second call does nothing."""
        for number in {handle.region for handle in (*self.inputs.values(), *self.outputs.values())}:
            if number in self.regions:
                self.regions.remove(number)

    def _first(self, name: str, handle: SlotHandle, count: int) -> SlotHandle:
        return handle.first(count) if name in self.batched else handle

    def __enter__(self) -> TensorSlots:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def allocate(description: RuntimeDescription, regions: RegionTable, batch: int) -> TensorSlots:
    """Lay out slots for all tensors of an engine in one new region; free dimensions besides the batch at their largest.

    Args:
        description: What the engine takes and gives.
        regions: The table that the engine was opened with; the new region is added to it.
        batch: Largest batch that will be run through these slots.

    Raises:
        ValueError: The batch is not one the engine takes, or the largest size of a free dimension is not known.
        OSError: The memory cannot be had.
    """
    if not 1 <= batch <= description.max_batch:
        raise ValueError(f"slots for a batch of {batch}; the engine takes 1 to {description.max_batch}")
    specs = (*description.inputs, *description.outputs)
    offsets = [0]
    for spec in specs:
        offsets.append(offsets[-1] + aligned(spec.size_bytes(batch, description.largest)))
    region = regions.create(offsets[-1])
    handles = {
        spec.name: SlotHandle(region.number, offset, spec.concrete(batch, description.largest), spec.dtype)
        for spec, offset in zip(specs, offsets, strict=False)  # the last offset is the end
    }
    return TensorSlots(
        inputs={spec.name: handles[spec.name] for spec in description.inputs},
        outputs={spec.name: handles[spec.name] for spec in description.outputs},
        regions=regions,
        batched=frozenset(spec.name for spec in specs if spec.batched),
    )
