"""Every name of TensorRT's that the backend uses is there in each version it claims to run on.

NVIDIA's bindings are wheels of 1 MB that load beside three shared objects of our own making, so no GPU, no driver and
no TensorRT is needed to look.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BACKEND = Path(__file__).resolve().parents[3] / "engine" / "tensorrt"
VERSIONS = {
    "10.3": ("tensorrt-cu12-bindings", "10.3.0"),  # JetPack 6.1, DRIVE Orin
    "10.16": ("tensorrt-cu12-bindings", "10.16.1.11"),
    "11.4": ("tensorrt-cu13-bindings", "11.4.0.106"),  # JetPack 7.2
}
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "fault": "ParserError",
    "tensor": "ITensor",
    "profile": "IOptimizationProfile",
    "timing_cache": "ITimingCache",
    "engine": "ICudaEngine",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "self._runtime": "Runtime",
    "tensorrt.module": "",
    "self._tensorrt.module": "",
    "tensorrt.module.ProfilingVerbosity": "ProfilingVerbosity",
    "tensorrt.module.MemoryPoolType": "MemoryPoolType",
    "tensorrt.module.BuilderFlag": "BuilderFlag",
}
"""What a variable of the backend's sources holds; an empty class is the module itself."""
CALLBACKS = {
    "ILogger.log",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "IProgressMonitor.phase_finish",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    *(f"DataType.{name}" for name in ("FLOAT", "HALF", "INT8", "INT32", "INT64", "UINT8", "BOOL")),
}
ONLY_RTX = {"IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"}
NOT_IN_OLDEST = {"ICudaEngine.get_engine_stat"}  # asked for only where EngineStat exists
STUBS = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
SYMBOLS = ("getNvOnnxParserVersion", "getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins")
"""What the bindings want resolved when they load, rather than when it is called."""
PROBE = """
import json, os, sys
sys.setdlopenflags(os.RTLD_LAZY)
import tensorrt_bindings
def there(name):
    value = tensorrt_bindings
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True
print(json.dumps([name for name in json.load(sys.stdin) if not there(name)]))
"""


def used_names() -> set[str]:
    names = set(CALLBACKS)
    for path in set(BACKEND.glob("*.py")) - {BACKEND / "cuda.py"}:  # that one is PyCUDA's
        for found in ast.walk(ast.parse(path.read_text())):
            if isinstance(found, ast.Attribute) and ast.unparse(found.value) in CLASSES:
                owner = CLASSES[ast.unparse(found.value)]
                names.add(f"{owner}.{found.attr}" if owner else found.attr)
    return names


def test_the_names_are_found_in_the_sources() -> None:
    names = used_names()
    assert {
        "Builder",
        "Builder.build_serialized_network",
        "IBuilderConfig.set_timing_cache",
        "ParserError.node_operator",
        "Runtime.deserialize_cuda_engine",
        "IExecutionContext.execute_async_v3",
        "ICudaEngine.device_memory_size_v2",
        "BuilderFlag.TF32",
    } <= names
    assert not [name for name in names if "calib" in name.lower() or name.endswith(("FP16", "INT8.value"))]


def test_rtx_has_them_all() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'monocoque[rtx]'")
    missing = []
    for name in used_names():
        value = rtx
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None:
            missing.append(name)
    assert missing == []


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared objects in the names of TensorRT's libraries."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("stubs")
    source = folder / "stub.c"
    source.write_text("".join(f"int {symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in STUBS:
        for major in (10, 11):
            name = f"{library}.so.{major}"
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
            subprocess.run(command, check=True, capture_output=True)
    return folder


def bindings(project: str, version: str, cache: Path) -> Path:
    """The unpacked wheel, downloaded once."""
    folder = cache / f"{project}-{version}-py{sys.version_info.major}{sys.version_info.minor}"
    if not (folder / "tensorrt_bindings").exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        try:
            done = subprocess.run(
                [*pip, "--dest", str(folder), f"{project}=={version}"],
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"{project} {version} cannot be downloaded: no answer in 100 s")
        if done.returncode:
            pytest.skip(f"{project} {version} cannot be downloaded: {(done.stderr.splitlines() or ['?'])[-1]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the bindings are Linux wheels")
@pytest.mark.parametrize("release", sorted(VERSIONS))
def test_a_release_has_every_name(release: str, stubs: Path, request: pytest.FixtureRequest) -> None:
    cache = request.config.cache.mkdir("tensorrt-bindings")
    folder = bindings(*VERSIONS[release], cache)
    names = sorted(used_names() - ONLY_RTX - (NOT_IN_OLDEST if release == "10.3" else set()))
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(names),
        env={**os.environ, "LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
