import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import opening
from engine.bundle import Bundle
from engine.cpu import cpu_features, cpu_name, missing_features
from engine.errors import BuildFailed, BundleInvalid, EngineError, PlanRejected, RuntimeUnavailable
from engine.manifest import GraphEntry, Target
from engine.opening import open_runtime
from engine.slots import RegionTable
from tests.engine.bundles import write_bundle

NO_GPU_LIBRARIES = pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("pycuda", "tensorrt")), reason="the GPU's libraries are installed"
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle")


def test_the_cpu(bundle: Bundle) -> None:
    runtime = open_runtime(bundle, "cpu", RegionTable(), threads=1)
    description = runtime.describe()
    assert (description.backend, description.target, description.graph) == ("onnxruntime", "cpu", "float")
    assert description.inputs == bundle.manifest.inputs
    assert description.device == cpu_name()
    assert description.degraded is None


@NO_GPU_LIBRARIES
@pytest.mark.parametrize("target", ["rtx", "gpu", "jetson-orin", "jetson-thor", "drive-orin", "drive-thor"])
def test_without_a_gpu_a_target_is_not_available(tmp_path: Path, target: Target) -> None:
    bundle = write_bundle(tmp_path / "bundle", targets=("cpu", target))
    with pytest.raises(RuntimeUnavailable, match="does not load") as caught:
        open_runtime(bundle, target, RegionTable())
    assert caught.value.remedy


@NO_GPU_LIBRARIES
def test_a_fallback_is_degraded_and_says_why(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    runtime = open_runtime(bundle, "rtx", RegionTable(), fallback=True)
    assert runtime.describe().target == "cpu"
    assert runtime.describe().degraded.startswith("rtx is not available: ")
    assert "falling back to the CPU" in caplog.text


@pytest.mark.parametrize("kind", [PlanRejected, BuildFailed])
def test_a_plan_that_cannot_be_had_falls_back_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, kind: type[EngineError]
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise kind("it was tampered with", remedy="compile it again")

    monkeypatch.setattr("engine.tensorrt.opening.open_tensorrt", refuse)
    with pytest.raises(kind):
        open_runtime(bundle, "rtx", RegionTable())
    runtime = open_runtime(bundle, "rtx", RegionTable(), fallback=True)
    assert runtime.describe().degraded == "rtx is not available: it was tampered with"


def test_a_target_that_the_bundle_was_not_built_for_does_not_fall_back(bundle: Bundle) -> None:
    with pytest.raises(BundleInvalid, match="no graph for target 'gpu'"):
        open_runtime(bundle, "gpu", RegionTable(), fallback=True)


def test_a_fallback_runs_the_float_graph_and_never_tensorrts(tmp_path: Path) -> None:
    entry = GraphEntry(path="graphs/float.onnx", precision="fp32", targets=())
    served = GraphEntry(path="graphs/float.onnx", precision="int8", targets=("rtx",))
    with_float = write_bundle(tmp_path / "with", graphs={"trt-int8": served, "float": entry})
    assert open_runtime(with_float, "rtx", RegionTable(), fallback=True).describe().graph == "float"
    without = write_bundle(tmp_path / "without", graphs={"trt-int8": served})
    with pytest.raises(BundleInvalid, match="no graph for target 'cpu'"):
        open_runtime(without, "rtx", RegionTable(), fallback=True)


def test_a_cpu_that_computes_other_numbers_is_degraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = GraphEntry(
        path="graphs/float.onnx", precision="int8", targets=("cpu",), cpu_features=("avx_vnni|avx512_vnni", "avx2")
    )
    bundle = write_bundle(tmp_path / "bundle", graphs={"cpu-int8": graph})
    monkeypatch.setattr(opening, "cpu_features", lambda: frozenset({"avx512_vnni", "avx2"}))
    assert open_runtime(bundle, "cpu", RegionTable()).describe().degraded is None
    monkeypatch.setattr(opening, "cpu_features", lambda: frozenset({"avx2"}))
    degraded = open_runtime(bundle, "cpu", RegionTable()).describe().degraded
    assert degraded == "this CPU lacks avx_vnni|avx512_vnni, without which cpu-int8 computes other numbers"


def test_features_have_alternatives() -> None:
    assert missing_features(("a|b", "c"), frozenset({"b", "c"})) == []
    assert missing_features(("a|b", "c"), frozenset({"d"})) == ["a|b", "c"]
    assert cpu_features()


def test_a_cpu_engine_loads_nothing_of_a_gpu() -> None:
    script = (
        "import engine, engine.errors, sys; assert 'onnxruntime' not in sys.modules and 'cv2' not in sys.modules;"
        "import engine.opening, engine.process, engine.worker, engine.reference;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "tensorrt", "tensorrt_rtx", "pycuda", "cuda"} & set(done.stdout.split())
