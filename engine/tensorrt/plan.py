"""From an ONNX graph to a plan: the compile step, the same for every version of TensorRT."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.bundle import sha256
from engine.errors import BuildFailed, RuntimeUnavailable
from engine.manifest import FreeDimension, Target
from engine.tensorrt.api import TensorRT, load_tensorrt
from engine.tensorrt.key import NONE, PlanKey, portable_environment
from engine.tensorrt.log import BuildLog, CompiledLayer, no_collection, without_driver_noise
from engine.tensorrt.profile import profile_shapes
from engine.tensorrt.progress import Monitor, Progress
from engine.tensorrt.refusal import Refusal, build_failed

__all__ = ["CompiledLayer", "CompiledPlan", "PlanOptions", "build_plan", "plan_key"]


@dataclass(frozen=True)
class PlanOptions:
    """How to compile. None means TensorRT's own default.

    Attributes:
        max_batch: Largest batch of the optimization profile, where the graph leaves the batch free.
        opt_batch: The batch that kernels are chosen for; None means the largest.
        dimensions: Sizes of the dimensions besides the batch that the graph leaves free, by name; kernels are chosen
            for the usual ones.
        workspace_bytes: Most scratch memory that kernels may use.
        builder_optimization_level: 0 (builds fastest) to 5 (runs fastest).
        tf32: Whether FP32 convolutions may round their inputs to 10 bits of mantissa on tensor cores. Off, since
            precision is the graph's to say; FP16 is faster still.
        compute_capabilities: For TensorRT-RTX: GPUs to compile for, for example `("8.6", "12.0")`; empty means all
            that the library supports.
        timing_cache: Measurements of an earlier build: kernels are then chosen as they were. TensorRT-RTX measures
            nothing and ignores it.
    """

    max_batch: int = 1
    opt_batch: int | None = None
    dimensions: Mapping[str, FreeDimension] = field(default_factory=dict)
    workspace_bytes: int | None = None
    builder_optimization_level: int | None = None
    tf32: bool = False
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: bytes | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1 or not 1 <= (self.opt_batch or 1) <= self.max_batch:
            raise ValueError(f"max_batch {self.max_batch} and opt_batch {self.opt_batch}: want 1 <= opt <= max")

    def taken(self) -> PlanKey:
        """The part of a plan's key that says what requests may ask of it."""
        sizes = ",".join(f"{name}={sizes}" for name, sizes in sorted(self.dimensions.items()))
        return {"max_batch": str(self.max_batch), **({"dimensions": sizes} if sizes else {})}

    def key(self) -> PlanKey:
        """The options' part of a plan's key."""
        return {
            **self.taken(),
            "opt_batch": str(self.opt_batch or self.max_batch),
            "workspace_bytes": NONE if self.workspace_bytes is None else str(self.workspace_bytes),
            "builder_optimization_level": (
                NONE if self.builder_optimization_level is None else str(self.builder_optimization_level)
            ),
            "tf32": str(self.tf32).lower(),
            "timing_cache_sha256": NONE if self.timing_cache is None else sha256(self.timing_cache),
        }


@dataclass(frozen=True)
class CompiledPlan:
    """A serialized engine and what its build said.

    Attributes:
        data: The plan. Executable code: see `engine.tensorrt.opening` for who may open it.
        activation_bytes: Memory for intermediate tensors at the largest batch; None where the log does not say.
        weights_bytes: Memory for weights; likewise.
        layers: The compiled kernels in order, each with the ONNX nodes it computes.
        key: Everything the plan depends on, for `PlanEntry.key`.
        build_seconds: Time from parsing to the finished plan.
        timing_cache: Measurements of this build, to repeat its choices; None for TensorRT-RTX.
    """

    data: bytes
    activation_bytes: int | None
    weights_bytes: int | None
    layers: tuple[CompiledLayer, ...]
    key: dict[str, str]
    build_seconds: float
    timing_cache: bytes | None = None


def build_plan(
    onnx_graph: bytes,
    target: Target,
    options: PlanOptions = PlanOptions(),
    *,
    progress: Progress | None = None,
) -> CompiledPlan:
    """Compile a graph for a target.

    The precision is the graph's own (the network is strongly typed). One optimization profile has the range of every
    free dimension of the inputs: from 1 to `options.max_batch` for the batch, and what `options.dimensions` says for
    the others. TensorRT-RTX compiles without a GPU; TensorRT compiles on the device that will run the plan, and
    measures.

    The same graph and options give the same bytes with TensorRT-RTX where only one batch size is left. With several,
    the compiler (1.7.1) numbers its symbolic sizes in the order of addresses in memory, which the kernel draws anew for
    each process: no two of six builds of an INT8 graph had the same bytes, all of them the same length and the same
    kernels. `build_engine.compile.repeatable` compiles where addresses are the same.

    Args:
        onnx_graph: Bytes of the ONNX file.
        target: Any target but `cpu`.
        options: How to compile.
        progress: Called with a phase's name, its finished steps and its steps. An exception it raises stops the
            build and is raised here.

    Raises:
        RuntimeUnavailable: The library, or the device it needs, is missing.
        BuildFailed: TensorRT refuses the network; the operator, the node and its own words are in the message. Or the
            sizes of a free dimension are not given; the flag to add is in the remedy.
    """
    tensorrt = load_tensorrt(target)
    key = plan_key(tensorrt, onnx_graph, options)
    log = BuildLog()
    monitor = Monitor(progress) if progress is not None else None
    started = time.perf_counter()
    with no_collection(), _interrupts(log, monitor):
        # Held until the plan is done: TensorRT keeps bare pointers to all of them.
        logger = log.adapter(tensorrt)
        progress_monitor = None if monitor is None else monitor.adapter(tensorrt)
        builder = _builder(tensorrt, logger)
        network = builder.create_network(tensorrt.network_flags())
        _parse(tensorrt, network, logger, log, onnx_graph)
        config = builder.create_builder_config()
        _configure(tensorrt, config, options, log)
        _add_profile(tensorrt, builder, network, config, options, log)
        if progress_monitor is not None:
            config.progress_monitor = progress_monitor
        serialized = builder.build_serialized_network(network, config)
        data = None if serialized is None else bytes(serialized)
    if data is None:
        raise build_failed(tensorrt.title, [_explain(log, text) for text in log.errors])
    timing_cache = None if tensorrt.compiles_without_device else config.get_timing_cache()
    return CompiledPlan(
        data=data,
        activation_bytes=log.activation_bytes,
        weights_bytes=log.weights_bytes,
        layers=log.layers,
        key=key,
        build_seconds=time.perf_counter() - started,
        timing_cache=None if timing_cache is None else bytes(timing_cache.serialize()),
    )


