"""What a server says it can do, and each of its engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from protos.monocoque.v1 import state_pb2

StateName = Literal["starting", "serving", "degraded", "draining", "failed"]
"""`starting`: nothing is computed yet, wait. `serving`: all is as it was asked for. `degraded`: frames are computed,
but something is missing. `draining`: it shuts down. `failed`: nothing is computed until somebody acts."""
EngineStateName = Literal["loading", "ready", "unavailable"]


@dataclass(frozen=True)
class EngineStatus:
    """One engine.

    Attributes:
        name: Bundle name.
        version: Bundle version.
        digest: SHA-256 of the bundle's manifest; empty until it was opened.
        state: `loading`, `ready`, or `unavailable`: it died too often.
        reason: Why it is not ready, or what it lacks although it is; empty where that is nothing.
        since_utc_ns: When it came to this state, in Unix time of the server's clock.
        instances_ready: How many of its instances compute.
        instances: How many it has.
        restarts: How often one was opened again since its process had died, each try counted.
    """

    name: str
    version: str
    digest: str
    state: EngineStateName
    reason: str
    since_utc_ns: int
    instances_ready: int
    instances: int
    restarts: int


@dataclass(frozen=True)
class ServerState:
    """What a server can do.

    Attributes:
        state: One of five.
        reason: Why it is not `serving`; empty where it is.
        since_utc_ns: When it came to this state, in Unix time of the server's clock.
        engines: Its engines, in the order they were loaded.
    """

    state: StateName
    reason: str
    since_utc_ns: int
    engines: tuple[EngineStatus, ...]

    @property
    def computes(self) -> bool:
        """Whether frames are computed: `serving` or `degraded`."""
        return self.state in ("serving", "degraded")


def state_from_proto(message: state_pb2.WatchStateResponse) -> ServerState:
    """The typed form of a state."""
    return ServerState(
        state=cast("StateName", _word(state_pb2.ServerState.Name(message.state))),
        reason=message.reason,
        since_utc_ns=message.since_utc_ns,
        engines=tuple(
            EngineStatus(
                name=engine.name,
                version=engine.version,
                digest=engine.digest,
                state=cast("EngineStateName", _word(state_pb2.EngineState.Name(engine.state))),
                reason=engine.reason,
                since_utc_ns=engine.since_utc_ns,
                instances_ready=engine.instances_ready,
                instances=engine.instances,
                restarts=engine.restarts,
            )
            for engine in message.engines
        ),
    )


def _word(name: str) -> str:
    return name.rpartition("_")[2].lower()
