"""Runs the deployed module in PyTorch as the function that evaluation wants."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from surround.batches import normalise
from surround.model import Deployed, deployed, form_of

TRAIN = "python -m surround train"


def load_weights(path: Path) -> Deployed:
    """The deployed module, in the form that they belong to, with the weights of a safetensors file.

    Raises:
        ValueError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ValueError(f"no weights at {path}\n  → leave --weights out for the committed ones, or train: {TRAIN}")
    try:
        weights = load_file(path)
        module = deployed(form_of(weights))
        module.load_state_dict(weights, strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} holds no weights of the surround network: {reason}\n  → train some: {TRAIN}"
        ) from None
    return module


class TorchRun:
    """Frames (N, 384, 640, 3) uint8 RGB to outputs by name as arrays, with the weights of a file."""

    def __init__(self, path: Path) -> None:
        self._module = load_weights(path)

    def __call__(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        """The outputs that `surround.model.Deployed` documents."""
        with torch.inference_mode():
            outputs = self._module(torch.from_numpy(normalise(frames)))
        return {name: value.numpy() for name, value in outputs.items()}
