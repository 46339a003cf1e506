"""The arguments of `python -m client bench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from client.arguments import not_negative, positive, quality, real, whole
from client.frames import ENCODINGS

SCENARIOS = ("constant-stream", "single-stream", "overload")

EXAMPLES = """\
examples:
  python -m client bench                                     six cameras at 30 frames/s, the engine's own frame size
  python -m client bench single-stream                       one frame at a time: the round trip
  python -m client bench overload --factor 2                 twice what the engine can compute: what is kept, how old
  python -m client bench --cameras 1,2,4,6 --rate 10,30      a grid: eight runs, one table
  python -m client bench --encoding jpeg,nv12,rgb8           mixed: the cameras take the encodings in turn
  python -m client bench --size 1920x1080 --encoding rgb8    raw 1080p
  python -m client bench --source surround --plot out.png    rendered streets; picture of the distribution
  python -m client bench single-stream --loadgen out/logs    under MLCommons' LoadGen, with its logs

how to read it:
  constant-stream  every camera offers frames at a fixed rate, whatever the server does (open loop). Latency counts from
                   when a frame was due. 'computed' are the frames that came back with numbers; 'all' is every frame
                   offered, infinite where it was replaced by a newer one, late, failed or never answered.
  single-stream    the next frame goes when the last answer is back (MLPerf). No queue, so no drops: the round trip.
  overload         measures what the engine computes when it always has the next frame, then offers FACTOR times that.
                   A good server computes as many as before, and its ages stay bounded.
Ctrl-C ends the run and shows what was measured until then; a second one ends it at once.
"""


def add_bench(commands: Any, parents: list[argparse.ArgumentParser]) -> None:  # noqa: ANN401 - argparse's own is private
    """Add the command.

    Args:
        commands: What `add_subparsers` gave.
        parents: Arguments that all commands share: `--server`, `--wait`.
    """
    parser = commands.add_parser(
        "bench",
        parents=parents,
        help="offer load, measure latency, age and drops",
        description="Offer frames at a fixed rate and measure what the server makes of them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario", nargs="?", choices=SCENARIOS, default="constant-stream", help="which load (%(default)s)"
    )
    parser.add_argument(
        "--cameras", type=_counts, default=[6], metavar="N[,N...]", help="cameras; several: one run each (6)"
    )
    parser.add_argument(
        "--rate", type=_rates, default=[30.0], metavar="HZ[,HZ...]", help="frames per second of each camera (30)"
    )
    parser.add_argument("--seconds", type=positive, default=10.0, metavar="S", help="length of each run (%(default)g)")
    parser.add_argument(
        "--warm-up",
        type=not_negative,
        default=1.0,
        metavar="S",
        help="before the first run, not counted (%(default)g)",
    )
    parser.add_argument(
        "--encoding",
        type=_encodings,
        default=["jpeg"],
        metavar="NAME[,NAME...]",
        help=f"of the frames; several: the cameras take them in turn: {', '.join(ENCODINGS)} (jpeg)",
    )
    parser.add_argument("--size", type=_size, metavar="WxH", help="of the frames (the engine's input)")
    parser.add_argument("--quality", type=quality, default=90, help="of JPEG, 1 to 100 (%(default)s)")
    parser.add_argument("--source", metavar="SOURCE", help="pictures of a source, as `client stream` takes it (drawn)")
    parser.add_argument(
        "--prefix",
        default="bench",
        metavar="NAME",
        help="begins the cameras' ids; each of several generators at one server needs its own (%(default)s)",
    )
    parser.add_argument("--factor", type=positive, default=2.0, help="overload: times the capacity (%(default)g)")
    parser.add_argument(
        "--together", action="store_true", help="all shutters open at once (spread evenly over the period)"
    )
    parser.add_argument(
        "--policy",
        choices=("live", "replay"),
        default="live",
        help="live: the freshest frame of each camera; replay: every frame, however late (%(default)s)",
    )
    parser.add_argument(
        "--max-age-ms",
        type=not_negative,
        default=0.0,
        metavar="MS",
        help="age at which an answer is of no use (0: none)",
    )
    parser.add_argument(
        "--shared-memory",
        action="store_true",
        help="frames go through memory that the server shares, where it runs on this host",
    )
    parser.add_argument("--loadgen", type=Path, metavar="DIR", help="single-stream: let MLCommons' LoadGen time it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there: .png, .svg or .pdf")


def _counts(text: str) -> list[int]:
    values = [whole(part) for part in text.split(",")]
    if not all(1 <= value <= 1024 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: cameras are 1 to 1024")
    return values


def _rates(text: str) -> list[float]:
    values = [real(part) for part in text.split(",")]
    if not all(0 < value <= 10_000 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: a rate is between 0 and 10000 frames per second")
    return values


def _encodings(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in ENCODINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(ENCODINGS)}")
    return names


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no size; write it as 1920x1080") from None
    if min(width, height) < 1 or max(width, height) > 16384:
        raise argparse.ArgumentTypeError(f"{text}: sides are 1 to 16384 pixels")
    return width, height
