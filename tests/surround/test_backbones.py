import pytest
import torch

from build_engine.fuse import fuse
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from surround.backbones import BACKBONES, COMPARED_SIZE, deployed_at_compared_size
from surround.model import SurroundNet

NECK_AND_HEADS = 3 + 2 + 2 + 3  # laterals, merges, features, and what the heads answer


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_the_strides_and_channels_it_says(name: str) -> None:
    backbone = BACKBONES[name]()
    features = backbone.stem(torch.zeros(1, 3, 64, 96))
    assert features.shape[2:] == (16, 24)
    for stage, channels, stride in zip(
        (backbone.stage8, backbone.stage16, backbone.stage32), backbone.channels, (8, 16, 32), strict=True
    ):
        features = stage(features)
        assert features.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("plain", 2 + 2 + 3 + 3),
        ("separable", 1 + 2 + 4 + 8 + 4),  # a depthwise and a 1x1 per block
        ("plain_even", 1 + 4 * 4),
        ("residual", 1 + 4 * 4 + 3),  # its shortcuts' 1x1 stay: a ReLU lies in between
        ("residual_even", 1 + 4 * 4 + 4),
    ],
)
def test_a_fused_backbone_has_the_convolutions_of_its_deploy_form(name: str, convolutions: int) -> None:
    network = SurroundNet(BACKBONES[name]()).eval()
    fused = fuse(export(network, [InputShape("frames", (1, 3, 64, 64))], None))
    assert fused.report.after.convolutions <= convolutions + NECK_AND_HEADS
    assert not [node for node in fused.model.graph.node if node.op_type == "BatchNormalization"]


def test_the_compared_networks_decode_at_their_own_size() -> None:
    width, height = COMPARED_SIZE
    outputs = deployed_at_compared_size("separable")(torch.zeros(1, 3, height, width))
    assert outputs["drivable"].shape == (1, 1, height // 8, width // 8)
