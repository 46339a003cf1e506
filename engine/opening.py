"""From a bundle and a target to a loaded engine."""

from __future__ import annotations

import logging
from pathlib import Path

import onnxruntime

from engine.bundle import Bundle
from engine.cpu import cpu_features, cpu_name, missing_features
from engine.errors import BuildFailed, BundleInvalid, PlanRejected, RuntimeUnavailable
from engine.manifest import Manifest, Target
from engine.onnx_runtime import OnnxRuntime
from engine.runtime import Runtime, RuntimeDescription
from engine.slots import RegionTable
from engine.tensorrt.plan_cache import PlanCache

_log = logging.getLogger(__name__)


def open_runtime(
    bundle: Bundle,
    target: Target,
    regions: RegionTable,
    *,
    threads: int | None = None,
    spin: bool = False,
    fallback: bool = False,
    plan_cache: Path | None = None,
) -> Runtime:
    """Load the engine of a bundle that serves a target.

    Args:
        bundle: An opened bundle.
        target: What to run on.
        regions: The memory that batches will refer to.
        threads: Threads of one inference on a CPU; None means one per core.
        spin: Whether idle threads of a CPU's inference wait for work without sleeping.
        fallback: Whether to run on the CPU where the target cannot be had. The runtime then describes itself as
            degraded, with the reason.
        plan_cache: Directory for plans compiled on this device; None means the user's cache directory.

    Raises:
        BundleInvalid: No graph of the bundle serves the target.
        RuntimeUnavailable: The library or device is missing, and `fallback` is off.
        PlanRejected: The plan cache was tampered with, and `fallback` is off.
        BuildFailed: No plan of the bundle fits, TensorRT refuses the graph, and `fallback` is off.
    """
    if target == "cpu":
        return _open_cpu(bundle, bundle.manifest.graph_for("cpu"), regions, threads, spin, None)
    bundle.manifest.graph_for(target)  # a bundle that was not built for the target is a mistake, not an outage
    try:
        from engine.tensorrt.opening import open_tensorrt  # noqa: PLC0415 - a CPU server never pays for it

        return open_tensorrt(bundle, target, regions, cache=PlanCache(plan_cache))
    except (RuntimeUnavailable, PlanRejected, BuildFailed) as error:
        if not fallback:
            raise
        degraded = f"{target} is not available: {error.message}"
        _log.warning("falling back to the CPU: %s", error)
        return _open_cpu(bundle, fallback_graph(bundle.manifest), regions, threads, spin, degraded)


def fallback_graph(manifest: Manifest) -> str:
    """The graph that runs on a CPU in place of another target's: the CPU's own, or the float graph, never TensorRT's.

    Raises:
        BundleInvalid: It has neither.
    """
    try:
        return manifest.graph_for("cpu")
    except BundleInvalid:
        if "float" in manifest.graphs:
            return "float"
        raise


def _open_cpu(
    bundle: Bundle, graph_name: str, regions: RegionTable, threads: int | None, spin: bool, degraded: str | None
) -> Runtime:
    manifest = bundle.manifest
    graph = manifest.graphs[graph_name]
    if missing := missing_features(graph.cpu_features, cpu_features()):
        lacks = f"this CPU lacks {' and '.join(missing)}, without which {graph_name} computes other numbers"
        degraded = f"{degraded}; {lacks}" if degraded else lacks
    description = RuntimeDescription(
        backend="onnxruntime",
        backend_version=onnxruntime.__version__,
        target="cpu",
        graph=graph_name,
        precision=graph.precision,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        max_batch=manifest.max_batch,
        device=cpu_name(),
        degraded=degraded,
        smallest=manifest.smallest,
        largest=manifest.largest,
    )
    return OnnxRuntime(bundle.read(graph.path), description, regions, threads, spin)
