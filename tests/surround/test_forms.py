"""The two forms that the network is trained in: which branches they have, and that both fuse to one plain network."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.graph import constants
from build_engine.load import load_model, parse_source
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from surround.__main__ import main
from surround.model import FORMS, Block, QuantizableBlock, SurroundNet, deployed, form_of
from surround.spec import INPUT_SIZE
from surround.train import save_weights
from tests.build_engine.fuse.graphs import assert_equal


def norms(block: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)}


def test_only_the_dense_branch_and_the_sum_of_a_quantizable_block_have_batch_norm() -> None:
    assert norms(Block(8, 8)) == {"dense", "point", "depthwise", "identity"}
    assert norms(QuantizableBlock(8, 8)) == norms(QuantizableBlock(8, 16, 2)) == {"dense", "norm"}
    other = QuantizableBlock(8, 16, 2)
    assert other.depthwise is None
    assert other(torch.zeros(1, 8, 10, 10)).shape == (1, 16, 5, 5)


def test_a_quantizable_block_adds_its_input() -> None:
    block = QuantizableBlock(4, 4).eval()
    for convolution in (block.dense[0], block.point, block.depthwise):
        nn.init.zeros_(convolution.weight)  # type: ignore[union-attr,arg-type]
    x = torch.rand(1, 4, 5, 7)
    torch.testing.assert_close(block(x), x / (1 + block.norm.eps) ** 0.5)


@pytest.mark.parametrize("form", FORMS)
def test_every_block_of_the_network_has_its_form(form: str) -> None:
    blocks = [module for module in SurroundNet(form=form).modules() if isinstance(module, (Block, QuantizableBlock))]
    assert len(blocks) == 2 + 2 + 3 + 3 + 4
    assert {type(block) for block in blocks} == {FORMS[form]}


def test_both_forms_start_from_the_same_kernels() -> None:
    kernels = []
    for form in FORMS:
        torch.manual_seed(3)
        kernels.append([value for value in SurroundNet(form=form).parameters() if value.ndim == 4])
    for one, other in zip(*kernels, strict=True):
        torch.testing.assert_close(one, other)


def as_trained(form: str) -> onnx.ModelProto:
    """The exported network with batch norms that do something."""
    torch.manual_seed(7)
    network = SurroundNet(form=form).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return export(network, [InputShape("frames", (1, 3, 32, 64))], None)


def test_both_forms_fuse_to_one_plain_network() -> None:
    kernels = []
    for form in FORMS:
        trained = as_trained(form)
        result = fuse(trained)
        assert_equal(trained, result.model, batch=1)  # in float64
        assert "BatchNormalization" not in {node.op_type for node in result.model.graph.node}
        fixed = constants(result.model)
        kernels.append([fixed[node.input[1]].shape for node in result.model.graph.node if node.op_type == "Conv"])
    assert kernels[0] == kernels[1]
    assert len(kernels[0]) == 2 + 2 + 3 + 3 + 4 + 3 + 3  # blocks, laterals, heads


def test_weights_say_which_form_they_are_of() -> None:
    for form in FORMS:
        assert form_of(deployed(form).state_dict()) == form


def test_a_build_takes_the_weights_of_each_form_from_its_own_factory(tmp_path: Path) -> None:
    weights = tmp_path / "qarepvgg.safetensors"
    save_weights(deployed("qarepvgg"), weights)
    shape = InputShape("frames", (1, 3, INPUT_SIZE[1], INPUT_SIZE[0]))
    loaded = load_model(parse_source("surround.model:deployed_qarepvgg"), weights, [shape])
    assert "BatchNormalization" in {node.op_type for node in loaded.model.graph.node}
    with pytest.raises(BuildError, match=r"norm"):
        load_model(parse_source("surround.model:deployed"), weights, [shape])


def test_the_command_knows_the_forms(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--form", "none"])
    message = capsys.readouterr().err
    assert [form for form in FORMS if form not in message] == []
