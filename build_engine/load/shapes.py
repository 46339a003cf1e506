"""Shapes as they are typed: `1,3,384,640`, `image=1,3,384,640`, `ids=1,77:int64`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from build_engine.errors import BuildError

_SHAPE = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<sizes>\d+(?:[,x]\d+)*)(?::(?P<dtype>[a-z]+\d*))?")
DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")


@dataclass(frozen=True)
class InputShape:
    """One input of a model.

    Attributes:
        name: The input's name; None where the model has one input only.
        sizes: `(batch, ...)`. The batch stays free at run time; the size given here is an example.
        dtype: numpy name of the element type.
    """

    name: str | None
    sizes: tuple[int, ...]
    dtype: str = "float32"


def parse_shape(text: str) -> InputShape:
    """Read one `--input-shape`.

    Raises:
        BuildError: It is no shape.
    """
    found = _SHAPE.fullmatch(text.strip())
    if not found or (found["dtype"] or "float32") not in DTYPES:
        raise BuildError(
            f"--input-shape {text!r} is no shape",
            remedy="write --input-shape 1,3,384,640, or one per input: --input-shape image=1,3,384,640 "
            f"--input-shape ids=1,77:int64 (types: {', '.join(DTYPES)})",
        )
    sizes = tuple(int(size) for size in re.split("[,x]", found["sizes"]))
    if 0 in sizes:
        raise BuildError(f"--input-shape {text!r} has a size of 0", remedy="every size is at least 1")
    return InputShape(found["name"], sizes, found["dtype"] or "float32")
