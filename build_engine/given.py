"""What a user gave beside the model, checked before minutes are spent."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from pydantic import ValidationError

from build_engine.errors import BuildError
from build_engine.options import LACKING
from engine.bundle import MANIFEST
from engine.bundle_files import check_replaceable
from engine.manifest import DetectionPostprocessing, Precision, Target
from engine.tensors import TensorSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+-]{0,63}")


def check_output(path: Path) -> None:
    """Check that a bundle can be written to a path; nothing is.

    Raises:
        BundleInvalid: Something that is no bundle lies there.
        BuildError: There is no way to make a file there.
    """
    check_replaceable(path, MANIFEST)
    there = next(folder for folder in (path.absolute().parent, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "cannot be written to" if there.is_dir() else "is no folder"
        raise BuildError(f"{there} {why}", remedy="name another path for -o")


def check_folder(path: Path | None) -> None:
    """Check that there is a folder of calibration data, where one was named.

    Raises:
        BuildError: There is none.
    """
    if path is not None and not path.is_dir():
        raise BuildError(f"no folder at {path}", remedy="give a folder of frames to --calibration-data")


def read_postprocessing(path: Path | None) -> DetectionPostprocessing | None:
    """Read how outputs become detections.

    Raises:
        BuildError: The file is missing, no JSON, or breaks the schema; every fault is named.
    """
    if path is None:
        return None
    try:
        return DetectionPostprocessing.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise BuildError(f"no postprocessing at {path}: {error.strerror}", remedy="check --postprocess") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors())
        raise BuildError(
            f"{path}: {faults}",
            remedy='write {"labels": [...], "scores": OUTPUT, "classes": OUTPUT, "boxes": OUTPUT}, see '
            "engine.manifest.DetectionPostprocessing",
        ) from None
    except ValueError as error:
        raise BuildError(f"{path} is no JSON: {error}", remedy="check --postprocess") from None


def check_outputs(postprocessing: DetectionPostprocessing | None, outputs: tuple[TensorSpec, ...]) -> None:
    """Check that postprocessing reads outputs that exist.

    Raises:
        BuildError: It does not; both lists are in the message.
    """
    names = [spec.name for spec in outputs]
    absent = [name for name in (postprocessing.outputs if postprocessing else ()) if name not in names]
    if absent:
        raise BuildError(
            f"postprocessing reads {', '.join(absent)}; the model's outputs are {', '.join(names)}",
            remedy="correct the names in the --postprocess file",
        )


def check_identity(name: str, version: str) -> None:
    """Check that a bundle may be called so.

    Raises:
        BuildError: It may not.
    """
    for option, value, pattern in (("--name", name, _NAME), ("--version", version, _VERSION)):
        if not pattern.fullmatch(value):
            raise BuildError(
                f"{option} {value!r} cannot be used",
                remedy=f"{option} is up to 64 letters, digits and . _ - characters",
            )


def check_targets(precision: Precision, targets: tuple[Target, ...]) -> None:
    """Check that targets have kernels for a precision. A CPU beside them is served by the float graph.

    Raises:
        BuildError: One has not.
    """
    lacking = [target for target in targets if target in LACKING.get(precision, ())]
    if not lacking or (lacking == ["cpu"] and len(targets) > 1):
        return
    since = {"bf16": "8.0 on", "fp8": "8.9 on (Ada, Hopper, Thor; Orin is 8.7)"}[precision]
    raise BuildError(
        f"target {', '.join(lacking)} has no {precision.upper()}: NVIDIA GPUs have it from compute capability {since}",
        remedy=f"build with --precision int8 for {lacking[0]}, or --precision {precision} for another --target, "
        "such as rtx",
    )
