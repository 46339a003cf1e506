from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from build_engine.errors import BuildError
from build_engine.graph import feeds, opset_of, serialize, tensor_specs
from build_engine.load import load_model, parse_source
from build_engine.load.shapes import InputShape
from build_engine.load.torch_model import digest_of
from build_engine.session import Session
from tests.build_engine import networks
from tests.build_engine.conftest import SHAPE, load

IMAGE = np.random.default_rng(0).standard_normal((3, 3, networks.HEIGHT, networks.WIDTH)).astype(np.float32)


def test_an_export_computes_what_the_module_does_for_any_batch(classifier: onnx.ModelProto) -> None:
    with torch.no_grad():
        expected = networks.classifier()(torch.from_numpy(IMAGE)).numpy()
    assert np.allclose(Session(classifier).run({"image": IMAGE})["output"], expected, atol=1e-5)


def test_the_keys_of_a_dict_become_the_outputs_names(detector: onnx.ModelProto) -> None:
    assert [spec.name for spec in tensor_specs(list(detector.graph.output))] == ["scores", "classes", "boxes", "heat"]
    assert all(spec.batched for spec in tensor_specs(list(detector.graph.output)))
    with torch.no_grad():
        expected = networks.detector()(torch.from_numpy(IMAGE))
    found = Session(detector).run({"image": IMAGE})
    for name, tensor in expected.items():
        assert np.allclose(found[name], tensor.numpy(), atol=1e-3), name


def test_batch_norms_are_left_for_the_fuser_and_modules_are_remembered(classifier: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in classifier.graph.node]
    assert kinds.count("BatchNormalization") == 10
    assert any("backbone.1.identity" in entry.value for node in classifier.graph.node for entry in node.metadata_props)


def test_exports_use_an_opset_that_jetpacks_parser_reads(classifier: onnx.ModelProto) -> None:
    assert opset_of(classifier) == 18
    assert onnx.load_from_string(serialize(classifier)).ir_version == 8


def test_what_is_written_says_nothing_about_the_machine_that_exported_it(classifier: onnx.ModelProto) -> None:
    data = serialize(classifier)
    assert b"networks.py" not in data and b"site-packages" not in data
    assert data == serialize(onnx.load_from_string(data))


def test_several_inputs_are_named_as_forward_names_them() -> None:
    model = load("two_inputs", InputShape("depth", (1, 1, 8, 8)), InputShape("image", (1, 3, 8, 8)))
    assert {spec.name: spec.shape for spec in tensor_specs(feeds(model))} == {
        "image": ("batch", 3, 8, 8),
        "depth": ("batch", 1, 8, 8),
    }
    assert [output.name for output in model.graph.output] == ["output_0", "output_1"]


@pytest.mark.parametrize(
    ("factory", "shapes", "says"),
    [
        ("classifier", [], "needs the shape of its input"),
        ("classifier", [InputShape("picture", (1, 3, 8, 8))], "no input picture"),
        ("two_inputs", [SHAPE], "needs depth too"),
        ("classifier", [InputShape(None, (1, 4, 64, 96))], "fails on zeros of image"),
        ("nested", [SHAPE], "possibly nested"),
        ("unexportable", [SHAPE], "i1e"),
        ("needs_argument", [SHAPE], "raised TypeError"),
        ("unlicensed", [SHAPE], "raised SystemExit: no licence"),
        ("deciding", [SHAPE], r"decides by what a tensor holds \(if y.mean\(\) > 0:, .*networks.py line \d+\)$"),
        ("classifier", [InputShape(None, (1, 3, 10**7, 10**7))], "inputs image=1x3x10000000x10000000 do not fit"),
        ("NOT_A_MODEL", [SHAPE], "no torch.nn.Module"),
        ("absent", [SHAPE], "has no attribute 'absent'"),
    ],
)
def test_what_cannot_be_exported_says_why(
    factory: str, shapes: list[InputShape], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BuildError) as caught:
        load_model(parse_source(f"tests.build_engine.networks:{factory}"), shapes=shapes)
    assert re.search(says, caught.value.message)
    assert not capfd.readouterr().err, "the exporter prints whole programs"


@pytest.mark.parametrize(("opset", "says"), [(5, "choose one from 13 to"), (99, "choose one from 13 to")])
def test_an_operator_set_that_does_not_exist_is_refused(opset: int, says: str) -> None:
    with pytest.raises(BuildError, match=says):
        load_model(parse_source("tests.build_engine.networks:classifier"), shapes=[SHAPE], opset=opset)


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_an_export_has_the_operator_set_that_was_asked_for_or_fails(opset: int) -> None:
    try:
        loaded = load_model(parse_source("tests.build_engine.networks:classifier"), shapes=[SHAPE], opset=opset)
    except BuildError as error:
        assert f"asked for was {opset}" in error.message and "leave --opset out" in error.remedy
    else:
        assert opset_of(loaded.model) == opset


def test_a_module_that_fails_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks.py").write_text("raise RuntimeError('no GPU')\n")
    (tmp_path / "misspelled.py").write_text("import torch\ntorch.nnn\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BuildError, match="breaks raised RuntimeError when it was imported: no GPU"):
        load_model(parse_source("breaks:factory"), shapes=[SHAPE])
    with pytest.raises(BuildError, match=r"misspelled raised AttributeError when it was imported: .*nnn"):
        load_model(parse_source("misspelled:factory"), shapes=[SHAPE])


def test_a_pt2_program_is_exported_with_its_own_shapes(tmp_path: Path) -> None:
    path = tmp_path / "classifier.pt2"
    batch = torch.export.Dim("n")
    program = torch.export.export(
        networks.classifier(), (torch.from_numpy(IMAGE),), dynamic_shapes={"image": {0: batch}}
    )
    torch.export.save(program, path)
    loaded = load_model(parse_source(str(path)))
    assert tensor_specs(feeds(loaded.model))[0].shape == ("batch", 3, networks.HEIGHT, networks.WIDTH)
    with torch.no_grad():
        expected = networks.classifier()(torch.from_numpy(IMAGE)).numpy()
    (found,) = Session(loaded.model).run({"image": IMAGE}).values()
    assert np.allclose(found, expected, atol=1e-5)


def test_a_file_that_is_no_program_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(BuildError, match=r"x\.pt2 is no \.pt2 program"):
        load_model(parse_source(str(path)))


def test_the_same_weights_have_the_same_digest() -> None:
    first, second = networks.classifier().state_dict(), networks.classifier().state_dict()
    assert digest_of(first) == digest_of(second)
    second["head.bias"][0] += 1
    assert digest_of(first) != digest_of(second)
