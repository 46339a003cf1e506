"""A model on disk: whole, or not at all."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from build_engine.load.wire import write_inside, write_outside

MOST_BYTES_INSIDE = 1 << 30
"""Weights above this are written to a file beside the model: no reader takes one of more than 2 GiB."""


def weights_bytes(model: ir.Model) -> int:
    """Bytes of a model's weights."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def in_memory(model: ir.Model) -> onnx.ModelProto:
    """A model as one message, weights that lie in files included; less than 2 GiB of them."""
    buffer = io.BytesIO()
    write_inside(model, buffer)
    return onnx.ModelProto.FromString(buffer.getvalue())


def save(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """Write a model, its weights inside up to 1 GiB and in `path` + `.data` above.

    What lies at the path stays as it is until the new files are complete.

    Returns:
        The files written, the model first.
    """
    data = path.with_name(f"{path.name}.data")
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        names = [path.name]
        with (scratch / path.name).open("wb") as file:
            if weights_bytes(model) <= MOST_BYTES_INSIDE:
                write_inside(model, file)
            else:
                with (scratch / data.name).open("wb") as outside:
                    write_outside(model, file, outside, data.name)
                names.append(data.name)
        for name in reversed(names):  # the model comes last: what it refers to is there
            (scratch / name).replace(path.with_name(name))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tuple(path.with_name(name) for name in names)
