"""The calls about shared memory."""

from __future__ import annotations

from protos.inference import service_pb2 as pb
from server.errors import NotSupported, RegionNotFound
from server.open_inference.caller import Caller
from server.open_inference.regions import Regions


def status(
    regions: Regions, request: pb.SystemSharedMemoryStatusRequest, caller: Caller
) -> pb.SystemSharedMemoryStatusResponse:
    """Answer `SystemSharedMemoryStatus` with the caller's own regions.

    Raises:
        StreamEnded: There is none of that name, or the caller can have none.
    """
    user = caller.user()
    found = [regions.find(user, request.name)] if request.name else regions.of(user)
    answer = pb.SystemSharedMemoryStatusResponse()
    for region in found:
        told = answer.regions[region.name]
        told.name, told.key, told.offset, told.byte_size = region.name, region.key, region.offset, region.byte_size
    return answer


def register(
    regions: Regions, request: pb.SystemSharedMemoryRegisterRequest, caller: Caller
) -> pb.SystemSharedMemoryRegisterResponse:
    """Answer `SystemSharedMemoryRegister`.

    Raises:
        StreamEnded: It cannot be registered.
    """
    regions.register(caller.user(), request.name, request.key, request.offset, request.byte_size)
    return pb.SystemSharedMemoryRegisterResponse()


def unregister(
    regions: Regions, request: pb.SystemSharedMemoryUnregisterRequest, caller: Caller
) -> pb.SystemSharedMemoryUnregisterResponse:
    """Answer `SystemSharedMemoryUnregister`.

    Raises:
        NotSupported: The caller can have no regions.
    """
    regions.unregister(caller.user(), request.name)
    return pb.SystemSharedMemoryUnregisterResponse()


def gpu_status(request: pb.CudaSharedMemoryStatusRequest) -> pb.CudaSharedMemoryStatusResponse:
    """Answer `CudaSharedMemoryStatus`: there are never any regions.

    Raises:
        RegionNotFound: It asks for one.
    """
    if request.name:
        raise RegionNotFound(
            f"no GPU memory region '{request.name[:80]}' is registered", remedy="use system shared memory"
        )
    return pb.CudaSharedMemoryStatusResponse()


def gpu_register(request: pb.CudaSharedMemoryRegisterRequest) -> pb.CudaSharedMemoryRegisterResponse:
    """Answer `CudaSharedMemoryRegister`.

    Raises:
        NotSupported: Always.
    """
    raise NotSupported(
        f"GPU memory '{request.name[:80]}' cannot be registered: this server takes none of its clients'",
        remedy="use system shared memory",
    )
