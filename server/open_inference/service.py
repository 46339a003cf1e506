"""The gRPC edge of the Open Inference Protocol, beside our own service on the same port."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from protos.inference import service_pb2 as pb
from server.core import Core
from server.engines.lane import EngineState
from server.errors import EngineNotFound, ending
from server.open_inference import memory_calls, models, repository, settings_calls, statistics
from server.open_inference.caller import Caller
from server.open_inference.inference import Inference
from server.open_inference.metrics import show
from server.open_inference.regions import Regions
from server.open_inference.stream import RequestStream

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)
"""Of Triton's, those that do something here. Not: `sequence` (engines keep no state), `cuda_shared_memory`, `trace`."""

Context = Any
Call = Callable[[Any, Caller], Any]
"""Answers a request of a caller; may be a coroutine."""


class OpenInferenceService:
    """The handlers of `GRPCInferenceService`.

    Args:
        core: What they serve.
        version: Version of the server.
        instances: Copies of each engine.
    """

    def __init__(self, core: Core, version: str, instances: int) -> None:
        self._core = core
        self._version = version
        self._instances = instances
        self._regions = Regions()
        self._inference = Inference(core, self._regions)
        self._streams: set[RequestStream] = set()
        self._calls = 0
        self.port = 0
        """The port that callers are connected to; known once the server listens."""

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handlers. Those of inference take and give bytes: tensors are never parsed."""
        calls: dict[str, tuple[type[Message], Call]] = {
            "ServerLive": (pb.ServerLiveRequest, lambda _, __: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._on_catalogue(repository.index)),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._on_catalogue(repository.load)),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._on_catalogue(repository.unload)),
            "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, self._on_regions(memory_calls.status)),
            "SystemSharedMemoryRegister": (
                pb.SystemSharedMemoryRegisterRequest,
                self._on_regions(memory_calls.register),
            ),
            "SystemSharedMemoryUnregister": (
                pb.SystemSharedMemoryUnregisterRequest,
                self._unregister,
            ),
            "CudaSharedMemoryStatus": (
                pb.CudaSharedMemoryStatusRequest,
                lambda request, _: memory_calls.gpu_status(request),
            ),
            "CudaSharedMemoryRegister": (
                pb.CudaSharedMemoryRegisterRequest,
                lambda request, _: memory_calls.gpu_register(request),
            ),
            "CudaSharedMemoryUnregister": (
                pb.CudaSharedMemoryUnregisterRequest,
                lambda _, __: pb.CudaSharedMemoryUnregisterResponse(),
            ),
            "TraceSetting": (pb.TraceSettingRequest, self._trace),
            "LogSettings": (pb.LogSettingsRequest, lambda request, _: settings_calls.log_settings(request)),
        }
        handlers = {name: self._unary(request, call) for name, (request, call) in calls.items()}
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._model_infer)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._model_stream_infer)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def drain(self) -> None:
        """End every stream once what it sent is answered; `Core.draining` keeps new requests out."""
        for stream in self._streams:
            stream.drain()

    @property
    def idle(self) -> bool:
        """Whether no request waits for its answer."""
        return not self._calls

    def refresh_metrics(self) -> None:
        """Bring up to date what Prometheus reads only now and then."""
        lanes = self._core.catalogue.lanes
        show(self._core.metrics, {(lane.name, lane.version): lane.statistics for lane in lanes})

    def _unary(self, request: type[Message], call: Call) -> grpc.RpcMethodHandler[Any, Any]:
        async def answer(message: bytes, context: Context) -> bytes:
            async def respond() -> bytes:
                response = call(request.FromString(message), self._caller(context))
                if inspect.isawaitable(response):
                    response = await response
                serialized: bytes = response.SerializeToString()
                return serialized

            return await _answered(respond(), context)

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _model_infer(self, message: bytes, context: Context) -> bytes:
        self._calls += 1
        try:
            return await _answered(self._inference.infer(message, self._caller(context)), context)
        finally:
            self._calls -= 1

    async def _model_stream_infer(self, _: object, context: Context) -> None:
        stream = RequestStream(self._inference, context, self._caller(context))
        self._streams.add(stream)
        self._calls += 1
        try:
            await stream.serve()
        finally:
            self._calls -= 1
            self._streams.discard(stream)
        if self._core.draining:
            await _answered(self._refuse_while_draining(), context)

    async def _refuse_while_draining(self) -> bytes:
        self._core.check_not_draining()
        return b""

    def _server_ready(self, _: pb.ServerReadyRequest, __: Caller) -> pb.ServerReadyResponse:
        lanes = self._core.catalogue.lanes
        ready = not self._core.draining and all(lane.state is EngineState.READY for lane in lanes)
        return pb.ServerReadyResponse(ready=ready)

    def _model_ready(self, request: pb.ModelReadyRequest, _: Caller) -> pb.ModelReadyResponse:
        try:
            lane = self._inference.find(request.name, request.version)
        except EngineNotFound:
            return pb.ModelReadyResponse()
        return pb.ModelReadyResponse(ready=lane.state is EngineState.READY and not self._core.draining)

    def _server_metadata(self, _: pb.ServerMetadataRequest, __: Caller) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="monocoque", version=self._version, extensions=EXTENSIONS)

    def _model_metadata(self, request: pb.ModelMetadataRequest, _: Caller) -> pb.ModelMetadataResponse:
        served = self._inference.find(request.name, request.version).served
        versions = [lane.version for lane in self._core.catalogue.lanes if lane.name == request.name]
        return models.metadata(served, versions)

    def _model_config(self, request: pb.ModelConfigRequest, _: Caller) -> pb.ModelConfigResponse:
        served = self._inference.find(request.name, request.version).served
        return pb.ModelConfigResponse(config=models.config(served, self._instances))

    def _model_statistics(self, request: pb.ModelStatisticsRequest, _: Caller) -> pb.ModelStatisticsResponse:
        if request.name:
            self._inference.find(request.name, request.version)
        return pb.ModelStatisticsResponse(
            model_stats=[
                statistics.message(lane.statistics, lane.served)
                for lane in self._core.catalogue.lanes
                if request.name in ("", lane.name)
                and request.version in ("", lane.version)
                and lane.state is EngineState.READY
            ]
        )

    def _trace(self, request: pb.TraceSettingRequest, _: Caller) -> pb.TraceSettingResponse:
        if request.model_name:
            self._inference.find(request.model_name, "")
        return settings_calls.trace(request)

    def _unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, caller: Caller
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        answer = memory_calls.unregister(self._regions, request, caller)
        self._inference.forget_regions()
        return answer

    def _on_catalogue(self, call: Callable[[Any, Any], Any]) -> Call:
        return lambda request, _: call(self._core.catalogue, request)

    def _on_regions(self, call: Callable[[Regions, Any, Caller], Any]) -> Call:
        return lambda request, caller: call(self._regions, request, caller)

    def _caller(self, context: Context) -> Caller:
        return Caller(context.peer, lambda: self.port)


async def _answered(call: Awaitable[bytes], context: Context) -> bytes:
    """The answer, or the call ended with its error.

    gRPC keeps the exception that `abort` raises, and with it whatever was handled at that moment: the call is aborted
    outside of any `except`, or its tensors would stay in memory.
    """
    try:
        return await call
    except Exception as error:
        code, details = ending(error)
    await context.abort(code, details)
    raise AssertionError("abort returns nowhere")
