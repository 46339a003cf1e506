from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from build_engine.errors import BuildError
from build_engine.load.weights import load_into, read_weights
from tests.build_engine import networks


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return dict(networks.classifier().state_dict())


def fill(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_weights_are_read_from_every_format(name: str, tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    read = read_weights(fill(tmp_path / name, weights))
    assert set(read) == set(weights)
    assert all(torch.equal(read[key], weights[key]) for key in weights)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "ema"])
def test_what_training_scripts_wrap_around_is_taken_off(
    wrapper: str, tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    content = {"epoch": 3, "lr": 0.1, wrapper: {f"module.{key}": value for key, value in weights.items()}}
    path = fill(tmp_path / "w.pt", content)
    model = networks.classifier()
    torch.nn.init.zeros_(model.get_parameter("head.weight"))
    load_into(model, read_weights(path), path)
    assert torch.equal(model.state_dict()["head.weight"], weights["head.weight"])


def test_missing_unexpected_and_misshaped_keys_are_all_named_with_the_nearest(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    weights["head.wieght"] = weights.pop("head.weight")
    weights["head.bias"] = torch.zeros(7)
    del weights["backbone.1.identity.running_var"]
    with pytest.raises(BuildError) as caught:
        load_into(networks.classifier(), weights, tmp_path / "w.pt")
    message = caught.value.message
    assert "2 missing" in message and "head.weight (near: head.wieght)" in message
    assert "backbone.1.identity.running_var" in message
    assert "1 unexpected: head.wieght (near: head.weight)" in message
    assert "head.bias (file [7], model [10])" in message


def test_a_pickle_that_would_execute_code_is_refused_and_executes_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (witness,)

    path = fill(tmp_path / "w.pt", {"state_dict": Bomb()})
    with pytest.raises(BuildError, match="without executing code") as caught:
        read_weights(path)
    assert not witness.exists()
    assert "safetensors" in caught.value.remedy
    assert "weights_only=False" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_corrupt_file_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(BuildError, match=name):
        read_weights(path)


def test_a_truncated_checkpoint_is_an_error(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = fill(tmp_path / "w.pt", weights)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BuildError):
        read_weights(path)


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    path = fill(tmp_path / "w.pt", {"epoch": 3, "best": 0.7})
    with pytest.raises(BuildError, match="it holds: epoch, best"):
        read_weights(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no weights at"):
        read_weights(tmp_path / "none.pt")


def test_a_file_that_is_no_checkpoint_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.pt"
    path.write_text("# not weights\n")
    with pytest.raises(BuildError, match="is no checkpoint") as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value)
