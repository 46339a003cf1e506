"""PyTorch models by name: `package.module:factory`, `timm:name`, and `.pt2` programs."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from build_engine.errors import BuildError

_PICKLED_CONSTANTS = ("custom_obj", "opaque_obj")
"""How a .pt2 archive names constants that only unpickling can restore."""


def create(module: str, factory: str) -> nn.Module:
    """Call `factory()` of a Python module; the working directory is importable, as for `python -m`.

    Raises:
        BuildError: The module or the factory does not exist, fails, or returns no model.
    """
    given = f"{module}:{factory}"
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), factory)
    except ImportError as error:
        raise BuildError(
            f"{given}: cannot import {module}: {error}",
            remedy="install its package, or run from the folder that holds it",
        ) from None
    except AttributeError as error:
        if module in sys.modules:
            raise BuildError(
                f"{module} has no attribute {factory!r}", remedy="name a function or class that returns the model"
            ) from None
        raise _fails_to_import(module, error) from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise _fails_to_import(module, error) from error
    try:
        model = found() if callable(found) and not isinstance(found, nn.Module) else found
    except (Exception, SystemExit) as error:  # whatever the user's factory raises
        remedy = f"""call it in Python first, without a GPU: python -c "import {module}; {module}.{factory}()\""""
        if isinstance(error, TypeError) and "argument" in str(error):
            remedy = "name a factory that needs no arguments: def deployed(): return Network(width=48)"
        raise BuildError(f"{given}() raised {type(error).__name__}: {error}", remedy=remedy) from error
    if not isinstance(model, nn.Module):
        raise BuildError(f"{given} gave {type(model).__name__}, no torch.nn.Module", remedy="return the model")
    return model


def _fails_to_import(module: str, error: BaseException) -> BuildError:
    return BuildError(
        f"{module} raised {type(error).__name__} when it was imported: {error}",
        remedy=f'repair it; python -c "import {module}" says the same',
    )


def create_timm(name: str, *, pretrained: bool) -> tuple[nn.Module, tuple[int, ...] | None]:
    """A model of the timm library, with the input size it was trained for, where timm says it.

    Raises:
        BuildError: timm is not installed, or has no such model or weights.
    """
    try:
        import timm  # noqa: PLC0415 - the user's own, no dependency of this project
    except ImportError:
        raise BuildError(f"timm:{name} needs the timm library", remedy="pip install timm") from None
    try:
        model = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # unknown name, no network, no such weights
        raise BuildError(
            f"timm cannot create {name!r}: {error}", remedy="list names with timm.list_models('*repvgg*')"
        ) from None
    size = getattr(model, "default_cfg", {}).get("input_size")
    return model, (1, *size) if size else None


def read_program(path: Path) -> torch.export.ExportedProgram:
    """Read a `.pt2` program without unpickling anything but tensors.

    Raises:
        BuildError: The file is missing or corrupt, or holds objects that only unpickling can restore.
    """
    if not path.is_file():
        raise BuildError(f"no model at {path}", remedy="check the path")
    again = "save it again: torch.export.save(torch.export.export(model, inputs), path)"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
    except zipfile.BadZipFile:
        raise BuildError(f"{path} is no .pt2 program", remedy=again) from None
    pickled = [entry for entry in entries if Path(entry).name.startswith(_PICKLED_CONSTANTS)]
    if pickled:
        raise BuildError(
            f"{path} holds objects that only unpickling can restore: {', '.join(pickled[:3])}",
            remedy="export a model whose constants are tensors",
        )
    try:
        with mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}):
            return torch.export.load(path)
    except Exception as error:  # many kinds, by torch version
        raise BuildError(f"{path} is no .pt2 program: {str(error)[:300]}", remedy=again) from None


def digest_of(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, types and values, in order of names."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        array = tensor.detach().cpu().contiguous()
        total.update(f"{name}:{array.dtype}:{list(array.shape)}\n".encode())
        total.update(array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return total.hexdigest()
