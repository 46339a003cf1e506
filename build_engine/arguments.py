"""The command line: what can be typed, with the defaults of `BuildOptions`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any, get_args

from build_engine.camera_input import CameraInput, Color
from build_engine.errors import BuildError
from build_engine.load.free import parse_dimension
from build_engine.load.shapes import parse_shape
from build_engine.options import BuildOptions, FuseRequest, RemoveResiduals
from build_engine.quantize.calibration import METHODS
from engine.manifest import Precision, Target

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(BuildOptions)}

_EXAMPLES = """\
examples:
  a PyTorch detector that takes camera frames, in INT8 for this CPU and for NVIDIA RTX GPUs:
    python -m build_engine build shop.models:detector --weights detector.safetensors \\
        --input-shape 1,3,384,640 --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4 --color rgb \\
        --precision int8 --calibration-data frames/ --target cpu --target rtx -o out/detector

  any ONNX model, its inputs and outputs as they are:
    python -m build_engine build model.onnx -o out/model

  a model of sequences, up to 512 long and mostly 128:
    python -m build_engine build text.onnx --dimension length=1:128:512 -o out/text

  what fusion alone does to a model:
    python -m build_engine fuse trained.onnx -o fused.onnx

  what a bundle is, and whether it still computes what it should:
    python -m build_engine inspect out/detector
    python -m build_engine verify out/detector
