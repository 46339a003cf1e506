"""Requests whose answers were recorded from Triton, and which our server gets in the tests.

The models: `mixed` (batched: `sum` = `a` + 1, `twice` = `b` * 2), `flat` (no batch: `y` = `x` + `x`, `not_flag` =
not `flag`, `u16` = `u8` * 2) and `scores` (`probabilities` = `x`).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from protos.inference import service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
REGION_KEY = "/monocoque_exchanges"
REGION_BYTES = 256
PATIENCE_SECONDS = 60.0

A = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
B = np.arange(8, dtype=np.int64).reshape(2, 2, 2)
Infer = pb.ModelInferRequest


@dataclass(frozen=True)
class Exchange:
    """One call.

    Attributes:
        name: What it is about.
        method: The method of `GRPCInferenceService`.
        requests: One, or those of a stream, sent one after the other's answers.
    """

    name: str
    method: str
    requests: tuple[Message, ...]


def _tensor(name: str, datatype: str, shape: list[int], **parameters: Any) -> Infer.InferInputTensor:
    tensor = Infer.InferInputTensor(name=name, datatype=datatype, shape=shape)
    _set(tensor.parameters, parameters)
    return tensor


def _output(name: str, **parameters: Any) -> Infer.InferRequestedOutputTensor:
    output = Infer.InferRequestedOutputTensor(name=name)
    _set(output.parameters, parameters)
    return output


def _set(target: Any, parameters: dict[str, Any]) -> None:
    for key, value in parameters.items():
        if isinstance(value, pb.InferParameter):
            target[key].CopyFrom(value)
        elif isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int):
            target[key].int64_param = value
        else:
            target[key].string_param = value


def _region(size: int, offset: int = 0, name: str = "region") -> dict[str, Any]:
    return {"shared_memory_region": name, "shared_memory_byte_size": size, "shared_memory_offset": offset}


TENSOR_A = _tensor("a", "FP32", [2, 3])
TENSOR_B = _tensor("b", "INT64", [2, 2, 2])


def _mixed(
    a: Infer.InferInputTensor | None = TENSOR_A,
    b: Infer.InferInputTensor | None = TENSOR_B,
    raw: tuple[bytes, ...] = (A.tobytes(), B.tobytes()),
    outputs: tuple[Infer.InferRequestedOutputTensor, ...] = (),
    parameters: dict[str, Any] | None = None,
    **fields: Any,
) -> Infer:
    request = Infer(
        **({"model_name": "mixed", "id": "seven"} | fields),
        inputs=[tensor for tensor in (a, b) if tensor is not None],
        outputs=outputs,
        raw_input_contents=raw,
    )
    _set(request.parameters, parameters or {})
    return request


def _typed(tensor: Infer.InferInputTensor, **contents: Any) -> Infer.InferInputTensor:
    copy = Infer.InferInputTensor()
    copy.CopyFrom(tensor)
    copy.contents.CopyFrom(pb.InferTensorContents(**contents))
    return copy


def _flat(raw: bool = True, **changed: Infer.InferInputTensor) -> Infer:
    inputs = {
        "x": _tensor("x", "FP16", [4]),
        "flag": _tensor("flag", "BOOL", [2]),
        "u8": _tensor("u8", "UINT8", [2]),
    } | changed
    request = Infer(model_name="flat", inputs=inputs.values())
    if raw:
        halves = np.array([1, -2, 0.5, 65504], np.float16)
        request.raw_input_contents.extend([halves.tobytes(), b"\x01\x00", b"\x07\xff"])
    return request


def _scores(classes: int, name: str = "probabilities") -> Infer:
    scores = np.array([[0.1, 0.5, 0.2, 0.5, 0], [9, 8, 7, 6, 5]], np.float32)
    return Infer(
        model_name="scores",
        inputs=[_tensor("x", "FP32", [2, 5])],
        outputs=[_output(name, classification=classes)],
        raw_input_contents=[scores.tobytes()],
    )


A_VALUES = A.ravel().tolist()
B_VALUES = B.ravel().tolist()
FLOATS = _typed(TENSOR_A, fp32_contents=A_VALUES)
INTEGERS = _typed(TENSOR_B, int64_contents=B_VALUES)

UNARY: dict[str, tuple[str, Message]] = {
    "live": ("ServerLive", pb.ServerLiveRequest()),
    "ready": ("ServerReady", pb.ServerReadyRequest()),
    "server": ("ServerMetadata", pb.ServerMetadataRequest()),
    "model ready": ("ModelReady", pb.ModelReadyRequest(name="mixed")),
    "model ready, version": ("ModelReady", pb.ModelReadyRequest(name="mixed", version="1")),
    "model ready, unknown": ("ModelReady", pb.ModelReadyRequest(name="nothing")),
    "model ready, unknown version": ("ModelReady", pb.ModelReadyRequest(name="mixed", version="9")),
    "metadata, batched": ("ModelMetadata", pb.ModelMetadataRequest(name="mixed")),
    "metadata, flat": ("ModelMetadata", pb.ModelMetadataRequest(name="flat", version="1")),
    "metadata, unknown": ("ModelMetadata", pb.ModelMetadataRequest(name="nothing")),
    "metadata, unknown version": ("ModelMetadata", pb.ModelMetadataRequest(name="mixed", version="9")),
    "metadata, version that is no number": ("ModelMetadata", pb.ModelMetadataRequest(name="mixed", version="x")),
    "config, batched": ("ModelConfig", pb.ModelConfigRequest(name="mixed")),
    "config, flat": ("ModelConfig", pb.ModelConfigRequest(name="flat")),
    "config, unknown": ("ModelConfig", pb.ModelConfigRequest(name="nothing")),
    "raw": ("ModelInfer", _mixed()),
    "typed": ("ModelInfer", _mixed(FLOATS, INTEGERS, ())),
    "typed beside raw": ("ModelInfer", _mixed(FLOATS, TENSOR_B, (B.tobytes(),))),
    "inputs in another order": ("ModelInfer", _mixed(TENSOR_B, TENSOR_A, (B.tobytes(), A.tobytes()))),
    "version": ("ModelInfer", _mixed(model_version="1")),
    "one output": ("ModelInfer", _mixed(outputs=(_output("twice"),))),
    "outputs in another order": ("ModelInfer", _mixed(outputs=(_output("twice"), _output("sum")))),
    "an output twice": ("ModelInfer", _mixed(outputs=(_output("sum"), _output("sum")))),
    "unknown output": ("ModelInfer", _mixed(outputs=(_output("other"),))),
    "unknown model": ("ModelInfer", _mixed(model_name="nothing")),
    "no model": ("ModelInfer", _mixed(model_name="")),
    "unknown version": ("ModelInfer", _mixed(model_version="9")),
    "version that is no number": ("ModelInfer", _mixed(model_version="x")),
    "missing input": ("ModelInfer", _mixed(b=None, raw=(A.tobytes(),))),
    "no inputs": ("ModelInfer", _mixed(None, None, ())),
    "unknown input": ("ModelInfer", _mixed(b=_tensor("c", "INT64", [2, 2, 2]))),
    "an input twice": ("ModelInfer", _mixed(b=TENSOR_A, raw=(A.tobytes(), A.tobytes()))),
    "wrong datatype": ("ModelInfer", _mixed(_tensor("a", "INT32", [2, 3]))),
    "datatype that does not exist": ("ModelInfer", _mixed(_tensor("a", "FLOAT", [2, 3]))),
    "no datatype": ("ModelInfer", _mixed(_tensor("a", "", [2, 3]))),
    "wrong shape": ("ModelInfer", _mixed(_tensor("a", "FP32", [2, 4]), raw=(bytes(32), B.tobytes()))),
    "wrong rank": ("ModelInfer", _mixed(_tensor("a", "FP32", [6]))),
    "no shape": ("ModelInfer", _mixed(_tensor("a", "FP32", []), raw=(bytes(4), B.tobytes()))),
    "batch too large": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [5, 3]), _tensor("b", "INT64", [5, 2, 2]), (bytes(60), bytes(160))),
    ),
    "batches that differ": ("ModelInfer", _mixed(b=_tensor("b", "INT64", [1, 2, 2]), raw=(A.tobytes(), bytes(32)))),
    "batch of none": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [0, 3]), _tensor("b", "INT64", [0, 2, 2]), (b"", b"")),
    ),
    "negative size": ("ModelInfer", _mixed(_tensor("a", "FP32", [2, -3]))),
    "sizes that overflow": ("ModelInfer", _mixed(_tensor("a", "FP32", [2**62, 2**62]))),
    "too few bytes": ("ModelInfer", _mixed(raw=(A.tobytes()[:-1], B.tobytes()))),
    "too many bytes": ("ModelInfer", _mixed(raw=(A.tobytes() + b"x", B.tobytes()))),
    "too few raw contents": ("ModelInfer", _mixed(raw=(A.tobytes(),))),
    "too many raw contents": ("ModelInfer", _mixed(raw=(A.tobytes(), B.tobytes(), b"more"))),
    "no contents": ("ModelInfer", _mixed(raw=())),
    "too few typed values": ("ModelInfer", _mixed(_typed(TENSOR_A, fp32_contents=[1]), INTEGERS, ())),
    "too many typed values": ("ModelInfer", _mixed(_typed(TENSOR_A, fp32_contents=[1] * 7), INTEGERS, ())),
    "typed values of another type": ("ModelInfer", _mixed(_typed(TENSOR_A, fp64_contents=A_VALUES), INTEGERS, ())),
    "flat": ("ModelInfer", _flat()),
    "typed half precision": (
        "ModelInfer",
        _flat(
            raw=False,
            x=_typed(_tensor("x", "FP16", [4]), fp32_contents=[1, 2, 3, 4]),
            flag=_typed(_tensor("flag", "BOOL", [2]), bool_contents=[True, False]),
            u8=_typed(_tensor("u8", "UINT8", [2]), uint_contents=[7, 255]),
        ),
    ),
    "flat, wrong shape": ("ModelInfer", _flat(x=_tensor("x", "FP16", [2, 2]))),
    "two classes": ("ModelInfer", _scores(2)),
    "more classes than there are": ("ModelInfer", _scores(9)),
    "no classes": ("ModelInfer", _scores(0)),
    "priority": ("ModelInfer", _mixed(parameters={"priority": pb.InferParameter(uint64_param=1)})),
    "signed priority": ("ModelInfer", _mixed(parameters={"priority": 1})),
    "priority as text": ("ModelInfer", _mixed(parameters={"priority": "1"})),
    "timeout": ("ModelInfer", _mixed(parameters={"timeout": 60_000_000})),
    "negative timeout": ("ModelInfer", _mixed(parameters={"timeout": -1})),
    "timeout as text": ("ModelInfer", _mixed(parameters={"timeout": "1"})),
    "sequence number": ("ModelInfer", _mixed(parameters={"sequence_id": 42, "sequence_start": True})),
    "sequence name": ("ModelInfer", _mixed(parameters={"sequence_id": "car", "sequence_end": True})),
    "sequence as a switch": ("ModelInfer", _mixed(parameters={"sequence_id": True})),
    "parameter of one's own": ("ModelInfer", _mixed(parameters={"weather": "rain"})),
    "reserved parameter": ("ModelInfer", _mixed(parameters={"triton_weather": "rain"})),
    "empty final response, unary": ("ModelInfer", _mixed(parameters={"triton_enable_empty_final_response": True})),
    "statistics, unknown": ("ModelStatistics", pb.ModelStatisticsRequest(name="nothing")),
    "statistics, unknown version": ("ModelStatistics", pb.ModelStatisticsRequest(name="mixed", version="9")),
    "statistics": ("ModelStatistics", pb.ModelStatisticsRequest(name="mixed")),
    "index": ("RepositoryIndex", pb.RepositoryIndexRequest()),
    "index, ready": ("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)),
    "index, other repository": ("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="other")),
    "load, unknown": ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nothing")),
    "unload, unknown": ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nothing")),
    "unload": ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="scores")),
    "unloaded": ("ModelReady", pb.ModelReadyRequest(name="scores")),
    "infer, unloaded": ("ModelInfer", _scores(2)),
    "index, unloaded": ("RepositoryIndex", pb.RepositoryIndexRequest()),
    "load": ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="scores")),
    "loaded": ("ModelReady", pb.ModelReadyRequest(name="scores")),
    "infer, unknown region": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], **_region(24)), raw=(B.tobytes(),)),
    ),
    "infer, output to an unknown region": ("ModelInfer", _mixed(outputs=(_output("sum", **_region(24)),))),
    "region that does not exist": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="region", key="/monocoque_nothing", byte_size=REGION_BYTES),
    ),
    "region longer than its file": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="region", key=REGION_KEY, byte_size=REGION_BYTES + 1),
    ),
    "region that begins past its end": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="region", key=REGION_KEY, offset=REGION_BYTES, byte_size=1),
    ),
    "no regions": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    "status of an unknown region": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="region")),
    "register": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="region", key=REGION_KEY, byte_size=REGION_BYTES),
    ),
    "register again": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="region", key=REGION_KEY, byte_size=REGION_BYTES),
    ),
    "register, empty": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="empty", key=REGION_KEY, byte_size=0),
    ),
    "status of a region": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="region")),
    "regions": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    "input in shared memory": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], **_region(24)), raw=(B.tobytes(),)),
    ),
    "input in shared memory, with an offset": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], **_region(24, 8)), raw=(B.tobytes(),)),
    ),
    "output in shared memory": (
        "ModelInfer",
        _mixed(outputs=(_output("sum", **_region(24, 64)), _output("twice"))),
    ),
    "output in more shared memory than it needs": (
        "ModelInfer",
        _mixed(outputs=(_output("sum", **_region(100, 64)), _output("twice"))),
    ),
    "output larger than its shared memory": ("ModelInfer", _mixed(outputs=(_output("sum", **_region(20, 64)),))),
    "input past the region's end": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], **_region(24, REGION_BYTES - 8)), raw=(B.tobytes(),)),
    ),
    "output past the region's end": (
        "ModelInfer",
        _mixed(outputs=(_output("sum", **_region(24, REGION_BYTES - 8)),)),
    ),
    "input of another size in shared memory": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], **_region(20)), raw=(B.tobytes(),)),
    ),
    "input in shared memory of unknown size": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], shared_memory_region="region"), raw=(B.tobytes(),)),
    ),
    "raw contents for an input in shared memory": (
        "ModelInfer",
        _mixed(_tensor("a", "FP32", [2, 3], **_region(24)), raw=(A.tobytes(), B.tobytes())),
    ),
    "typed contents for an input in shared memory": (
        "ModelInfer",
        _mixed(_typed(_tensor("a", "FP32", [2, 3], **_region(24)), fp32_contents=A_VALUES), INTEGERS, ()),
    ),
    "unregister": ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="region")),
    "unregister again": ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="region")),
    "unregister all": ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest()),
    "gpu regions": ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
    "status of an unknown gpu region": ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(name="gpu")),
    "register gpu memory": (
        "CudaSharedMemoryRegister",
        pb.CudaSharedMemoryRegisterRequest(name="gpu", raw_handle=bytes(64), byte_size=4),
    ),
    "unregister gpu memory": ("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest(name="gpu")),
    "trace": ("TraceSetting", pb.TraceSettingRequest()),
    "trace of a model": ("TraceSetting", pb.TraceSettingRequest(model_name="mixed")),
    "trace, unknown model": ("TraceSetting", pb.TraceSettingRequest(model_name="nothing")),
    "trace, unknown setting": (
        "TraceSetting",
        pb.TraceSettingRequest(settings={"colour": pb.TraceSettingRequest.SettingValue(value=["red"])}),
    ),
    "trace, off": (
        "TraceSetting",
        pb.TraceSettingRequest(settings={"trace_level": pb.TraceSettingRequest.SettingValue(value=["OFF"])}),
    ),
    "log": ("LogSettings", pb.LogSettingsRequest()),
    "log, unknown setting": (
        "LogSettings",
        pb.LogSettingsRequest(settings={"colour": pb.LogSettingsRequest.SettingValue(string_param="red")}),
    ),
    "log, no information": (
        "LogSettings",
        pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=False)}),
    ),
    "log, information": (
        "LogSettings",
        pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=True)}),
    ),
    "log, wrong type": (
        "LogSettings",
        pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue(string_param="red")}),
    ),
}

STREAMS: dict[str, tuple[Infer, ...]] = {
    "stream": (_mixed(id="one"), _mixed(id="two", outputs=(_output("sum"),))),
    "stream that goes on after errors": (
        _mixed(model_name="nothing", id="one"),
        _mixed(raw=(A.tobytes(),), id="two"),
        _mixed(_tensor("a", "FP32", [2, 4]), raw=(bytes(32), B.tobytes()), id="three"),
        _mixed(_tensor("a", "FP32", [2, 4]), raw=(bytes(32), B.tobytes()), id=""),
        _mixed(id="four"),
    ),
    "stream with final responses": (_mixed(parameters={"triton_enable_empty_final_response": True}),),
    "empty stream": (),
}

EXCHANGES = (
    *(Exchange(name, method, (request,)) for name, (method, request) in UNARY.items()),
    *(Exchange(name, "ModelStreamInfer", requests) for name, requests in STREAMS.items()),
)


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """The file that some requests refer to: 64 numbers from 0 upwards."""
    path = Path("/dev/shm") / REGION_KEY[1:]
    path.write_bytes(struct.pack("<64f", *range(64)))
    try:
        yield path
    finally:
        path.unlink()


def play(channel: grpc.Channel, exchange: Exchange) -> dict[str, Any]:
    """Make a call; returns its answers as JSON, or the code and words it ended with."""
    method = SERVICE.methods_by_name[exchange.method]
    path = f"/{SERVICE.full_name}/{exchange.method}"
    response = getattr(pb, method.output_type.name)
    try:
        if exchange.method == "ModelStreamInfer":
            answers = list(
                channel.stream_stream(path, lambda message: message.SerializeToString(), response.FromString)(
                    iter(exchange.requests), timeout=PATIENCE_SECONDS
                )
            )
        else:
            call = channel.unary_unary(path, lambda message: message.SerializeToString(), response.FromString)
            answers = [call(exchange.requests[0], timeout=PATIENCE_SECONDS)]
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return {"code": error.code().name, "details": error.details()}
    return {"answers": [json_format.MessageToDict(answer, preserving_proto_field_name=True) for answer in answers]}
