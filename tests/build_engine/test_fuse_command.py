from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from build_engine import fuse_command, saving
from build_engine.__main__ import main
from tests.build_engine.fuse.exporting import exported, randomized
from tests.build_engine.fuse.graphs import GraphBuilder
from tests.build_engine.fuse.test_residuals import network
from tests.build_engine.test_command_line import fails

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def residual_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("models") / "residual.onnx"
    onnx.save(exported(randomized(network()), (1, 3, 18, 22)), path)
    return path


def report_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    """The whole of standard output as JSON: nothing else may be there."""
    assert main(["fuse", *map(str, arguments), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


SCHEMA = {
    "schema_version": int,
    "source": str,
    "files": list,
    "regions": list,
    "kept": list,
    "before": dict,
    "after": dict,
    "live_before": list,
    "live_after": list,
    "blocks": list,
    "verification": dict,
    "shortcuts": dict,
    "notes": list,
}


def test_the_report_for_machines_has_the_documented_fields(
    residual_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report_of(
        capsys, residual_file, "-o", tmp_path / "o.onnx", "--remove-residuals", "on", "--latency-seconds", "0"
    )
    assert {name: type(found[name]) for name in SCHEMA} == SCHEMA
    assert set(found) == {*SCHEMA, "mean"}
    page = Path("docs/fusion.md").read_text()
    assert all(f"`{name}`" in page for name in found)


def test_shortcuts_are_removed_on_request(
    residual_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuse", str(residual_file), "-o", str(tmp_path / "o.onnx"), "--remove-residuals", "on"]) == 0
    assert "3 shortcuts removed: asked for" in " ".join(capsys.readouterr().out.split())
    assert not any(node.op_type == "Add" for node in onnx.load(tmp_path / "o.onnx").graph.node)


def test_tables_for_people_name_modules_and_reasons(
    classifier_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert main(["fuse", str(classifier_file), "-o", str(tmp_path / "o.onnx"), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "4 regions fused" in said and "verified on" in said and "kept apart: nonlinearity" in said
    assert 'class="timeline"' in page.read_text() and 'class="ribbon"' in page.read_text()


def open_sizes(path: Path) -> Path:
    g = GraphBuilder(("n", 3, "h", "w"))
    y = g.add("Conv", "x0", RNG.normal(size=(4, 3, 3, 3)), pads=[1, 1, 1, 1])
    y = g.add("Add", y, g.add("Conv", "x0", RNG.normal(size=(4, 3, 1, 1))))
    onnx.save(g.model(g.add("Relu", y)), path)
    return path


def test_open_sizes_are_verified_at_odd_and_even_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report_of(capsys, open_sizes(tmp_path / "m.onnx"), "-o", tmp_path / "o.onnx")
    assert found["verification"]["inputs"] == fuse_command.MOST_INPUTS  # type: ignore[index]


def test_many_weights_are_written_beside_the_model(
    classifier_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "MOST_BYTES_INSIDE", 1000)
    found = report_of(capsys, classifier_file, "-o", tmp_path / "o.onnx", "--no-verify")
    assert [Path(name).name for name in found["files"]] == ["o.onnx", "o.onnx.data"]  # type: ignore[attr-defined]
    assert found["verification"] is None
    onnx.checker.check_model(tmp_path / "o.onnx")


def test_bad_input_leaves_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "o.onnx"
    output.write_bytes(b"earlier")
    broken = tmp_path / "m.onnx"
    model = onnx.load(open_sizes(broken))
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.inf
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "c0"))
    onnx.save(model, broken)
    assert "'c0'" in fails(capsys, "fuse", broken, "-o", output)
    model.graph.node[0].op_type = "Convolute"
    onnx.save(model, broken)
    assert "not valid ONNX" in fails(capsys, "fuse", broken, "-o", output)
    broken.write_bytes(broken.read_bytes()[:-9])
    assert "no ONNX file" in fails(capsys, "fuse", broken, "-o", output)
    assert output.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "o.onnx"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none.onnx", "-o", "o.onnx"), "no model at"),
        (("m.onnx", "-o", "o.txt"), "no .onnx file"),
        (("m.onnx", "-o", "nowhere/o.onnx"), "no folder nowhere"),
        (("m.onnx", "-o", "o.onnx", "--html", "nowhere/r.html"), "no folder nowhere"),
        (("m.onnx", "-o", "o.onnx", "--html", "."), "--html . is a folder"),
        (("m.onnx", "-o", "no where/o.onnx"), "mkdir -p 'no where'"),
        (("m.onnx", "-o", "o.onnx", "--latency-seconds", "-1"), "is no time"),
        (("m.onnx", "-o", "o.onnx", "--weights", "w.pt"), "leave --weights and --opset out"),
        (("m.onnx", "-o", "o.onnx", "--threads", "0"), "--threads is at least 1"),
        (("m.onnx", "-o", "o.onnx", "--input-shape", "1,4,8,8"), "the model has"),
    ],
)
def test_what_was_typed_wrong(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_sizes(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    assert says in fails(capsys, "fuse", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_the_fused_file_keeps_the_models_own_operator_set_and_inputs(tmp_path: Path) -> None:
    path = open_sizes(tmp_path / "m.onnx")
    assert main(["fuse", str(path), "-o", str(tmp_path / "o.onnx")]) == 0
    before, after = (ir.load(tmp_path / name) for name in ("m.onnx", "o.onnx"))
    assert before.opset_imports == after.opset_imports
    assert [str(value.shape) for value in before.graph.inputs] == [str(value.shape) for value in after.graph.inputs]