"""


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Examples as they are written, and every default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """The parser of `python -m build_engine`."""
    top = argparse.ArgumentParser(
        prog="python -m build_engine",
        description="Turns a trained camera network into a verified engine bundle: fuses its branches, lowers its "
        "precision, compiles it.",
        epilog=_EXAMPLES,
        formatter_class=_Help,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="build | fuse | inspect | verify")
    _add_build(commands)
    _add_fuse(commands)
    inspect = commands.add_parser("inspect", help="show what a bundle is", formatter_class=_Help)
    inspect.add_argument("bundle", type=Path, metavar="BUNDLE")
    inspect.add_argument("--json", action="store_true", help="print the manifest as JSON")
    verify = commands.add_parser(
        "verify",
        help="check a bundle's digests and run its reference cases here",
        formatter_class=_Help,
        description="Exit code 0: everything that can run here agrees. 1: an engine disagrees. 2: the bundle cannot be "
        "used, or the target that was asked for cannot be had.",
    )
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument("--target", choices=get_args(Target), help="this target only; it must be available")
    return top


def _add_fuse(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    fuse = commands.add_parser(
        "fuse",
        help="fuse a model and write it as ONNX",
        formatter_class=_Help,
        description="Weights of more than 1 GiB are written to OUT.onnx.data beside the model.",
    )
    fuse.add_argument("model", metavar="MODEL", help="x.onnx, x.pt2, package.module:factory or timm:name")
    fuse.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx")
    fuse.add_argument("--json", action="store_true", help="print the report as JSON (schema: docs/fusion.md)")
    fuse.add_argument("--html", type=Path, metavar="FILE.html", help="draw the report")
    _add_model(fuse)
    fuse.add_argument(
        "--target", choices=get_args(Target), default=FuseRequest.target, help="whose cost model decides what to fuse"
    )
    _add_remove_residuals(fuse)
    fuse.add_argument(
        "--no-verify", action="store_true", help="do not run both graphs to compare them (it takes the most memory)"
    )
    _add_measuring(fuse)


def _add_model(group: Any) -> None:  # noqa: ANN401 - likewise
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help=".safetensors, .pt or .pth, for package.module:factory and timm; nothing in it is executed",
    )
    group.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]N,C,H,W",
        help="shape of an input, batch first; once per input. The batch stays free",
    )
    group.add_argument("--opset", type=int, metavar="N", help="ONNX operator set (exports: 18; files keep theirs)")


def _add_build(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    build = commands.add_parser(
        "build", help="build an engine bundle from a trained model", formatter_class=_Help, epilog=_EXAMPLES
    )
    build.add_argument("model", metavar="MODEL", help="x.onnx, x.pt2, package.module:factory or timm:name")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="directory, or x.zip")

    _add_model(build.add_argument_group("the model"))

    camera = build.add_argument_group(
        "camera frames",
        "Given mean, std and colour order, the engine takes uint8 frames, height x width x channels; without them the "
        "model's own inputs stay as they are.",
    )
    camera.add_argument("--mean", metavar="R,G,B", help="per channel, on the 0..255 scale (not 0..1)")
    camera.add_argument("--std", metavar="R,G,B", help="per channel, on the 0..255 scale (not 0..1)")
    camera.add_argument("--color", choices=get_args(Color), help="channel order the network was trained on")
    camera.add_argument(
        "--resize",
        choices=("letterbox", "stretch", "crop"),
        default=_DEFAULTS["resize"],
        help="how a frame of another size is fitted",
    )
    camera.add_argument(
        "--postprocess",
        type=Path,
        metavar="FILE.json",
        help="which outputs are scores, classes, boxes and distances, and the class names; then the "
        "server answers detections instead of tensors",
    )

    precision = build.add_argument_group("precision")
    precision.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=_DEFAULTS["precision"],
        help="what is served; the float graph is in every bundle. bf16 is for NVIDIA GPUs from compute capability 8.0 "
        "on, fp8 from 8.9 on",
    )
    precision.add_argument(
        "--calibration-data",
        type=Path,
        metavar="DIR",
        help="frames for INT8 and FP8 (32 to 500, no labels), or .npz files with one array per input; they "
        "also serve to verify, to measure and as reference",
    )
    precision.add_argument(
        "--calibration-frames",
        type=int,
        default=_DEFAULTS["calibration_frames"],
        metavar="N",
        help="most samples used, evenly spaced",
    )
    precision.add_argument(
        "--calibration-method",
        choices=METHODS,
        help="how a tensor's 8-bit range is chosen (default: all are measured, the best is taken)",
    )
    precision.add_argument(
        "--max-accuracy-drop",
        type=float,
        metavar="POINTS",
        help="most that lower precision may cost, in points of 100 of --metric (or of agreement with FP32 without "
        "one); layers that cost more stay in FP16 or FP32. Without it everything is quantized and the cost reported",
    )
    precision.add_argument(
        "--search-cache",
        type=Path,
        metavar="DIR",
        help="where the search for those layers keeps what it measured, to go on after an interruption and to answer "
        "another budget at once (default: ~/.cache/monocoque/precision)",
    )
    precision.add_argument(
        "--metric",
        metavar="MODULE:FUNCTION",
        help="measures accuracy per precision: takes run(batch) -> outputs by name, returns numbers by name",
    )
    precision.add_argument(
        "--metric-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="keyword argument for the metric, for example frames=120",
    )
    precision.add_argument(
        "--tolerance",
        type=float,
        metavar="E",
        help="fail if an output of the fused graph is off by more than E of its largest value "
        "(default: 2.5 times the unfused graph's own rounding)",
    )

    fusion = build.add_argument_group("fusion")
    _add_remove_residuals(fusion)

    bundle = build.add_argument_group("the bundle")
    bundle.add_argument(
        "--target",
        action="append",
        choices=get_args(Target),
        help="where it will run; repeat for several (default: cpu)",
    )
    bundle.add_argument("--max-batch", type=int, default=_DEFAULTS["max_batch"], metavar="N", help="largest batch")
    bundle.add_argument(
        "--dimension",
        action="append",
        default=[],
        metavar="NAME=[[MIN:]USUAL:]LARGEST",
        help="a dimension besides the batch that every request chooses, such as height, width or length: "
        "length=1:128:512 serves 1 to 512, is measured with 128, and TensorRT's plan is tuned for it; without MIN it "
        "is 1, without USUAL the largest; repeat for several",
    )
    bundle.add_argument("--name", help="name of the bundle (default: the model's)")
    bundle.add_argument("--version", default=_DEFAULTS["version"], help="version of the bundle")
    _add_measuring(bundle)


def _add_remove_residuals(group: Any) -> None:  # noqa: ANN401 - likewise
    group.add_argument(
        "--remove-residuals",
        choices=get_args(RemoveResiduals),
        default=_DEFAULTS["remove_residuals"],
        help="turn trained shortcuts relu(F(x) + x) into a plain chain of wider convolutions, exactly; auto: only "
        "if that is measured to be faster and takes no more memory",
    )


def _add_measuring(group: Any) -> None:  # noqa: ANN401 - likewise
    group.add_argument(
        "--latency-seconds",
        type=float,
        default=_DEFAULTS["latency_seconds"],
        metavar="S",
        help="time spent measuring each graph at each batch size; 0 measures nothing",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=_DEFAULTS["threads"],
        metavar="N",
        help="threads of one inference while measuring",
    )


def fuse_request(given: argparse.Namespace) -> FuseRequest:
    """What was typed, as a request.

    Raises:
        BuildError: A value is not what its option takes.
    """
    if given.threads < 1:
        raise BuildError("--threads is at least 1", remedy="leave it out for the default")
    _check_seconds(given.latency_seconds)
    if given.html is not None and given.html.is_dir():
        raise BuildError(f"--html {given.html} is a folder", remedy="write --html report.html")
    if given.html is not None and not given.html.parent.is_dir():
        raise BuildError(f"no folder {given.html.parent}", remedy=f"mkdir -p {shlex.quote(str(given.html.parent))}")
    return FuseRequest(
        model=given.model,
        output=given.output,
        weights=given.weights,
        input_shapes=tuple(parse_shape(text) for text in given.input_shape),
        opset=given.opset,
        target=given.target,
        remove_residuals=given.remove_residuals,
        verify=not given.no_verify,
        latency_seconds=given.latency_seconds,
        threads=given.threads,
    )


def build_options(given: argparse.Namespace) -> BuildOptions:
    """What was typed, as options.

    Raises:
        BuildError: A value is not what its option takes.
    """
    if given.max_batch < 1 or given.threads < 1 or given.calibration_frames < 1:
        raise BuildError(
            "--max-batch, --threads and --calibration-frames are at least 1", remedy="leave them out for the defaults"
        )
    _check_seconds(given.latency_seconds)
    if given.max_accuracy_drop is not None and not 0 <= given.max_accuracy_drop <= 100:
        raise BuildError(
            f"--max-accuracy-drop {given.max_accuracy_drop:g} is no number of points",
            remedy="give points of 100 that may be lost, for example --max-accuracy-drop 0.3",
        )
    if given.max_accuracy_drop is not None and given.precision == "fp32":
        raise BuildError(
            "--max-accuracy-drop without lower precision: FP32 loses nothing",
            remedy="add --precision int8 or --precision fp16",
        )
    return BuildOptions(
        model=given.model,
        output=given.output,
        weights=given.weights,
        input_shapes=tuple(parse_shape(text) for text in given.input_shape),
        precision=given.precision,
        calibration_data=given.calibration_data,
        calibration_frames=given.calibration_frames,
        calibration_method=given.calibration_method,
        max_accuracy_drop=given.max_accuracy_drop,
        search_cache=given.search_cache,
        targets=tuple(dict.fromkeys(given.target)) if given.target else BuildOptions.targets,
        camera=_camera(given),
        resize=given.resize,
        postprocess=given.postprocess,
        remove_residuals=given.remove_residuals,
        name=given.name,
        version=given.version,
        max_batch=given.max_batch,
        dimensions=dict(parse_dimension(text) for text in given.dimension),
        metric=given.metric,
        metric_args=dict(_argument(text) for text in given.metric_arg),
        opset=given.opset,
        tolerance=given.tolerance,
        latency_seconds=given.latency_seconds,
        threads=given.threads,
    )


def _check_seconds(seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise BuildError(f"--latency-seconds {seconds:g} is no time", remedy="give seconds, or 0 to measure nothing")


def _camera(given: argparse.Namespace) -> CameraInput | None:
    options = {"--mean": given.mean, "--std": given.std, "--color": given.color}
    missing = [name for name, value in options.items() if value is None]
    if len(missing) == len(options):
        return None
    if missing:
        raise BuildError(
            f"{', '.join(set(options) - set(missing))} without {', '.join(missing)}",
            remedy="give --mean, --std and --color together, as the network was trained, or none of them",
        )
    mean, std = _numbers("--mean", given.mean), _numbers("--std", given.std)
    if max(std) <= 1 and max(mean) <= 1:
        raise BuildError(
            f"--mean {given.mean} --std {given.std} look like the 0..1 scale",
            remedy=f"multiply by 255: --mean {','.join(f'{255 * m:.6g}' for m in mean)} "
            f"--std {','.join(f'{255 * s:.6g}' for s in std)}",
        )
    return CameraInput(given.color, mean, std)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BuildError(
            f"{option} {text!r} is no list of numbers", remedy=f"write {option} 123.7,116.3,103.5"
        ) from None


def _argument(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise BuildError(f"--metric-arg {text!r} has no '='", remedy="write --metric-arg frames=120")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
