"""Command line of the reference model: render frames, train on them, evaluate."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import track
from rich.table import Table

from surround.canvas import Image
from surround.dataset import SPLITS, render_split
from surround.overlay import draw_truth, mosaic
from surround.source import open_source

USER_ERROR = 2
WEIGHTS = Path(__file__).with_name("weights") / "surround.safetensors"

_EXAMPLES = """\
examples:
  python -m surround render                             six labelled cameras to out/render/mosaic.png
  python -m surround render --source town=old_town,seed=3,weather=rain
  python -m surround render -o out/calibration --frames 200 --split train
                                                        plain frames, for calibration
  python -m surround evaluate                           score the committed weights on 600 held-out frames
  python -m surround train                              train from nothing (about 40 minutes, two cores)
"""
_RENDER = """\
examples:
  python -m surround render
  python -m surround render --source town=suburb,seed=5,size=1920x1080 --at 2.5
  python -m surround render -o out/calibration --frames 200 --split train
"""
_EVALUATE = """\
examples:
  python -m surround evaluate
  python -m surround evaluate --weights out/surround/latest.safetensors --split validation --frames 240
  python -m surround evaluate --json out/metrics.json
"""
_TRAIN = """\
examples:
  python -m surround train                   resumes where an interrupted run stopped
  python -m surround train --fresh --seed 2
  python -m surround train --form qarepvgg -o out/qarepvgg                         quantizes more easily
  python -m surround train --small-steps 60 --steps 20 --frames 240 -o out/try     a try of a minute

