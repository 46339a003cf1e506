"""Whether a batch fits an engine: the same answer from every backend."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from engine.errors import RunFailed
from engine.runtime import Batch, RuntimeDescription
from engine.slots import RegionTable, SlotHandle
from engine.tensors import TensorSpec

_REMEDY = "fill the slots as the bundle's manifest says: python -m build_engine inspect BUNDLE"
_CALLER = "keep a region until its last batch is answered: this is a bug of the caller"


def check_batch(description: RuntimeDescription, batch: Batch) -> int:
    """Check a batch against what the engine takes, and return its size.

    Raises:
        RunFailed: A tensor is missing or does not fit; the message has both shapes.
    """
    sizes: dict[str, int] = {}
    for kind, specs, handles in (
        ("input", description.inputs, batch.inputs),
        ("output", description.outputs, batch.outputs),
    ):
        for spec in specs:
            handle = handles.get(spec.name)
            if handle is None:
                raise RunFailed(f"{kind} {spec.name!r} has no slot", remedy=_REMEDY)
            if handle.dtype != spec.dtype or not _fits(spec, handle, sizes):
                named = ", ".join(f"{name} = {size}" for name, size in sizes.items() if name in spec.shape)
                raise RunFailed(
                    f"{spec.name} is {handle.dtype}{list(handle.shape)}, the engine wants "
                    f"{spec.dtype}[{', '.join(map(str, spec.shape))}]{f' with {named}' if named else ''}",
                    remedy=_REMEDY,
                )
    for name, largest in description.largest.items():
        smallest = description.smallest.get(name, 0)
        if name in sizes and not smallest <= sizes[name] <= largest:
            raise RunFailed(
                f"{sizes[name]} of dimension {name!r}; the engine takes {smallest} to {largest}", remedy=_REMEDY
            )
    size = sizes.get("batch", 1)
    if not 1 <= size <= description.max_batch:
        raise RunFailed(f"a batch of {size}; the engine takes 1 to {description.max_batch}", remedy=_REMEDY)
    return size


def view_slot(regions: RegionTable, handle: SlotHandle) -> npt.NDArray[Any]:
    """The memory of a slot.

    Raises:
        RunFailed: The region is unknown, or the slot is not inside it.
    """
    try:
        return regions.view(handle)
    except KeyError as error:
        raise RunFailed(f"a slot is not usable: region {error} is unknown", remedy=_CALLER) from error
    except ValueError as error:
        raise RunFailed(f"a slot is not usable: {error}", remedy=_CALLER) from error


def _fits(spec: TensorSpec, handle: SlotHandle, sizes: dict[str, int]) -> bool:
    """Whether a shape matches, a named dimension having one size in all tensors. `sizes` learns new names."""
    if len(handle.shape) != len(spec.shape):
        return False
    for wanted, given in zip(spec.shape, handle.shape, strict=True):
        if isinstance(wanted, str):
            if sizes.setdefault(wanted, given) != given:
                return False
        elif wanted != given:
            return False
    return True
