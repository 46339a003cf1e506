from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build_engine.errors import BuildError
from build_engine.graph import serialize
from build_engine.options import BuildOptions
from build_engine.pipeline import build
from build_engine.verify import check_bundle
from engine.bundle import Bundle
from engine.errors import BundleInvalid
from tests.build_engine.conftest import CAMERA


@pytest.fixture(scope="module")
def options(
    detector: onnx.ModelProto, frames_folder: Path, postprocessing_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> BuildOptions:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "detector.onnx").write_bytes(serialize(detector))
    return BuildOptions(
        model=str(folder / "detector.onnx"),
        output=folder / "bundle",
        precision="int8",
        calibration_data=frames_folder,
        calibration_method="entropy",
        targets=("cpu", "rtx", "jetson-orin"),
        camera=CAMERA,
        postprocess=postprocessing_file,
        max_batch=2,
        latency_seconds=0.05,
    )


@pytest.fixture(scope="module")
def bundle(options: BuildOptions) -> Bundle:
    build(options)
    return Bundle.open(options.output)


@pytest.fixture(scope="module")
def report(bundle: Bundle) -> dict[str, Any]:
    return dict(json.loads(bundle.read("report.json")))


def test_the_manifest_says_which_graph_serves_which_target(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.graph_for("cpu") == "cpu-int8"
    assert manifest.graph_for("rtx") == manifest.graph_for("jetson-orin") == "trt-int8"
    assert list(manifest.graphs)[-1] == "float"
    assert manifest.graphs["float"].targets == ("cpu", "rtx", "jetson-orin")
    assert manifest.graphs["cpu-int8"].cpu_features
    assert manifest.preprocessing is not None and manifest.preprocessing.color == "rgb"


def test_rtx_is_compiled_and_other_devices_are_left_to_themselves(bundle: Bundle) -> None:
    (plan,) = bundle.manifest.plans
    assert (plan.target, plan.graph) == ("rtx", "trt-int8")
    assert plan.key["graph_sha256"] == bundle.manifest.files["graphs/trt-int8.onnx"].sha256
    assert len(bundle.read(plan.path)) > 10_000


def test_the_manifest_names_no_folder_of_this_machine(bundle: Bundle, options: BuildOptions) -> None:
    text = bundle.manifest.to_bytes().decode()
    assert str(Path(options.model).parent) not in text
    assert bundle.manifest.provenance.source == "detector.onnx"


def test_reference_cases_pass_on_every_runtime_there_is(bundle: Bundle) -> None:
    outcomes = {outcome.target: outcome for outcome in check_bundle(bundle)}
    assert outcomes["cpu"].passed, outcomes["cpu"].message
    assert len(bundle.manifest.reference) == 3


def test_the_same_inputs_make_the_same_bundle(options: BuildOptions, bundle: Bundle, tmp_path: Path) -> None:
    """Graphs, plan and manifest, in another process with other hashes, somewhere else, as an archive."""
    given = f"{options.model} -o again.zip --precision int8 --calibration-data {options.calibration_data}"
    given += f" --calibration-method entropy --postprocess {options.postprocess} --max-batch 2 --latency-seconds 0"
    given += " --mean 116,118,122 --std 58,58,60 --color rgb --target cpu --target rtx --target jetson-orin"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "build_engine", "build", *given.split()]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env=environment)
    again = Bundle.open(tmp_path / "again.zip")
    assert again.manifest.files == bundle.manifest.files
    assert again.digest == bundle.digest


def test_the_report_has_what_fusion_saved_in_tensorrts_own_numbers(report: dict[str, Any]) -> None:
    compiled = {plan["graph"]: plan for plan in report["compiled"]}
    assert set(compiled) == {"trt-int8", "float", "unfused"}
    assert compiled["float"]["activation_bytes"] < compiled["unfused"]["activation_bytes"]
    assert compiled["float"]["kernels"] < compiled["unfused"]["kernels"]


def test_the_report_has_latency_of_every_graph_at_every_batch(report: dict[str, Any]) -> None:
    measured = {(row["graph"], row["batch"]) for row in report["latency"]}
    assert measured == {(graph, batch) for graph in ("unfused", "float", "cpu-int8") for batch in (1, 2)}


def test_the_report_has_accuracy_per_precision(report: dict[str, Any]) -> None:
    graphs = {graph["graph"]: graph for graph in report["accuracy"]["graphs"]}
    assert set(graphs) == {"float", "cpu-int8", "trt-int8"}
    assert graphs["float"]["detections_f1"] == 1
    heat = next(output for output in graphs["cpu-int8"]["outputs"] if output["name"] == "heat")
    assert heat["agreement"] > 0.95


def test_the_headline_is_a_sentence_of_figures(report: dict[str, Any]) -> None:
    assert report["headline"].startswith("4 blocks fused, ")
    assert "less activation memory" in report["headline"] and "INT8" in report["headline"]


def test_the_page_stands_alone(bundle: Bundle) -> None:
    page = bundle.read("report.html").decode()
    assert "<script" not in page and "src=" not in page and "@import" not in page and "url(" not in page
    assert page.count("<svg") >= 4 and "prefers-color-scheme: dark" in page
    assert bundle.manifest.files["graphs/float.onnx"].sha256 in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [480, 1200])