Rendered frames take 9.6 GB in the output folder. The committed weights took 40 minutes of training on two cores
with AVX512-BF16, which computes bfloat16 2.3 times as fast as float32; glibc's allocator was told to keep its
memory (MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=16000000000), which spares it page faults.
"""


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m surround", description=__doc__, epilog=_EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    render = commands.add_parser(
        "render", help="write frames to look at or to calibrate with", epilog=_RENDER, formatter_class=raw
    )
    render.add_argument("-o", "--output", type=Path, default=Path("out/render"), help="folder (default: %(default)s)")
    render.add_argument(
        "--source", default="", metavar="SPEC", help="street of the mosaic, for example town=suburb,seed=5"
    )
    render.add_argument(
        "--at", type=float, default=1.0, metavar="SECONDS", help="time of the mosaic (default: %(default)s)"
    )
    render.add_argument("--plain", action="store_true", help="leave the ground truth out of the mosaic")
    render.add_argument("--frames", type=_count, metavar="N", help="write N frames of a split instead of a mosaic")
    render.add_argument(
        "--split", choices=sorted(SPLITS), default="train", help="split of --frames (default: %(default)s)"
    )
    evaluate = commands.add_parser(
        "evaluate", help="score weights on rendered frames", epilog=_EVALUATE, formatter_class=raw
    )
    evaluate.add_argument(
        "--weights", type=Path, default=WEIGHTS, metavar="FILE", help="safetensors (default: the committed ones)"
    )
    evaluate.add_argument("--frames", type=_count, default=600, metavar="N", help="how many (default: %(default)s)")
    evaluate.add_argument("--split", choices=sorted(SPLITS), default="heldout", help="which (default: %(default)s)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the metrics here")
    train = commands.add_parser("train", help="train the network", epilog=_TRAIN, formatter_class=raw)
    train.add_argument(
        "-o", "--output", type=Path, default=Path("out/surround"), help="frames and checkpoint (default: %(default)s)"
    )
    train.add_argument(
        "--weights", type=Path, metavar="FILE", help="finished weights (default: OUTPUT/surround.safetensors)"
    )
    train.add_argument(
        "--frames", type=_count, default=12_000, metavar="N", help="rendered frames (default: %(default)s)"
    )
    train.add_argument(
        "--small-steps", type=int, default=2400, metavar="N", help="steps at 320x192, batch 32 (default: %(default)s)"
    )
    train.add_argument(
        "--steps", type=_count, default=4000, metavar="N", help="steps at 640x384, batch 8 (default: %(default)s)"
    )
    train.add_argument("--seed", type=int, default=1, help="scenes, weights and batches (default: %(default)s)")
    train.add_argument(
        "--form",
        choices=("repvgg", "qarepvgg"),
        default="repvgg",
        help="of the blocks; build qarepvgg from surround.model:deployed_qarepvgg (default: %(default)s)",
    )
    train.add_argument("--float32", action="store_true", help="compute in float32 instead of bfloat16")
    train.add_argument("--fresh", action="store_true", help="ignore the checkpoint and start over")
    return parser


def _count(text: str) -> int:
    """A number of frames or steps, at least 1.

    Raises:
        ValueError: It is less.
    """
    if (count := int(text)) < 1:
        raise ValueError
    return count


_count.__name__ = "number of 1 or more"  # argparse puts it into its message


def _write(path: Path, image: Image) -> None:
    """Write a picture (H, W, 3) RGB; OpenCV itself says nothing when the disk refuses."""
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _render(arguments: argparse.Namespace) -> None:
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.frames:
        samples = render_split(arguments.split, 0, arguments.frames)
        for n, sample in enumerate(track(samples, "render", total=arguments.frames)):
            _write(arguments.output / f"{n:05d}.png", sample.frame.image)
        print(f"{arguments.frames} frames of {arguments.split} in {arguments.output}")
        return
    spec = ",".join(filter(None, (arguments.source, f"fps={1 / arguments.at if arguments.at > 0 else 30}", "frames=2")))
    source = open_source(spec)
    steps = source.frames()
    _, images = next(steps)
    if arguments.at > 0:
        _, images = next(steps)
    if not arguments.plain:
        images = {name: draw_truth(image, source.truth[name]) for name, image in images.items()}
    path = arguments.output / "mosaic.png"
    _write(path, mosaic(images))
    print(path)


def _evaluate(arguments: argparse.Namespace) -> None:
    from surround.evaluate import choose_threshold, collect, score_threshold, summarise  # noqa: PLC0415
    from surround.torch_run import TorchRun  # noqa: PLC0415

    if arguments.json:  # minutes before it is written
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        is_new = not arguments.json.exists()
        arguments.json.open("a").close()
        if is_new:  # nothing is left where it ends early
            arguments.json.unlink()
    run = TorchRun(arguments.weights)
    with_bar = track(render_split(arguments.split, 0, arguments.frames), "evaluate", total=arguments.frames)
    answers = collect(run, iter(with_bar))
    threshold = score_threshold()
    result = summarise(answers, threshold)
    table = Table("metric", "value", title=f"{arguments.frames} {arguments.split} frames, {arguments.weights.name}")
    for name, value in result.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    if arguments.split == "validation":
        best, f1 = choose_threshold(answers)
        print(f"best F1 {f1:.3f} at score threshold {best:.3f} (in use: {threshold})")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def _train(arguments: argparse.Namespace) -> None:
    from surround.train import Phase, Plan, train  # noqa: PLC0415

    phases = (Phase(arguments.small_steps, (320, 192), 32), Phase(arguments.steps, (640, 384), 8))
    plan = Plan(phases, arguments.frames, arguments.seed, bfloat16=not arguments.float32, form=arguments.form)
    weights = arguments.weights or arguments.output / "surround.safetensors"
    trainer = train(plan, arguments.output, weights, arguments.fresh)
    print(f"{plan.steps} steps in {trainer.seconds / 60:.1f} minutes; weights in {weights}")
    print(f"next: python -m surround evaluate --weights {weights}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 2 something that was given cannot be used.
    """
    arguments = _parser().parse_args(argv)
    try:
        {"render": _render, "evaluate": _evaluate, "train": _train}[arguments.command](arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error}\n  → check the path, its permissions and the disk", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed\n  → pip install 'monocoque[build]'", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; a training run goes on from its last checkpoint with the same command", file=sys.stderr)
    else:
        return 0
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
