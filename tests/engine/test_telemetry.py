import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["engine.onnx_runtime", "build_engine.fuse.verify", "server.__main__"])
def test_usage_reports_are_off_before_onnx_runtime_is_loaded(module: str) -> None:
    script = f"""
import builtins, os, sys
real = builtins.__import__
def spy(name, *rest):
    if name.partition(".")[0] == "onnxruntime" and "onnxruntime" not in sys.modules:
        print(os.environ.get("ORT_DISABLE_TELEMETRY"))
    return real(name, *rest)
builtins.__import__ = spy
import {module}
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"1"}
    assert module == "server.__main__" or done.stdout
