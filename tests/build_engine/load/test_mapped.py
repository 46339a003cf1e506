from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from build_engine.errors import BuildError
from build_engine.load.mapped import map_onnx
from build_engine.load.shapes import InputShape
from tests.build_engine.load.test_wire import model


def test_weights_inside_the_file_are_mapped(tmp_path: Path) -> None:
    given_model = model(3, 5000)
    onnx.save(given_model, tmp_path / "m.onnx")
    mapped = map_onnx(tmp_path / "m.onnx")
    large = mapped.graph.initializers["w1"].const_value
    assert isinstance(large, ir.ExternalTensor)
    np.testing.assert_array_equal(large.numpy(), onnx.numpy_helper.to_array(given_model.graph.initializer[1]))


def external(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(model(3, 5000), path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_weights_beside_the_file_are_mapped(tmp_path: Path) -> None:
    mapped = map_onnx(external(tmp_path))
    assert all(isinstance(value.const_value, ir.ExternalTensor) for value in mapped.graph.initializers.values())


def refused(path: Path, *shapes: InputShape) -> str:
    with pytest.raises(BuildError) as caught:
        map_onnx(path, shapes)
    return str(caught.value)


def test_missing_external_data_names_the_weight(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "m.data").unlink()
    assert "'w0' lies in m.data, which is not there" in refused(path)


def test_external_data_cut_short_gives_the_numbers(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = (tmp_path / "m.data").read_bytes()
    (tmp_path / "m.data").write_bytes(data[:-8])
    assert f"which has {len(data) - 8}" in refused(path)


def test_external_data_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = external(tmp_path / "inner")
    (tmp_path / "inner" / "m.data").rename(tmp_path / "m.data")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../m.data"
    path.write_bytes(proto.SerializeToString())
    assert "outside the model's folder" in refused(path)


@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage", b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    said = refused(tmp_path / "m.onnx")
    assert "no ONNX file" in said or "no input or no output" in said
