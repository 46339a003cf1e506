"""Which kind of model a name means, and from there to ONNX."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import onnx

from build_engine.errors import BuildError
from build_engine.load.onnx_file import OLDEST_OPSET, load_onnx
from build_engine.load.shapes import InputShape
from engine.manifest import FreeDimension

_FACTORY = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<factory>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Source:
    """A model as it was named.

    Attributes:
        kind: How it comes.
        given: What was typed.
        name: What a bundle is called after it, unless told otherwise.
    """

    kind: Literal["onnx", "pt2", "factory", "timm"]
    given: str
    name: str


@dataclass(frozen=True)
class Loaded:
    """A model as ONNX, and where it comes from.

    Attributes:
        model: The graph as trained, free first dimension named `batch`.
        origin: File name or import path; never a folder of the machine that built it.
        sha256: Digest of the file, or of the weights of a Python model.
        tools: Version per tool that took part in loading.
    """

    model: onnx.ModelProto
    origin: str
    sha256: str
    tools: dict[str, str]


def parse_source(given: str) -> Source:
    """Tell the kinds apart.

    Raises:
        BuildError: It is none of them.
    """
    if given.startswith("timm:"):
        name = given.removeprefix("timm:")
        return Source("timm", given, _plain(name))
    if given.endswith((".onnx", ".pt2")):
        path = Path(given)
        return Source("onnx" if path.suffix == ".onnx" else "pt2", given, _plain(path.stem))
    if found := _FACTORY.fullmatch(given):
        return Source("factory", given, _plain(found["module"].partition(".")[0]))
    advice = "name x.onnx, x.pt2, package.module:factory or timm:name"
    if given.endswith((".pt", ".pth", ".safetensors", ".ckpt")):
        advice = f"weights alone are no model: build_engine build package.module:factory --weights {Path(given).name}"
    raise BuildError(f"{given!r} is no model that can be loaded", remedy=advice)


def load_model(
    source: Source,
    weights: Path | None = None,
    shapes: Sequence[InputShape] = (),
    opset: int | None = None,
    free: Mapping[str, FreeDimension] = MappingProxyType({}),
) -> Loaded:
    """Load a model of any kind.

    Args:
        source: What to load.
        weights: Trained weights for a Python model.
        shapes: Shapes of its inputs.
        opset: ONNX operator set; None keeps a file's own and exports the default.
        free: Dimensions besides the batch that are to stay free, in an `.onnx` file.

    Raises:
        BuildError: Something is missing, corrupt or does not fit; the message says what.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise BuildError(
            f"--opset {opset} is none that can be built from", remedy=f"choose one from {OLDEST_OPSET} to {newest}"
        )
    tools = {"onnx": version("onnx")}
    if source.kind == "onnx":
        _no_weights(source, weights)
        model, digest = load_onnx(Path(source.given), shapes, opset, free)
        return Loaded(model, Path(source.given).name, digest, tools)

    # Loading torch takes seconds, which a build from an .onnx file should not pay.
    from build_engine.load.torch_export import export, export_program  # noqa: PLC0415 - torch, where needed
    from build_engine.load.torch_model import create, create_timm, digest_of, read_program  # noqa: PLC0415 - torch, where needed
    from build_engine.load.weights import load_into, read_weights  # noqa: PLC0415 - torch, where needed

    tools |= {"torch": version("torch"), "onnxscript": version("onnxscript")}
    if source.kind == "pt2":
        _no_weights(source, weights)
        if shapes:
            raise BuildError("a .pt2 program has its shapes inside", remedy="leave --input-shape out")
        path = Path(source.given)
        program = read_program(path)
        return Loaded(export_program(program, opset), path.name, hashlib.sha256(path.read_bytes()).hexdigest(), tools)
    if source.kind == "timm":
        network, size = create_timm(source.given.removeprefix("timm:"), pretrained=weights is None)
        tools["timm"] = version("timm")
        if size and not shapes:
            shapes = [InputShape(None, size)]
    else:
        network = create(*source.given.split(":"))
    if weights is not None:
        load_into(network, read_weights(weights), weights)
    return Loaded(export(network, shapes, opset), source.given, digest_of(network.state_dict()), tools)


def _no_weights(source: Source, weights: Path | None) -> None:
    if weights is not None:
        raise BuildError(f"{source.given} has its weights inside", remedy="leave --weights out")


def _plain(name: str) -> str:
    """A name that a bundle may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.")[:64] or "model"
