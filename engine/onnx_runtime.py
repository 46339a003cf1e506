"""The CPU backend: the embedded default, and the fallback that announces itself as degraded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import onnxruntime

from engine.checks import check_batch
from engine.errors import RunFailed, RuntimeUnavailable
from engine.runtime import Batch, MemoryReport, RunReport, RuntimeDescription
from engine.slots import RegionTable


class OnnxRuntime:
    """Executes a graph with ONNX Runtime, reading and writing the slots in place.

    Args:
        graph: Bytes of the ONNX file.
        description: What the bundle says about it; the backend's own facts are filled in.
        regions: The memory that handles refer to.
        threads: Threads of one inference; None leaves it to ONNX Runtime (one per core).

    Raises:
        RuntimeUnavailable: ONNX Runtime refuses the graph; its own words are in the message.
    """

    def __init__(
        self, graph: bytes, description: RuntimeDescription, regions: RegionTable, threads: int | None = None
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle threads must sleep: between two frames the cores belong to decoding and to gRPC.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        before = _resident_bytes()
        try:
            self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise RuntimeUnavailable(
                f"ONNX Runtime {onnxruntime.__version__} refuses graph {description.graph!r}: {error}",
                remedy="build the bundle again with --target cpu, or install a newer onnxruntime",
            ) from None
        self._load_bytes = max(0, _resident_bytes() - before)
        self._graph_bytes = len(graph)
        self._description = description
        self._regions = regions

    def describe(self) -> RuntimeDescription:
        """What is loaded."""
        return self._description

    def run(self, batch: Batch) -> RunReport:
        """Execute one batch.

        Raises:
            RunFailed: A tensor is missing, has the wrong shape or dtype, or ONNX Runtime failed.
        """
        check_batch(self._description, batch)
        started = time.perf_counter_ns()
        try:
            binding = self._session.io_binding()
            for spec in self._description.inputs:
                view = self._regions.view(batch.inputs[spec.name])
                binding.bind_ortvalue_input(spec.name, onnxruntime.OrtValue.ortvalue_from_numpy(view))
            for spec in self._description.outputs:
                view = self._regions.view(batch.outputs[spec.name])
                binding.bind_ortvalue_output(spec.name, onnxruntime.OrtValue.ortvalue_from_numpy(view))
            self._session.run_with_iobinding(binding)
        except (KeyError, ValueError) as error:
            raise RunFailed(f"a slot is not usable: {error}", remedy="report this as a bug of the caller") from error
        except Exception as error:  # as above
            raise RunFailed(f"ONNX Runtime failed: {error}", remedy="check the bundle: build_engine verify") from error
        return RunReport(inference_ns=time.perf_counter_ns() - started)

    def memory(self) -> MemoryReport:
        """Weights by the graph's size; activations by what loading and warming up added to the process."""
        return MemoryReport({"weights": self._graph_bytes, "activations": max(0, self._load_bytes - self._graph_bytes)})

    def close(self) -> None:
        """Give the session back."""
        self._session = None


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
