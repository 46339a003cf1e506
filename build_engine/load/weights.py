"""Trained weights from a file, without executing anything the file says."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from build_engine.errors import BuildError

WRAPPERS = ("state_dict", "model_state_dict", "model", "ema", "model_ema", "params_ema", "params", "module", "weights")
"""Keys under which training scripts put the weights, in the order in which they are tried."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""
NAMED_KEYS = 12
"""How many faulty keys an error names before it only counts."""

StateDict = dict[str, torch.Tensor]


def read_weights(path: Path) -> StateDict:
    """Read a `.safetensors`, `.pt` or `.pth` file.

    Raises:
        BuildError: The file is missing, corrupt, holds no weights, or would have to execute code to be read.
    """
    if not path.is_file():
        raise BuildError(f"no weights at {path}", remedy="check --weights")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise BuildError(f"{path} is no safetensors file: {error}", remedy="copy or export it again") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _reason(error)
        if "GLOBAL" not in reason:
            raise BuildError(
                f"{path} is no checkpoint: {reason}", remedy="name a .safetensors, .pt or .pth file with weights"
            ) from None
        raise BuildError(
            f"{path} cannot be read without executing code that it carries: {reason}",
            remedy="where you trust it, save the weights alone: "
            'safetensors.torch.save_file(model.state_dict(), "weights.safetensors")',
        ) from None
    except Exception as error:  # a truncated archive raises RuntimeError, EOFError, KeyError ...
        raise BuildError(f"{path} is no checkpoint: {_reason(error)}", remedy="copy or export it again") from None
    return _unwrap(content, path)


def load_into(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Put weights into a model; every name and every shape must fit.

    Raises:
        BuildError: A key is missing, unexpected or of another shape. All are named, with the nearest name that exists.
    """
    wanted = model.state_dict()
    given = _without_prefix(weights, wanted)
    # A counter that inference never reads, absent from many checkpoints.
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted and not key.endswith("num_batches_tracked")]
    misshaped = [key for key in given if key in wanted and given[key].shape != wanted[key].shape]
    faults = [
        *_named("missing", missing, [_hint(key, unexpected) for key in missing]),
        *_named("unexpected", unexpected, [_hint(key, missing) for key in unexpected]),
        *_named(
            "of another shape",
            misshaped,
            [f" (file {list(given[key].shape)}, model {list(wanted[key].shape)})" for key in misshaped],
        ),
    ]
    if faults:
        raise BuildError(
            f"{path} does not fit the model:\n    " + "\n    ".join(faults),
            remedy="give the checkpoint of this very architecture, or name the factory with the arguments it was "
            "trained with",
        )
    model.load_state_dict({key: value for key, value in given.items() if key in wanted}, strict=False)


def _unwrap(content: object, path: Path) -> StateDict:
    seen = []
    while isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapper is None:
            if tensors:
                return tensors
            break
        seen.append(wrapper)
        content = content[wrapper]
    found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
    raise BuildError(
        f"{path} holds no weights{' under ' + '.'.join(seen) if seen else ''}; it holds: {found[:300] or 'nothing'}",
        remedy=f"save model.state_dict(), alone or under one of: {', '.join(WRAPPERS)}",
    )


def _without_prefix(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, Any]) -> StateDict:
    given = dict(weights)
    for prefix in PREFIXES:
        if given and all(key.startswith(prefix) for key in given) and not any(key in wanted for key in given):
            given = {key.removeprefix(prefix): value for key, value in given.items()}
    return given


def _named(fault: str, keys: list[str], details: list[str]) -> list[str]:
    if not keys:
        return []
    shown = [f"{key}{detail}" for key, detail in zip(keys[:NAMED_KEYS], details, strict=False)]
    more = f", and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return [f"{len(keys)} {fault}: {', '.join(shown)}{more}"]


def _hint(key: str, candidates: list[str]) -> str:
    near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.6)
    return f" (near: {near[0]})" if near else ""


def _reason(error: Exception) -> str:
    """The first sentence that names the culprit; torch's own advice is to switch the protection off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
    telling = next((line for line in lines if "GLOBAL" in line), lines[0] if lines else "")
    return (telling or type(error).__name__)[:200]
