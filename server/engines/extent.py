"""How large a request is: its batch, and the dimensions that it chooses for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.tensors import TensorSpec
from server.errors import RequestInvalid


@dataclass(frozen=True)
class Extent:
    """The size of a request.

    Attributes:
        batch: Entries of its batch; 1 for an engine without one.
        sizes: Size of each free dimension besides the batch, by name.
    """

    batch: int
    sizes: tuple[tuple[str, int], ...] = ()


def free_sizes(
    inputs: Iterable[tuple[TensorSpec, Sequence[int]]], smallest: Mapping[str, int], largest: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """The sizes of a request's free dimensions, which are the same in all of its inputs.

    Args:
        inputs: Inputs with their shapes, which fit but for these sizes.
        smallest: Smallest size of each that is served.
        largest: Largest size of each.

    Raises:
        RequestInvalid: Two inputs differ in one, or it is smaller or larger than what is served.
    """
    if not largest:
        return ()
    found: dict[str, tuple[int, str]] = {}
    for spec, shape in inputs:
        for name, size in zip(spec.shape, shape, strict=True):
            if not isinstance(name, str) or name == "batch":
                continue
            known, other = found.setdefault(name, (size, spec.name))
            if known != size:
                raise RequestInvalid(
                    f"input '{spec.name}' has {size} of dimension '{name}', input '{other}' has {known}",
                    remedy="send inputs that belong together",
                )
            least, most = smallest.get(name, 0), largest[name]
            if not least <= size <= most:
                bound, send = (f"at most {most}", "less") if size > most else (f"at least {least}", "more")
                raise RequestInvalid(
                    f"input '{spec.name}' has {size} of dimension '{name}', {bound} are served",
                    remedy=f"send {send}, or build the bundle again with "
                    f"--dimension {name}={min(least, size)}:USUAL:{max(most, size)}",
                )
    return tuple((name, size) for name, (size, _) in sorted(found.items()))
