"""A request of tensors, not of a camera: what it carries while it waits, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.runtime import RuntimeDescription
from engine.tensors import TensorSpec
from server.engines.extent import Extent, free_sizes
from server.errors import RequestInvalid, StreamEnded
from server.schedule.sets import FrameSet


class TensorSource(Protocol):
    """An input that is fetched when its turn has come, straight to where the engine reads it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes, batch first where there is one."""

    def copy_into(self, target: memoryview) -> None:
        """Fetch its bytes, on the engine's thread.

        Args:
            target: As many bytes as its type and shape need.

        Raises:
            StreamEnded: It is not there any more.
        """


Arrays = Mapping[str, npt.NDArray[Any] | TensorSource]


@dataclass(frozen=True)
class Inferred:
    """The outputs of a request, and where its time went.

    Attributes:
        outputs: Every output, copies of their own; batch first where the engine has one.
        queue_ns: From the call to the engine's turn.
        compute_input_ns: Copying the inputs to where the engine reads them.
        compute_infer_ns: The engine.
        compute_output_ns: Copying the outputs.
        batch: Entries of its batch; 1 for an engine without one.
        digest: The bundle that computed it.
    """

    outputs: dict[str, npt.NDArray[Any]]
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    batch: int
    digest: str


Outcome = Inferred | StreamEnded
"""What becomes of a request."""


@dataclass(eq=False)
class TensorRequest:
    """A request until it is answered.

    Attributes:
        inputs: Every input of the engine, checked.
        extent: How large it is.
        digest: The bundle that `inputs` were checked against.
        received: When it came, in nanoseconds of the monotonic clock.
        answer: Told what became of it, once; on the event loop.
        deadline_ns: When it may not begin any more, in the same clock; None means never.
        selected: When its turn came.
        cancelled: Set once nobody waits for the answer.
        frame_set: None: requests are in no set.
    """

    inputs: Arrays
    extent: Extent
    digest: str
    received: int
    answer: Callable[[Outcome], None]
    deadline_ns: int | None = None
    selected: int = field(default=0, init=False)
    cancelled: bool = field(default=False, init=False)
    frame_set: FrameSet | None = field(default=None, init=False)

    @property
    def taken_ns(self) -> int:
        """When it came."""
        return self.received


def check_inputs(description: RuntimeDescription, inputs: Arrays) -> Extent:
    """Check a request's inputs against its engine; returns how large it is.

    Raises:
        RequestInvalid: One is missing, not known, or of another type or shape; the message says which.
    """
    specs = {spec.name: spec for spec in description.inputs}
    if unknown := sorted(set(inputs) - set(specs)):
        raise RequestInvalid(f"the engine has no input {', '.join(unknown)}", remedy=f"it takes {', '.join(specs)}")
    if missing := [name for name in specs if name not in inputs]:
        raise RequestInvalid(f"input {', '.join(missing)} is missing", remedy=f"send {', '.join(specs)}")
    sizes = {}
    for name, spec in specs.items():
        batch = _check_one(spec, inputs[name])
        if batch is not None:
            sizes[name] = batch
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise RequestInvalid(f"inputs of different batches: {told}", remedy="send as many entries of each")
    batch = next(iter(sizes.values()), 1)
    if not 1 <= batch <= description.max_batch:
        raise RequestInvalid(
            f"a batch of {batch}, the engine takes 1 to {description.max_batch}",
            remedy="split it, or build the bundle again with a larger --max-batch",
        )
    shapes = ((spec, inputs[name].shape) for name, spec in specs.items())
    return Extent(batch, free_sizes(shapes, description.smallest, description.largest))


def _check_one(spec: TensorSpec, array: npt.NDArray[Any] | TensorSource) -> int | None:
    """Entries of an input's batch; None for an input without one."""
    if array.dtype.name != spec.dtype:
        raise RequestInvalid(f"input {spec.name} is {array.dtype.name}", remedy=f"send {spec.dtype}")
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        wanted = list(spec.shape)
        raise RequestInvalid(f"input {spec.name} has shape {list(array.shape)}", remedy=f"send {wanted}")
    return array.shape[0] if spec.batched else None
