"""An engine as the protocol describes models: metadata and configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.manifest import Preprocessing
from engine.runtime import RuntimeDescription
from engine.tensors import TensorSpec
from protos.inference import model_config_pb2 as config_pb
from protos.inference import service_pb2 as pb
from server.engines.served_engine import ServedEngine
from server.open_inference.datatypes import DATATYPES, config_type

PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "tensorrt-rtx": "tensorrt_plan"}
"""Triton's word for the framework and format of each of our backends that it knows."""


@dataclass(frozen=True)
class Model:
    """What a request must know of an engine.

    Attributes:
        name: The bundle's name.
        version: The bundle's version.
        digest: The bundle's digest.
        inputs: Inputs by name, in order.
        outputs: Outputs by name, in order.
        largest_batch: Entries that one request may have.
        smallest: Smallest size of each dimension besides the batch that a request chooses for itself.
        largest: Largest size of each of them.
        told_by_run: Whether an output has a size that only the run tells.
        batched: Whether every input and output begins with the batch, which the protocol then leaves out of their
            dimensions in the configuration.
    """

    name: str
    version: str
    digest: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    largest_batch: int
    batched: bool
    smallest: Mapping[str, int] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)
    told_by_run: bool = False

    @classmethod
    def of(cls, served: ServedEngine) -> Model:
        """The model that an engine is."""
        description, manifest = served.description, served.bundle.manifest
        specs = (*description.inputs, *description.outputs)
        return cls(
            name=manifest.name,
            version=manifest.version,
            digest=served.bundle.digest,
            inputs={spec.name: spec for spec in description.inputs},
            outputs={spec.name: spec for spec in description.outputs},
            largest_batch=description.max_batch,
            batched=all(spec.batched for spec in specs),
            smallest=description.smallest,
            largest=description.largest,
            told_by_run=bool(description.told_by_run),
        )


def metadata(served: ServedEngine, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """The answer to `ModelMetadata`.

    Args:
        served: The engine.
        versions: Versions of it that are served.
    """
    description = served.description
    return pb.ModelMetadataResponse(
        name=served.bundle.manifest.name,
        versions=versions,
        platform=PLATFORMS.get(description.backend, description.backend),
        inputs=_tensors(description.inputs),
        outputs=_tensors(description.outputs),
    )


def config(served: ServedEngine, instances: int) -> config_pb.ModelConfig:
    """How an engine is served, as Triton would configure it.

    Args:
        served: The engine.
        instances: Copies of it, each with a thread.
    """
    model, description, manifest = Model.of(served), served.description, served.bundle.manifest
    kind = (
        config_pb.ModelInstanceGroup.KIND_CPU if description.target == "cpu" else config_pb.ModelInstanceGroup.KIND_GPU
    )
    skipped = 1 if model.batched else 0
    return config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORMS.get(description.backend, description.backend),
        backend="tensorrt" if description.backend == "tensorrt-rtx" else description.backend,
        version_policy=config_pb.ModelVersionPolicy(latest=config_pb.ModelVersionPolicy.Latest(num_versions=1)),
        max_batch_size=model.largest_batch if model.batched else 0,
        input=[
            config_pb.ModelInput(
                name=spec.name,
                data_type=config_type(spec.dtype),
                format=_format(spec, manifest.preprocessing),
                dims=_sizes(spec)[skipped:],
            )
            for spec in description.inputs
        ],
        output=[
            config_pb.ModelOutput(name=spec.name, data_type=config_type(spec.dtype), dims=_sizes(spec)[skipped:])
            for spec in description.outputs
        ],
        instance_group=[config_pb.ModelInstanceGroup(name=model.name, count=instances, kind=kind)],
        default_model_filename=manifest.graphs[description.graph].path if description.graph in manifest.graphs else "",
        parameters={
            key: config_pb.ModelParameter(string_value=value)
            for key, value in {
                "engine_digest": served.bundle.digest,
                "precision": description.precision,
                "dimensions": _ranges(description),
                "degraded": served.degraded,
            }.items()
            if value
        },
    )


def request_bytes(served: ServedEngine) -> int:
    """Bytes of the inputs of an engine's largest request."""
    description = served.description
    return sum(spec.size_bytes(description.max_batch, description.largest) for spec in description.inputs)


def _ranges(description: RuntimeDescription) -> str:
    """What a request may choose, as `length=1:512` for each dimension."""
    chosen = {name for spec in description.inputs for name in spec.free}
    return ", ".join(
        f"{name}={description.smallest.get(name, 0)}:{most}"
        for name, most in description.largest.items()
        if name in chosen
    )


def _tensors(specs: Iterable[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [
        pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=DATATYPES[spec.dtype], shape=_sizes(spec))
        for spec in specs
    ]


def _sizes(spec: TensorSpec) -> list[int]:
    """Sizes of a tensor; -1 for one that is chosen at run time."""
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def _format(spec: TensorSpec, preprocessing: Preprocessing | None) -> config_pb.ModelInput.Format.ValueType:
    """A camera's frame goes in as rows, columns, channels; of other inputs nothing is known."""
    if preprocessing is not None and preprocessing.input == spec.name:
        return config_pb.ModelInput.FORMAT_NHWC
    return config_pb.ModelInput.FORMAT_NONE
