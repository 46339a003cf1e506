"""`python -m demo`: checkpoint, fused engine, live stream, numbers and pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from rich.console import Console

from client import ClientError
from client.arguments import positive, rate
from client.draw import mosaic
from client.table import engine_title
from demo.build import WEIGHTS, build_bundle, read_report, render_calibration
from demo.drive import FPS, Drive, drive
from demo.errors import DemoError
from demo.plot import plot_latency
from demo.serving import Serving
from demo.steps import Steps
from demo.summary import summarise, table, where_to_look


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; gives the exit code: 0 done, 2 failed with a message, 130 interrupted."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        run(options, console)
    except (DemoError, ClientError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the server has been stopped", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace, console: Console) -> None:
    """The whole demo.

    Raises:
        DemoError: A step failed.
        ClientError: Streaming failed.
    """
    output: Path = options.output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"cannot make the folder {output}: {error.strerror}\n  → name another one with -o") from None
    bundle = options.bundle or output / "bundle"
    steps = Steps(console, total=2 if options.bundle else 4)
    if not options.bundle:
        with steps.step("calibration", "Render frames to calibrate INT8 with"):
            render_calibration(steps, output / "calibration")
        with steps.step("build", "Fuse, quantize, compile and verify the trained network"):
            build_bundle(steps, options.weights, output / "calibration", bundle)
    report = read_report(bundle)
    with (
        steps.step("stream", f"Serve it, and stream six cameras for {options.seconds:g} s"),
        Serving(bundle, output / "server.log") as server,
    ):
        console.print(f"serving at {server.address}, metrics at {server.metrics}", highlight=False)
        driven = drive(server.address, options.seconds, options.fps, console)
    with steps.step("pictures", "Draw what was seen, and how long it took"):
        _draw(driven, output)
    ended = {"exit_code": server.exit_code, "stop_seconds": server.stop_seconds}
    summary = summarise(report, driven.report.summary, ended, steps.seconds)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    console.print()
    console.print(table(summary), where_to_look(output), highlight=False)


def _draw(driven: Drive, output: Path) -> None:
    started, moment = driven.report.started, driven.moment
    title = engine_title(started.engine)
    picture = mosaic(
        moment.images,
        moment.results,
        started.cameras,
        subtitle=f"{len(started.cameras)} cameras · {title}",
        labels=started.engine.labels,
    )
    if not cv2.imwrite(str(output / "mosaic.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise DemoError(f"cannot write {output / 'mosaic.png'}\n  → is there space on the disk?")
    plot_latency(started.statistics, [camera.id for camera in started.cameras], title, output / "latency.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Build the reference bundle, serve it, stream six rendered cameras, leave pictures and numbers.",
        epilog="""\
examples:
  python -m demo                              everything, into out/demo
  python -m demo --bundle out/demo/bundle     the same bundle again: only serve, stream and draw
  python -m demo --seconds 60 --fps 10        a longer and faster drive
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out/demo"), metavar="DIR", help="where to leave it (%(default)s)"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="FILE", help="checkpoint (the committed one)")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="serve this bundle, and build none")
    parser.add_argument("--seconds", type=positive, default=20.0, help="length of the drive (%(default)s)")
    parser.add_argument("--fps", type=rate, default=FPS, help="frames per second of each camera (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
