from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from build_engine import saving
from build_engine.load.mapped import map_onnx
from build_engine.saving import in_memory, save
from tests.build_engine.load.test_wire import model


def test_small_weights_lie_inside(tmp_path: Path) -> None:
    given = model(10, 4000)
    assert save(ir.serde.deserialize_model(given), tmp_path / "m.onnx") == (tmp_path / "m.onnx",)
    onnx.checker.check_model(tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_many_weights_lie_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "MOST_BYTES_INSIDE", 1000)
    files = save(ir.serde.deserialize_model(model(10, 4000)), tmp_path / "m.onnx")
    assert [file.name for file in files] == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(tmp_path / "m.onnx")


def test_a_mapped_model_may_replace_its_own_file(tmp_path: Path) -> None:
    given = model(10, 4000, 5000)
    onnx.save(given, tmp_path / "m.onnx")
    mapped = map_onnx(tmp_path / "m.onnx")
    save(mapped, tmp_path / "m.onnx")
    found, expected = onnx.load(tmp_path / "m.onnx"), in_memory(ir.serde.deserialize_model(given))
    for one, other in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))


class Broken(ir.Tensor[np.ndarray]):
    def tofile(self, file: object) -> None:
        raise OSError(28, "No space left on device")


def test_what_was_there_survives_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"earlier")
    broken = ir.serde.deserialize_model(model(4000))
    broken.graph.initializers["w0"].const_value = Broken(np.zeros(4000, np.float32), name="w0")
    with pytest.raises(OSError, match="No space"):
        save(broken, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
