"""One request of tensors, from its arrays to the engine's slots and back. Runs on the engine's thread."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.allocate import TensorSlots, allocate
from engine.errors import RunFailed
from engine.runtime import Batch, Runtime, RuntimeDescription
from engine.slots import RegionTable
from server.engines.extent import Extent
from server.engines.tensor_request import Inferred, Outcome, TensorRequest, check_inputs
from server.errors import InferenceFailed, RequestLate, StreamEnded
from server.schedule.scheduler import is_late

log = logging.getLogger("monocoque.engine")


MOST_EXTENTS = 64
"""Sizes of requests whose slots are remembered: where requests choose dimensions, there may be any number."""


@dataclass(frozen=True)
class _Slots:
    """The slots of one size of request; views and batches cost 14 µs to make, and are the same for every request."""

    inputs: Mapping[str, tuple[npt.NDArray[Any], memoryview]]
    """As an array, and as bytes."""
    outputs: Mapping[str, npt.NDArray[Any]]
    batch: Batch

    @classmethod
    def of(cls, slots: TensorSlots, description: RuntimeDescription, extent: Extent) -> _Slots:
        batch = slots.batch(extent.batch)
        if description.largest:
            sizes = {**description.largest, **dict(extent.sizes)}  # what only the run tells is at its largest
            specs = (*description.inputs, *description.outputs)
            batch = slots.shaped({spec.name: spec.concrete(extent.batch, sizes) for spec in specs})
        inputs = {name: slots.regions.view(handle) for name, handle in batch.inputs.items()}
        return cls(
            inputs={name: (view, view.reshape(-1).view(np.uint8).data) for name, view in inputs.items()},
            outputs={name: slots.regions.view(handle) for name, handle in batch.outputs.items()},
            batch=batch,
        )


class TensorPipeline:
    """What the engine's thread does with requests.

    Slots are reserved with the first request, and again for the first of a larger batch: an engine that serves cameras
    only holds none. Free dimensions besides the batch have room for their largest size.

    Args:
        runtime: The engine.
        regions: The table that it was opened with.
        digest: The bundle's.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(self, runtime: Runtime, regions: RegionTable, digest: str, clock: Callable[[], int]) -> None:
        self._runtime = runtime
        self._description = runtime.describe()
        self._regions = regions
        self._digest = digest
        self._clock = clock
        self._slots: TensorSlots | None = None
        self._capacity = 0
        self._views: dict[Extent, _Slots] = {}

    def run(self, request: TensorRequest) -> Outcome | None:
        """Compute a request; whatever goes wrong is its answer, too. None where nobody waits for it any more."""
        request.selected = self._clock()
        if request.cancelled:
            return None
        if is_late(request, request.selected):
            return late(request, request.selected)
        try:
            if request.digest != self._digest:  # the engine was swapped while it waited
                request.extent = check_inputs(self._description, request.inputs)
            return self._compute(request)
        except StreamEnded as error:
            return error
        except RunFailed as error:
            return InferenceFailed(error.message, remedy=error.remedy)
        except Exception as error:  # a bug of ours must cost this request and no more
            log.exception("a request of tensors failed")
            reason = f"the server failed to compute this: {type(error).__name__}: {error}"
            return InferenceFailed(reason, remedy="the server's log says more")

    def _compute(self, request: TensorRequest) -> Inferred:
        slots = self._slots_for(request.extent)
        started = self._clock()
        for name, array in request.inputs.items():
            view, content = slots.inputs[name]
            if isinstance(array, np.ndarray):
                np.copyto(view, array)
            else:
                array.copy_into(content)
        request.inputs = {}
        filled = self._clock()
        told = self._runtime.run(slots.batch).shapes
        inferred = self._clock()
        outputs = {name: view.copy() for name, view in slots.outputs.items() if name not in told}
        for name, shape in told.items():
            outputs[name] = slots.outputs[name].reshape(-1)[: math.prod(shape)].reshape(shape).copy()
        copied = self._clock()
        return Inferred(
            outputs=outputs,
            queue_ns=request.selected - request.received,
            compute_input_ns=filled - started,
            compute_infer_ns=inferred - filled,
            compute_output_ns=copied - inferred,
            batch=request.extent.batch,
            digest=self._digest,
        )

    def _slots_for(self, extent: Extent) -> _Slots:
        if self._slots is None or extent.batch > self._capacity:
            self._views.clear()
            if self._slots is not None:
                self._slots.close()
            self._slots = allocate(self._description, self._regions, extent.batch)
            self._capacity = extent.batch
        views = self._views.get(extent)
        if views is None:
            if len(self._views) >= MOST_EXTENTS:
                self._views.pop(next(iter(self._views)))
            views = self._views[extent] = _Slots.of(self._slots, self._description, extent)
        return views


def late(request: TensorRequest, now_ns: int) -> RequestLate:
    """The answer to a request whose time ran out while it waited."""
    waited_us = (now_ns - request.received) // 1000
    return RequestLate(
        f"it waited {waited_us} µs for its turn, longer than its timeout", remedy="allow more time, or send less"
    )
