"""Asks the server's gRPC health service whether it serves: exit code 0 if so, else 1 with the reason.

    python docker/healthcheck.py [HOST:PORT] [SERVICE]

SERVICE "" is whether frames are answered, `liveness` whether a restart is needed. The two messages are so small
that they are written here by hand (grpc.health.v1, field 1 of each): protobuf would double the time this takes, and
Docker runs it every ten seconds.
"""

from __future__ import annotations

import os
import sys

import grpc

STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
TIMEOUT_SECONDS = 4.0


def check(address: str, service: str = "") -> str:
    """The status of one service, for example `SERVING`.

    Raises:
        grpc.RpcError: The server cannot be reached or does not know the service.
    """
    name = service.encode()
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes
        )
        answer = call(request, timeout=TIMEOUT_SECONDS)
    return STATUS.get(answer[1] if answer else 0, "UNKNOWN")


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
