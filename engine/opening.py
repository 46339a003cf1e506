"""From a bundle and a target to a loaded engine."""

from __future__ import annotations

import onnxruntime

from engine.bundle import Bundle
from engine.errors import RuntimeUnavailable
from engine.manifest import Target
from engine.onnx_runtime import OnnxRuntime, cpu_name
from engine.runtime import Runtime, RuntimeDescription
from engine.slots import RegionTable


def open_runtime(
    bundle: Bundle,
    target: Target,
    regions: RegionTable,
    *,
    threads: int | None = None,
    fallback: bool = False,
) -> Runtime:
    """Load the engine of a bundle that serves a target.

    Args:
        bundle: An opened bundle.
        target: What to run on.
        regions: The memory that batches will refer to.
        threads: Threads of one inference on a CPU; None means one per core.
        fallback: Whether to run on the CPU where the target cannot be had. The runtime then describes itself as
            degraded, with the reason.

    Raises:
        BundleInvalid: No graph of the bundle serves the target.
        RuntimeUnavailable: The library or device is missing, and `fallback` is off.
        PlanRejected: A plan does not fit this device.
    """
    if target == "cpu":
        return _open_cpu(bundle, regions, threads, None)
    try:
        from engine.tensorrt.opening import open_tensorrt  # noqa: PLC0415 - needs a GPU's libraries

        return open_tensorrt(bundle, target, regions)
    except RuntimeUnavailable as error:
        if not fallback:
            raise
        return _open_cpu(bundle, regions, threads, f"{target} is not available: {error.message}")


def _open_cpu(bundle: Bundle, regions: RegionTable, threads: int | None, degraded: str | None) -> Runtime:
    manifest = bundle.manifest
    name = manifest.graph_for("cpu")
    graph = manifest.graphs[name]
    description = RuntimeDescription(
        backend="onnxruntime",
        backend_version=onnxruntime.__version__,
        target="cpu",
        graph=name,
        precision=graph.precision,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        max_batch=manifest.max_batch,
        device=cpu_name(),
        degraded=degraded,
    )
    return OnnxRuntime(bundle.read(graph.path), description, regions, threads)