def plan_key(tensorrt: TensorRT, onnx_graph: bytes, options: PlanOptions) -> PlanKey:
    """The key that a plan compiled here, now, would have.

    Raises:
        RuntimeUnavailable: The library measures on a device, and there is none.
    """
    if tensorrt.compiles_without_device:
        environment = portable_environment(tensorrt.backend, tensorrt.version, options.compute_capabilities)
    else:
        from engine.tensorrt.cuda import device_facts  # noqa: PLC0415 - needs PyCUDA

        environment = device_facts().environment(tensorrt.backend, tensorrt.version)
    return {**environment, **options.key(), "graph_sha256": sha256(onnx_graph)}


@contextmanager
def _interrupts(*sources: BuildLog | Monitor | None) -> Iterator[None]:
    """Raise what arrived inside TensorRT's callbacks, rather than the failure that it caused there."""
    try:
        yield
    finally:
        for source in sources:
            if source is not None and source.interrupt is not None:
                raise source.interrupt


def _builder(tensorrt: TensorRT, logger: Any) -> Any:  # noqa: ANN401 - bindings
    try:
        return tensorrt.module.Builder(logger)
    except TypeError as error:  # how pybind11 says that the C++ side returned nothing
        raise RuntimeUnavailable(
            f"{tensorrt.title} cannot start a build: {error}", remedy="run on a device with an NVIDIA GPU and driver"
        ) from error


def _parse(tensorrt: TensorRT, network: Any, logger: Any, log: BuildLog, onnx_graph: bytes) -> None:  # noqa: ANN401
    parser = tensorrt.module.OnnxParser(network, logger)
    parsed = parser.parse(onnx_graph)
    refusals = []
    for index in range(parser.num_errors):
        fault = parser.get_error(index)
        node = fault.node_name() or f"number {fault.node()}, unnamed"
        refusals.append(Refusal(_words(fault.desc()), fault.node_operator() or None, node))
    if not parsed or refusals:
        raise build_failed(tensorrt.title, refusals or [_explain(log, text) for text in log.errors])
    if network.num_outputs == 0:  # anything unreadable parses as an empty network
        raise BuildFailed(
            f"{tensorrt.title} finds no network in these {len(onnx_graph)} bytes",
            remedy="check the file: python -m build_engine inspect BUNDLE",
        )


def _configure(tensorrt: TensorRT, config: Any, options: PlanOptions, log: BuildLog) -> None:  # noqa: ANN401
    config.profiling_verbosity = tensorrt.module.ProfilingVerbosity.DETAILED
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(tensorrt.module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    tf32 = tensorrt.module.BuilderFlag.TF32
    (config.set_flag if options.tf32 else config.clear_flag)(tf32)
    if tensorrt.compiles_without_device:
        _set_compute_capabilities(tensorrt, config, options.compute_capabilities, log)
    else:
        config.set_timing_cache(config.create_timing_cache(options.timing_cache or b""), False)


def _set_compute_capabilities(
    tensorrt: TensorRT,
    config: Any,  # noqa: ANN401
    capabilities: tuple[str, ...],
    log: BuildLog,
) -> None:
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        member = tensorrt.member("ComputeCapability", f"SM{capability.replace('.', '')}")
        if member is None or not config.set_compute_capability(member, index):
            said = "; ".join(log.errors) or "not supported"
            raise build_failed(tensorrt.title, [Refusal(f"compute capability {capability}: {said}")])


def _add_profile(
    tensorrt: TensorRT,
    builder: Any,  # noqa: ANN401
    network: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    options: PlanOptions,
    log: BuildLog,
) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not free:
        return
    profile = builder.create_optimization_profile()
    for tensor in free:
        names = [tensor.get_dimension_name(axis) for axis in range(len(tensor.shape))]
        batches = (1, options.opt_batch or options.max_batch, options.max_batch)
        shapes = profile_shapes(tensor.name, tuple(tensor.shape), names, batches, options.dimensions)
        profile.set_shape(tensor.name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise build_failed(tensorrt.title, [_explain(log, text) for text in log.errors])


def _explain(log: BuildLog, text: str) -> Refusal:
    """An error of the log with the node it speaks of."""
    node = log.node_in(text)
    return Refusal(_words(text), log.operators.get(node) if node is not None else None, node)


def _words(text: str) -> str:
    """TensorRT's message on one line, less what it says about a missing driver."""
    return " ".join(without_driver_noise(text).split())
