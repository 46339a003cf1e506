"""Asks the server's gRPC health service whether it serves: exit code 0 if so, else 1 with the reason.

    python docker/healthcheck.py [HOST:PORT] [SERVICE]

SERVICE "" is whether frames are answered, `liveness` whether a restart is needed. It imports nothing of ours, so that
it costs 0.1 s every ten.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 4.0


def check(address: str, service: str = "") -> str:
    """The status of one service, for example `SERVING`.

    Raises:
        grpc.RpcError: The server cannot be reached or does not know the service.
    """
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_SECONDS)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def main(arguments: list[str]) -> int:
    """Exit code for Docker."""
    address = arguments[0] if arguments else f"127.0.0.1:{os.environ.get('MONOCOQUE_PORT', '8001')}"
    service = arguments[1] if len(arguments) > 1 else ""
    try:
        status = check(address, service)
    except grpc.RpcError as error:
        status = f"{error.code().name}: {error.details()}"
    sys.stdout.write(f"{address}: {status}\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
