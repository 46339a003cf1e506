"""Which plan is opened: the bundle's, the cache's, or one compiled here."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from engine.bundle import Bundle, sha256
from engine.errors import PlanRejected, RuntimeUnavailable
from engine.manifest import FreeDimension, PlanEntry
from engine.tensorrt.api import load_tensorrt
from engine.tensorrt.key import DeviceFacts
from engine.tensorrt.opening import choose_plan, find_plan
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan
from engine.tensorrt.plan_cache import PlanCache
from engine.tensors import TensorSpec
from tests.engine.bundles import write_bundle
from tests.engine.graphs import camera_network
from tests.engine.tensorrt.test_profile import in_order, pyramid

rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'monocoque[rtx]'")
DEVICE = DeviceFacts("RTX 4090", "8.9", 128, 24_000_000_000, False)


def never(*_: Any) -> CompiledPlan:
    raise AssertionError("nothing was to be compiled")


def entry(**changes: str) -> PlanEntry:
    tensorrt = load_tensorrt("rtx")
    key = {
        **DEVICE.environment(tensorrt.backend, tensorrt.version),
        "max_batch": "4",
        "graph_sha256": sha256(camera_network()),
    }
    return PlanEntry(path="plans/rtx.plan", graph="float", target="rtx", key=key | changes)


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": "float32", "shape": shape})


def bundle_with(path: Path, *plans: PlanEntry) -> Bundle:
    return write_bundle(path / "bundle", plans={plan.path: (plan, b"plan of the bundle") for plan in plans})


def test_a_plan_of_the_bundle_that_fits_is_opened(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, entry())
    plan = find_plan(bundle, "rtx", load_tensorrt("rtx"), DEVICE, PlanCache(tmp_path / "cache"), True, never)
    assert plan == b"plan of the bundle"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("runtime_version", "1.6.0"),
        ("compute_capability", "8.6,12.0"),
        ("device_name", "RTX 3090"),
        ("sm_count", "82"),
        ("graph_sha256", "0" * 64),
        ("max_batch", "1"),
    ],
)
def test_a_plan_that_does_not_fit_is_not_opened_and_both_values_are_named(
    tmp_path: Path, fact: str, value: str
) -> None:
    bundle = bundle_with(tmp_path, entry(**{fact: value}))
    with pytest.raises(PlanRejected) as caught:
        find_plan(bundle, "rtx", load_tensorrt("rtx"), DEVICE, PlanCache(tmp_path / "cache"), False, never)
    wanted = entry().key[fact]
    assert f"plans/rtx.plan ({fact}: the plan has {value}, needed is {wanted})" in caught.value.message
    assert "build_engine build MODEL -o BUNDLE --target rtx" in caught.value.remedy


def test_a_plan_for_other_sizes_is_not_opened_and_both_are_named(tmp_path: Path) -> None:
    specs = (spec("x", "batch", "length"),)
    sizes = FreeDimension(smallest=2, usual=5, largest=9)
    for recorded, fits in (("length=2:5:9", True), ("length=1:5:9", False)):
        plan = entry(dimensions=recorded)
        bundle = write_bundle(
            tmp_path / recorded.replace(":", "-"),
            plans={plan.path: (plan, b"plan of the bundle")},
            inputs=specs,
            outputs=(specs[0].model_copy(update={"name": "y"}),),
            dimensions={"length": sizes},
            preprocessing=None,
        )
        found = (bundle, "rtx", load_tensorrt("rtx"), DEVICE, PlanCache(tmp_path / "cache"), False, never)
        if fits:
            assert find_plan(*found) == b"plan of the bundle"
        else:
            with pytest.raises(PlanRejected, match="dimensions: the plan has length=1:5:9, needed is length=2:5:9"):
                find_plan(*found)


def test_without_a_plan_a_graph_is_compiled_for_the_sizes_that_the_manifest_says(tmp_path: Path) -> None:
    half, mean = (spec("half", "batch", 8, "half_2", "half_3"), spec("mean", "batch", 8, 1, 1))
    sizes = {"height": (17, 35, 71), "width": (19, 53, 97), "half_2": (0, 18, 36), "half_3": (0, 27, 49)}
    bundle = write_bundle(
        tmp_path / "bundle",
        graph=pyramid(),
        cases=(),
        inputs=(spec("image", "batch", 3, "height", "width"),),
        outputs=(half, mean),
        dimensions={
            name: FreeDimension(smallest=smallest, usual=usual, largest=largest)
            for name, (smallest, usual, largest) in sizes.items()
        },
        preprocessing=None,
    )
    tensorrt, cache = load_tensorrt("rtx"), PlanCache(tmp_path / "cache")
    plan = find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True)
    assert in_order(plan, (1, 3, 17, 19), (4, 3, 35, 53), (4, 3, 71, 97))
    assert find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True, never) == plan


def test_without_a_plan_the_graph_is_compiled_once(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    tensorrt, cache = load_tensorrt("rtx"), PlanCache(tmp_path / "cache")
    first = find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True)
    assert len(first) > 1000
    assert find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True, never) == first


def test_another_bundle_gets_a_plan_of_its_own(tmp_path: Path) -> None:
    tensorrt, cache = load_tensorrt("rtx"), PlanCache(tmp_path / "cache")
    compiled = build_plan(camera_network(), "rtx", PlanOptions(max_batch=4))
    for version in ("1.0", "2.0"):
        bundle = write_bundle(tmp_path / version, version=version)
        find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True, lambda *_: compiled)
    assert len(list(cache.directory.glob("*.plan"))) == 2


def test_a_cache_that_cannot_be_written_costs_a_compile_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(PlanCache, "store", refuse)
    bundle = write_bundle(tmp_path / "bundle")
    assert find_plan(bundle, "rtx", load_tensorrt("rtx"), DEVICE, PlanCache(tmp_path / "cache"), True)
    assert "the next start compiles again: [Errno 30] Read-only file system" in caplog.text
    monkeypatch.setattr(PlanCache, "load", refuse)
    assert find_plan(bundle, "rtx", load_tensorrt("rtx"), DEVICE, PlanCache(tmp_path / "cache"), True)
    assert "cannot be read" in caplog.text


def test_a_plan_that_was_tampered_with_is_not_compiled_over(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    tensorrt, cache = load_tensorrt("rtx"), PlanCache(tmp_path / "cache")
    find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True)
    (plan,) = cache.directory.glob("*.plan")
    plan.write_bytes(b"evil")
    with pytest.raises(PlanRejected, match="has SHA-256"):
        find_plan(bundle, "rtx", tensorrt, DEVICE, cache, True, never)


def test_a_plan_of_the_bundle_that_changed_after_opening_is_not_opened(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, entry())
    (bundle.path / "plans" / "rtx.plan").write_bytes(b"evil")
    with pytest.raises(Exception, match=r"plans/rtx\.plan has SHA-256"):
        find_plan(bundle, "rtx", load_tensorrt("rtx"), DEVICE, PlanCache(tmp_path / "cache"), True, never)


def test_plans_of_other_targets_and_graphs_are_passed_over(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, entry())
    assert choose_plan(bundle.manifest, "gpu", "float", {}).reasons == ()
    assert choose_plan(bundle.manifest, "rtx", "trt-int8", {}).entry is None
    assert choose_plan(bundle.manifest, "rtx", "float", {}).entry == entry()


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_library_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(RuntimeUnavailable, match="the Python module 'tensorrt'") as caught:
        load_tensorrt("jetson-orin")
    assert "apt install python3-libnvinfer" in caught.value.remedy


@pytest.mark.parametrize(
    ("version", "old"), [("8.6.1", True), ("10.2.0", True), ("10.3.0", False), ("11.4.0.1", False)]
)
def test_a_library_that_is_too_old(monkeypatch: pytest.MonkeyPatch, version: str, old: bool) -> None:
    class Library:
        __version__ = version

    monkeypatch.setattr("importlib.import_module", lambda name: Library)
    if old:
        with pytest.raises(RuntimeUnavailable, match=rf"tensorrt {version} is too old, this needs 10\.3"):
            load_tensorrt("gpu")
    else:
        assert load_tensorrt("gpu").title == f"TensorRT {version}"


def test_members_are_found_by_name_or_are_not_there() -> None:
    tensorrt = load_tensorrt("rtx")
    assert tensorrt.member("BuilderFlag", "TF32") == rtx.BuilderFlag.TF32
    assert tensorrt.member("BuilderFlag", "FP16") is None
    assert tensorrt.member("Absent", "FP16") is None
    assert tensorrt.network_flags() == 1
