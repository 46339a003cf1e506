"""From a bundle to a TensorRT engine: a plan that fits, or one compiled here and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.bundle import Bundle
from engine.errors import PlanRejected
from engine.manifest import Manifest, PlanEntry, Target
from engine.runtime import Runtime, RuntimeDescription
from engine.slots import RegionTable
from engine.tensorrt.api import TensorRT, load_tensorrt
from engine.tensorrt.cuda import Gpu
from engine.tensorrt.key import DeviceFacts, mismatches
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan, plan_key
from engine.tensorrt.plan_cache import PlanCache
from engine.tensorrt.runtime import TensorRTRuntime

_log = logging.getLogger(__name__)

Compile = Callable[[bytes, Target, PlanOptions], CompiledPlan]


@dataclass(frozen=True)
class PlanChoice:
    """Which of a bundle's plans may be opened.

    Attributes:
        entry: The plan, or None where none fits.
        reasons: Why the others were passed over, each with both values.
    """

    entry: PlanEntry | None
    reasons: tuple[str, ...]


def open_tensorrt(
    bundle: Bundle,
    target: Target,
    regions: RegionTable,
    *,
    cache: PlanCache | None = None,
    compile_missing: bool = True,
) -> Runtime:
    """Open the engine of a bundle that serves a target, on the first GPU.

    Args:
        bundle: An opened bundle.
        target: Any target but `cpu`.
        regions: The memory that batches will refer to.
        cache: Where plans compiled here are kept; None means the default directory.
        compile_missing: Whether to compile the graph, which takes minutes on an Orin, where no plan fits.

    Raises:
        BundleInvalid: No graph of the bundle serves the target.
        RuntimeUnavailable: The library or the device is missing.
        PlanRejected: No plan fits and `compile_missing` is off, or the cache was tampered with.
        BuildFailed: TensorRT refuses the graph.
    """
    name = bundle.manifest.graph_for(target)
    tensorrt = load_tensorrt(target)
    gpu = Gpu()
    try:
        plan = find_plan(bundle, target, tensorrt, gpu.facts, cache or PlanCache(), compile_missing)
        description = RuntimeDescription(
            backend=tensorrt.backend,
            backend_version=tensorrt.version,
            target=target,
            graph=name,
            precision=bundle.manifest.graphs[name].precision,
            inputs=bundle.manifest.inputs,
            outputs=bundle.manifest.outputs,
            max_batch=bundle.manifest.max_batch,
            device=gpu.facts.name,
            smallest=bundle.manifest.smallest,
            largest=bundle.manifest.largest,
        )
    except BaseException:
        gpu.close()
        raise
    return TensorRTRuntime(plan, tensorrt, gpu, description, regions)


def find_plan(
    bundle: Bundle,
    target: Target,
    tensorrt: TensorRT,
    device: DeviceFacts,
    cache: PlanCache,
    compile_missing: bool,
    compile_graph: Compile = build_plan,
) -> bytes:
    """A plan that may be opened here: digest and key have matched.

    The bundle's own plans come first, then the cache, then the compiler.

    Raises:
        PlanRejected: As for `open_tensorrt`.
        BuildFailed: As for `open_tensorrt`.
    """
    manifest = bundle.manifest
    name = manifest.graph_for(target)
    path = manifest.graphs[name].path
    options = PlanOptions(max_batch=manifest.max_batch, dimensions=manifest.dimensions)
    environment = device.environment(tensorrt.backend, tensorrt.version)
    wanted = {**environment, "graph_sha256": manifest.files[path].sha256, **options.taken()}
    choice = choose_plan(manifest, target, name, wanted)
    if choice.entry is not None:
        return bundle.read(choice.entry.path)
    why = "; ".join(choice.reasons) or f"the bundle has no plan for {target}"
    if not compile_missing:
        raise PlanRejected(
            f"{bundle.path}: no plan fits {device.name}: {why}",
            remedy=f"build it again on this device: python -m build_engine build MODEL -o BUNDLE --target {target}",
        )
    graph = bundle.read(path)
    key = plan_key(tensorrt, graph, options)
    try:
        cached = cache.load(bundle.digest, key)
    except OSError as error:  # a directory that cannot be read costs a compile, not the engine
        _log.warning("the plan cache %s cannot be read: %s", cache.directory, error)
        cached = None
    if cached is not None:
        return cached
    _log.warning("compiling %s for %s: %s", path, device.name, why)
    compiled = compile_graph(graph, target, options)
    if compiled.key != key:
        raise PlanRejected(
            f"{tensorrt.title} made a plan for another key: {'; '.join(mismatches(compiled.key, key))}",
            remedy="report this as a bug",
        )
    try:
        cache.store(bundle.digest, key, compiled.data)
    except OSError as error:
        _log.warning("the plan cannot be kept in %s, the next start compiles again: %s", cache.directory, error)
    return compiled.data


def choose_plan(manifest: Manifest, target: Target, graph: str, wanted: Mapping[str, str]) -> PlanChoice:
    """The first of a bundle's plans for a target whose key has every wanted value.

    Args:
        manifest: The bundle's manifest.
        target: What to run on.
        graph: Name of the graph that serves the target.
        wanted: What a plan's key must say.
    """
    reasons = []
    for entry in manifest.plans:
        if entry.target != target or entry.graph != graph:
            continue
        differences = mismatches(entry.key, wanted)
        if not differences:
            return PlanChoice(entry, ())
        reasons.append(f"{entry.path} ({'; '.join(differences)})")
    return PlanChoice(None, tuple(reasons))
