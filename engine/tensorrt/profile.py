"""What an optimization profile says of an input: its least, its usual and its largest shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.errors import BuildFailed
from engine.manifest import FreeDimension

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def profile_shapes(
    tensor: str,
    shape: Sequence[int],
    names: Sequence[str | None],
    batches: tuple[int, int, int],
    dimensions: Mapping[str, FreeDimension],
) -> Shapes:
    """The least, the usual and the largest shape of one input.

    Args:
        tensor: The input's name.
        shape: Its sizes, -1 where one is free.
        names: Of its dimensions, where they have one.
        batches: Least, usual and largest batch: a free first dimension without sizes of its own.
        dimensions: Sizes of the other free dimensions, by name.

    Raises:
        BuildFailed: A free dimension has no sizes.
    """
    ranges: list[tuple[int, int, int]] = []
    missing: list[str] = []
    for axis, (size, given) in enumerate(zip(shape, names, strict=True)):
        name = given or f"{tensor}_{axis}"
        if size != -1:
            ranges.append((size, size, size))
        elif name in dimensions:
            sizes = dimensions[name]
            ranges.append((sizes.smallest, sizes.usual, sizes.largest))
        elif axis == 0:
            ranges.append(batches)
        else:
            missing.append(name)
    if missing:
        raise BuildFailed(
            f"no optimization profile fits input {tensor!r} of shape {list(shape)}: the sizes of "
            f"{', '.join(missing)} are not known",
            remedy=f"say the smallest, the usual and the largest, for example "
            f"{' '.join(f'--dimension {name}=1:128:512' for name in missing)}; or fix them with --input-shape",
        )
    least, usual, largest = zip(*ranges, strict=True)
    return least, usual, largest
