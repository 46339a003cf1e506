"""A runtime in memory, for tests of code that feeds an engine: yours and ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from engine.checks import check_batch, view_slot
from engine.errors import RunFailed
from engine.runtime import Batch, MemoryReport, RunReport, RuntimeDescription
from engine.slots import RegionTable

Compute = Callable[[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]], None]
"""Reads the inputs and writes the outputs, both by name, batch first."""


class FakeRuntime:
    """Answers every batch with a function of yours.

    Args:
        description: What it claims to be; batches are checked against it.
        regions: The memory that handles refer to.
        compute: Fills the outputs. An exception it raises becomes `RunFailed`, as a broken engine's would.
    """

    def __init__(self, description: RuntimeDescription, regions: RegionTable, compute: Compute) -> None:
        self._description = description
        self._regions = regions
        self._compute = compute
        self.closed = False

    def describe(self) -> RuntimeDescription:
        """What it claims to be."""
        return self._description

    def run(self, batch: Batch) -> RunReport:
        """Execute one batch.

        Raises:
            RunFailed: The batch does not fit the description, or the function raised.
        """
        check_batch(self._description, batch)
        inputs = {name: view_slot(self._regions, handle) for name, handle in batch.inputs.items()}
        outputs = {name: view_slot(self._regions, handle) for name, handle in batch.outputs.items()}
        started = time.perf_counter_ns()
        try:
            self._compute(inputs, outputs)
        except Exception as error:
            raise RunFailed(f"the fake engine failed: {error}", remedy="it was told to") from error
        return RunReport(inference_ns=time.perf_counter_ns() - started)

    def memory(self) -> MemoryReport:
        """A fake holds nothing."""
        return MemoryReport({})

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
