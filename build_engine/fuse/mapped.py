"""Weights that stay in their file and are looked at through a memory map."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import onnx_ir as ir


def forget_pages(values: Iterable[ir.Value | None]) -> None:
    """Lets go of the memory that mapped weights took while they were read; the next look reads the file again.

    Without it a model's whole file ends up in memory, once it has been looked at.
    """
    for value in values:
        tensor = None if value is None else value.const_value
        pages = tensor.raw if isinstance(tensor, ir.ExternalTensor) else None
        if pages is not None and hasattr(pages, "madvise"):  # Windows has none
            pages.madvise(mmap.MADV_DONTNEED)
