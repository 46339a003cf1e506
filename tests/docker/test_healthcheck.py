"""The probe that Docker runs, against a real gRPC health service."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

PROBE = Path(__file__).resolve().parents[2] / "docker" / "healthcheck.py"


@pytest.fixture
def service() -> Iterator[tuple[str, health.HealthServicer]]:
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None).wait()


def probe(*arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, str(PROBE), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert not done.stderr
    return done.returncode, done.stdout.strip()


def test_serving_is_healthy(service: tuple[str, health.HealthServicer]) -> None:
    address, servicer = service
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert probe(address) == (0, f"{address}: SERVING")
    assert probe(MONOCOQUE_PORT=address.rpartition(":")[2]) == (0, f"{address}: SERVING")


def test_not_serving_is_not(service: tuple[str, health.HealthServicer]) -> None:
    address, servicer = service
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    servicer.set("liveness", health_pb2.HealthCheckResponse.SERVING)
    assert probe(address) == (1, f"{address}: NOT_SERVING")
    assert probe(address, "liveness") == (0, f"{address}: SERVING")


def test_an_unknown_service_and_an_absent_server_are_named(service: tuple[str, health.HealthServicer]) -> None:
    address, _ = service
    code, text = probe(address, "nonsense")
    assert code == 1
    assert text.startswith(f"{address}: NOT_FOUND")
    code, text = probe("127.0.0.1:1")
    assert code == 1
    assert text.startswith("127.0.0.1:1: UNAVAILABLE")
