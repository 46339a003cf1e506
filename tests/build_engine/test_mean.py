from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.camera_input import subtract_in_rows
from build_engine.fuse.verify import Verifier
from build_engine.graph import feeds, random_inputs, tensor_specs
from build_engine.mean import MeanFolding, fold_mean_where_faster, with_ones
from build_engine.progress import Silent
from engine.manifest import Target


def inputs(model: onnx.ModelProto, batch: int = 2) -> dict[str, np.ndarray]:
    return random_inputs(tensor_specs(feeds(model)), batch, 0)


def test_a_channel_of_ones_takes_the_mean_in_borders_included(fused_detector: onnx.ModelProto) -> None:
    folded = with_ones(fused_detector)
    assert folded is not None
    kinds = [node.op_type for node in folded.graph.node]
    assert kinds[:4] == ["Cast", "Transpose", "Pad", "Conv"]
    Verifier(fused_detector, [inputs(fused_detector)]).check(folded)


def test_a_model_that_takes_tensors_has_no_mean(classifier: onnx.ModelProto) -> None:
    assert with_ones(classifier) is None


@pytest.mark.parametrize(
    ("targets", "seconds", "says"),
    [(("cpu",), 0.0, "nothing was measured"), (("cpu", "rtx"), 0.1, "TensorRT subtracts it")],
)
def test_it_stays_where_it_is_free_or_not_measured(
    fused_detector: onnx.ModelProto, targets: tuple[Target, ...], seconds: float, says: str
) -> None:
    model, found = fold(fused_detector, targets, seconds)
    assert not found.folded and says in found.reason
    assert model.graph.node[1].op_type == "Sub"


def test_what_was_measured_is_recorded(fused_detector: onnx.ModelProto) -> None:
    model, found = fold(fused_detector, ("cpu",), 0.05)
    assert found.latency is not None
    assert found.folded == found.latency.is_faster == ("Pad" in {node.op_type for node in model.graph.node})
    assert f"{found.latency.median:.3f}x" in found.reason


def fold(model: onnx.ModelProto, targets: tuple[Target, ...], seconds: float) -> tuple[onnx.ModelProto, MeanFolding]:
    return fold_mean_where_faster(
        subtract_in_rows(model),
        model,
        Verifier(model, [inputs(model)]),
        inputs(model),
        targets=targets,
        seconds=seconds,
        threads=1,
        progress=Silent(),
    )
