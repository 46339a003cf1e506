"""The models that are served, and those that could be."""

from __future__ import annotations

import contextlib

from engine.errors import EngineError
from protos.inference import service_pb2 as pb
from server.engines.catalogue import EngineCatalogue
from server.engines.lane import EngineState
from server.errors import EngineNotFound, LoadFailed, NotSupported, StartFailed


def index(catalogue: EngineCatalogue, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
    """Answer `RepositoryIndex`.

    Raises:
        NotSupported: It asks for one of several repositories.
    """
    _check_repository(request.repository_name)
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason
            )
            for entry in catalogue.index()
            if not request.ready or entry.state is EngineState.READY
        ]
    )


async def load(catalogue: EngineCatalogue, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
    """Answer `RepositoryModelLoad`.

    Raises:
        NotSupported: It brings a configuration or files: a bundle says all of that itself, and never changes.
        EngineNotFound: There is no such bundle.
        LoadFailed: The bundle cannot be used.
    """
    _check_repository(request.repository_name)
    if request.parameters:
        raise NotSupported(
            f"parameters {', '.join(sorted(request.parameters))[:160]}: a bundle cannot be changed by who loads it",
            remedy="build another bundle, and load that",
        )
    try:
        await catalogue.load(request.model_name)
    except (EngineError, StartFailed) as error:
        raise LoadFailed(f"'{request.model_name}' cannot be loaded: {error.message}", remedy=error.remedy) from None
    return pb.RepositoryModelLoadResponse()


async def unload(
    catalogue: EngineCatalogue, request: pb.RepositoryModelUnloadRequest
) -> pb.RepositoryModelUnloadResponse:
    """Answer `RepositoryModelUnload`; a model that is not loaded counts as unloaded."""
    _check_repository(request.repository_name)
    with contextlib.suppress(EngineNotFound):
        await catalogue.unload(request.model_name)
    return pb.RepositoryModelUnloadResponse()


def _check_repository(name: str) -> None:
    if name:
        raise NotSupported(f"repository_name is '{name[:80]}', there is one only", remedy="leave it empty")
