import numpy as np
import pytest
import torch
from torch import nn

from surround.losses import focal_loss, generalized_iou
from surround.model import Block, Deployed, SurroundNet, cell_grid, decode_shape, deployed
from surround.spec import INPUT_SIZE, LABELS, STRIDE, TOP_K
from surround.torch_run import load_weights

ROWS, COLUMNS = INPUT_SIZE[1] // STRIDE, INPUT_SIZE[0] // STRIDE


class Answer(nn.Module):
    """Answers with fixed maps."""

    def __init__(self, heat: torch.Tensor, shape: torch.Tensor, road: torch.Tensor) -> None:
        super().__init__()
        self.maps = (heat, shape, road)

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.maps


def test_outputs_are_named_shaped_and_sorted() -> None:
    outputs = deployed()(torch.zeros(2, 3, *INPUT_SIZE[::-1]))
    assert list(outputs) == ["scores", "classes", "boxes", "distances", "drivable"]
    assert outputs["scores"].shape == outputs["classes"].shape == outputs["distances"].shape == (2, TOP_K)
    assert outputs["boxes"].shape == (2, TOP_K, 4)
    assert outputs["drivable"].shape == (2, 1, ROWS, COLUMNS)
    assert outputs["classes"].dtype == torch.int64
    assert (outputs["scores"].diff(dim=1) <= 0).all()


def test_peaks_are_decoded_where_they_are() -> None:
    heat = torch.full((1, 4, ROWS, COLUMNS), -9.0)
    shape = torch.zeros(1, 5, ROWS, COLUMNS)
    heat[0, 3, 20, 30], heat[0, 3, 20, 31] = 3.0, 2.0  # a neighbour of a peak is no peak
    heat[0, 1, 47, 79] = 1.0
    shape[0, :, 20, 30] = torch.tensor([0.25, -0.5, 0.1, 0.4, 0.7])
    module = Deployed(Answer(heat, shape, torch.zeros(1, 1, ROWS, COLUMNS)))  # type: ignore[arg-type]
    outputs = module(torch.zeros(1, 3, *INPUT_SIZE[::-1]))
    assert outputs["classes"][0, :2].tolist() == [3, 1]
    torch.testing.assert_close(outputs["scores"][0, :2], torch.sigmoid(torch.tensor([3.0, 1.0])))
    width, height = np.exp(1.1) * 8, np.exp(1.4) * 8
    x, y = (30.5 + 0.25) * 8, (20.5 - 0.5) * 8
    box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    np.testing.assert_allclose(outputs["boxes"][0, 0], box, rtol=1e-5)
    assert float(outputs["distances"][0, 0]) == pytest.approx(np.exp(3.4), rel=1e-5)


def test_every_flat_index_gives_its_class_and_cell() -> None:
    heat = torch.full((1, 4, ROWS, COLUMNS), -9.0)
    corners = [(label, row, column) for label in range(4) for row, column in ((0, 0), (ROWS - 1, COLUMNS - 1))]
    for n, (label, row, column) in enumerate(corners):
        heat[0, label, row, column] = 8.0 - n
    shape = torch.zeros(1, 5, ROWS, COLUMNS)
    module = Deployed(Answer(heat, shape, torch.zeros(1, 1, ROWS, COLUMNS)))  # type: ignore[arg-type]
    outputs = module(torch.zeros(1, 3, *INPUT_SIZE[::-1]))
    assert outputs["classes"][0, :8].tolist() == [label for label, _, _ in corners]
    centres = (outputs["boxes"][0, :8, :2] + outputs["boxes"][0, :8, 2:]) / 2 / STRIDE - 0.5
    assert centres.round().int().tolist() == [[column, row] for _, row, column in corners]


def test_a_block_has_four_branches_where_shapes_allow() -> None:
    same, other = Block(8, 8), Block(8, 16, 2)
    assert same.depthwise is not None
    assert same.identity is not None
    assert other.depthwise is None
    assert other.identity is None
    assert other(torch.zeros(1, 8, 10, 10)).shape == (1, 16, 5, 5)


def test_the_network_is_small() -> None:
    fused = sum(
        m.dense[0].weight.numel() + m.dense[0].weight.shape[0]  # type: ignore[union-attr,operator]
        for m in SurroundNet().modules()
        if isinstance(m, Block)
    )
    assert sum(p.numel() for p in SurroundNet().parameters()) < 2_000_000
    assert fused < 2_000_000


def test_generalized_iou_by_hand() -> None:
    a = torch.tensor([0.0, 0, 10, 10])
    assert float(generalized_iou(a, a)) == pytest.approx(1.0)
    assert float(generalized_iou(a, torch.tensor([20.0, 0, 30, 10]))) == pytest.approx(-1 / 3)


def test_the_focal_loss_prefers_the_truth_and_skips_what_does_not_matter() -> None:
    heat = torch.zeros(1, len(LABELS), 6, 6)
    heat[0, 1, 2, 3] = 1.0
    weight = torch.ones_like(heat)
    right = torch.full_like(heat, -8.0)
    right[0, 1, 2, 3] = 8.0
    wrong = right.roll(1, 3)
    assert focal_loss(right, heat, weight) < 1e-3 < focal_loss(wrong, heat, weight)
    weight[0, 1, 2, 2:5] = 0
    assert focal_loss(wrong, heat, weight) < 1e-3


def test_decoding_is_differentiable_everywhere() -> None:
    shape = torch.zeros(1, 5, 3, 4, requires_grad=True)
    boxes, distance = decode_shape(shape, cell_grid(3, 4))
    (boxes.sum() + distance.sum()).backward()
    assert torch.isfinite(shape.grad).all()  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_the_exported_graph_answers_as_the_module_at_any_batch(tmp_path: object) -> None:
    import onnxruntime

    from surround.__main__ import WEIGHTS
    from surround.batches import normalise
    from surround.dataset import render_split

    module = load_weights(WEIGHTS)
    frames = torch.from_numpy(normalise(np.stack([s.frame.image for s in render_split("validation", 0, 3)])))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        module, (frames[:2],), dynamo=True, dynamic_shapes={"frames": {0: batch}}, verbose=False
    )
    assert program is not None
    path = f"{tmp_path}/network.onnx"
    program.save(path)
    operators = {node.op_type for node in program.model_proto.graph.node}
    assert not operators & {"NonMaxSuppression", "NonZero", "ScatterND", "Floor"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        answers = session.run(None, {session.get_inputs()[0].name: frames[:count].numpy()})
        with torch.inference_mode():
            expected = module(frames[:count])
        confident = expected["scores"].numpy() > 0.3  # below, ties may swap places
        assert confident.any()
        for (name, value), answer in zip(expected.items(), answers, strict=True):
            if name == "drivable":
                np.testing.assert_allclose(answer, value.numpy(), atol=1e-4)
            else:
                np.testing.assert_allclose(
                    np.asarray(answer)[confident], value.numpy()[confident], rtol=1e-3, atol=1e-3, err_msg=name
                )