def test_a_browser_lays_the_page_out_without_a_sideways_scroll(bundle: Bundle, tmp_path: Path, width: int) -> None:
    measure = """<script>document.title = JSON.stringify({
        page: document.documentElement.scrollWidth, window: document.documentElement.clientWidth,
        headings: [...document.querySelectorAll("h2")].filter(h => h.offsetHeight > 0).length,
        drawings: [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width > 20).length})
        </script>"""
    page = tmp_path / "report.html"
    page.write_text(bundle.read("report.html").decode() + measure)
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900", "--dump-dom", page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    seen = json.loads(html.unescape(title[1]))
    assert seen["page"] <= seen["window"]
    assert seen["headings"] >= 5
    assert seen["drawings"] >= 4


def heat(run: Any, frames: int = 4) -> dict[str, float]:
    """A figure that rounding moves: how sure the detector is of noise."""
    draw = np.random.default_rng(0)
    sure = [run(draw.integers(0, 256, (1, 64, 96, 3), np.uint8))["scores"].mean() for _ in range(frames)]
    return {"confidence": float(np.mean(sure))}


def test_a_budget_is_kept_by_the_metric_and_the_report_says_how(options: BuildOptions, tmp_path: Path) -> None:
    budgeted = replace(
        options,
        output=tmp_path / "bundle",
        targets=("cpu", "rtx"),
        metric=f"{__name__}:heat",
        metric_args={"frames": 2},
        max_accuracy_drop=5.0,
        calibration_method=None,
        search_cache=tmp_path / "cache",
        latency_seconds=0,
    )
    built = build(budgeted)
    assert built.lowered is not None and built.lowered.found is not None
    assert built.lowered.found.drop <= 5.0
    facts = json.loads((tmp_path / "bundle" / "report.json").read_bytes())["quantization"]
    assert facts["budget"]["judge"].endswith("heat (confidence)")
    assert facts["tried"][0]["plain"] and len(facts["tried"]) > 4
    assert facts["integer_kernels"]["QLinearConv"] == 4 and facts["integer_layers_compiled"]["rtx"] == 4
    errors = [layer["error"] for layer in facts["layers"]]
    assert all(set(error) == {"cpu-int8", "trt-int8"} for error in errors)
    page = (tmp_path / "bundle" / "report.html").read_text()
    assert "How precision was lowered" in page and "built up to there" in page
    assert list((tmp_path / "cache").glob("*.json"))


def test_int8_without_frames_says_what_to_give_and_how_much(options: BuildOptions, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build(replace(options, calibration_data=None, output=tmp_path / "b"))
    assert "--calibration-data DIR with 32 to 500 frames" in caught.value.remedy
    assert not (tmp_path / "b").exists()


def test_a_tolerance_that_cannot_be_met_stops_the_build_and_leaves_nothing(
    options: BuildOptions, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match="of the fused graph is off by"):
        build(replace(options, precision="fp32", tolerance=0.0, output=tmp_path / "b", targets=("cpu",)))
    assert not list(tmp_path.iterdir())


def test_what_lies_at_the_output_and_is_no_bundle_is_left_alone(options: BuildOptions, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleInvalid, match="is no bundle"):
        build(replace(options, precision="fp32", targets=("cpu",), output=tmp_path / "b", latency_seconds=0))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_fp16_serves_gpus_and_leaves_the_cpu_in_float(options: BuildOptions, tmp_path: Path) -> None:
    built = build(replace(options, precision="fp16", output=tmp_path / "b.zip", latency_seconds=0))
    manifest = Bundle.open(tmp_path / "b.zip").manifest
    assert manifest.graph_for("rtx") == "trt-fp16" and manifest.graph_for("cpu") == "float"
    assert any("CPUs compute FP16 slower" in note for note in built.notes)


def test_any_tensors_go_in_and_out_unchanged(classifier_file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.random.default_rng(0).standard_normal((40, 3, 64, 96)).astype(np.float32))
    build(
        BuildOptions(
            model=str(classifier_file),
            output=tmp_path / "b",
            precision="int8",
            calibration_data=tmp_path,
            max_batch=1,
            latency_seconds=0,
        )
    )
    manifest = Bundle.open(tmp_path / "b").manifest
    assert [(spec.name, spec.dtype) for spec in (*manifest.inputs, *manifest.outputs)] == [
        ("image", "float32"),
        ("output", "float32"),
    ]
    assert manifest.preprocessing is None and manifest.postprocessing.kind == "tensors"


@pytest.mark.parametrize("content", ["{", "[]", '{"labels": ["a"], "scores": "s"}'])
def test_postprocessing_that_breaks_its_schema_is_refused(content: str, options: BuildOptions, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(BuildError, match=r"p\.json"):
        build(replace(options, postprocess=tmp_path / "p.json"))


def test_postprocessing_that_reads_other_outputs_is_refused(options: BuildOptions, tmp_path: Path) -> None:
    fields = {"labels": ["a"], "scores": "confidence", "classes": "classes", "boxes": "boxes"}
    (tmp_path / "p.json").write_text(json.dumps(fields))
    with pytest.raises(BuildError, match="confidence"):
        build(replace(options, postprocess=tmp_path / "p.json", output=tmp_path / "b"))
