"""The command `python -m client`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from client.arguments import count, not_negative, quality, rate, whole
from client.bench.arguments import add_bench
from client.bench.command import bench
from client.command_engine import engine
from client.command_state import state
from client.command_stream import stream
from client.command_watch import watch
from client.errors import ClientError
from client.frames import ENCODINGS
from client.producer import Recipe
from client.rpc import DEFAULT_ADDRESS
from client.session import Options

EXAMPLES = """\
examples:
  python -m client stream surround                       six rendered cameras, until Ctrl-C
  python -m client stream surround:seed=7 --duration 20  another street, for 20 seconds
  python -m client stream drive/ --policy replay         every image of a folder; its subfolders are cameras
  python -m client stream drive.mp4 --save out/          a video file; annotated pictures go to out/
  python -m client stream drive.mp4 --encoding h264      the same as it is encoded; the server decodes it
  python -m client stream v4l2:/dev/video0               a camera of this machine
  python -m client stream 'gst:videotestsrc ! video/x-raw,width=640,height=384,framerate=30/1'
  python -m client watch                                 the newest results of everybody's streams
  python -m client engine                                which engine is served
  python -m client state --follow                        what the server can do, and every change of it
  python -m client bench                                 load of a known shape, and what the server made of it

the server is started with: python -m server BUNDLE
"""


NOT_COMPUTING = 1
"""The server's state is neither serving nor degraded."""
ENDED_EARLY = 130
"""A bench has shown what it had by then."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code: 0 done, 1 see `state`, 2 failed with a message, 130 interrupted."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=False)
    try:
        if asyncio.run(_command(options, console)) is False:
            return ENDED_EARLY if options.command == "bench" else NOT_COMPUTING
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


def _command(options: argparse.Namespace, console: Console) -> Coroutine[Any, Any, Any]:
    if options.command == "engine":
        return engine(options.server, console, options.wait, options.json)
    if options.command == "state":
        return state(options.server, console, options.wait, options.json, options.follow)
    if options.command == "bench":
        return bench(options, console)
    if options.command == "watch":
        return watch(options.server, options.camera, console, options.json, options.count)
    recipe = Recipe(
        spec=options.source,
        encoding=options.encoding,
        # A replay goes as fast as the server takes it, unless told otherwise.
        fps=0 if options.policy == "replay" and options.fps is None else options.fps,
        quality=options.quality,
        loop=options.loop,
        keep_images=options.save is not None or options.save_video is not None,
        clock="utc" if options.utc_error_us is not None else "monotonic",
    )
    run = Options(
        recipe=recipe,
        address=options.server,
        policy=options.policy,
        duration_seconds=options.duration,
        max_age_ns=round(options.max_age_ms * 1e6),
        priority=options.priority,
        shared_memory=options.shared_memory,
        wait_seconds=options.wait,
        clock_error_ns=round((options.utc_error_us or 0) * 1e3),
    )
    return stream(run, console, options.save, options.save_video, options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description="Stream camera frames to a Monocoque server and see what comes back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--server", default=DEFAULT_ADDRESS, metavar="HOST:PORT", help="address, or unix:/path (%(default)s)"
    )
    common = argparse.ArgumentParser(add_help=False, parents=[server])
    common.add_argument("--json", action="store_true", help="print JSON, and nothing else, to standard output")
    waiting = argparse.ArgumentParser(add_help=False)
    waiting.add_argument(
        "--wait",
        type=not_negative,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for a server that is starting",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    streaming = commands.add_parser(
        "stream",
        parents=[common, waiting],
        help="send a source's frames, show the results",
        description="Send a source's frames to a server and show a live table of what comes back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    streaming.add_argument(
        "source",
        metavar="SOURCE",
        help="surround[:seed=7,...], a folder of images, a video file or a folder of them, v4l2:/dev/videoN, "
        "or gst:PIPELINE",
    )
    streaming.add_argument(
        "--encoding",
        choices=ENCODINGS,
        default="jpeg",
        metavar="ENCODING",
        help="of the frames sent: jpeg; png; raw rgb8, bgr8, gray8, gray16, nv12, yuyv; sensor mosaics bayer_rggb8, "
        "_rggb12, _rggb12p (packed), _rggb16; h264, h265 (need `pip install 'monocoque[video]'`; video files of that "
        "encoding are sent as they are) (%(default)s)",
    )
    streaming.add_argument("--quality", type=quality, default=90, help="of JPEG, 1 to 100 (%(default)s)")
    streaming.add_argument(
        "--policy",
        choices=("live", "replay"),
        default="live",
        help="live: the freshest frame of each camera; replay: every frame, in order (%(default)s)",
    )
    streaming.add_argument(
        "--fps", type=rate, help="frames per second of each camera (the source's own, else 10; replay: unlimited)"
    )
    streaming.add_argument(
        "--duration", type=not_negative, metavar="SECONDS", help="stop after this time, from the first frame"
    )
    streaming.add_argument("--loop", action="store_true", help="begin again after the last frame")
    streaming.add_argument(
        "--max-age-ms",
        type=not_negative,
        default=0.0,
        metavar="MS",
        help="age at which an answer is of no use; such frames come back LATE (0: none)",
    )
    streaming.add_argument(
        "--shared-memory", action="store_true", help="through memory that the server shares: for a server on this host"
    )
    streaming.add_argument("--priority", type=whole, default=0, help="higher is served first (%(default)s)")
    streaming.add_argument(
        "--utc-error-us",
        type=not_negative,
        metavar="US",
        help="stamp frames with UTC, kept by PTP or NTP within this error, instead of the monotonic clock",
    )
    streaming.add_argument(
        "--save", type=Path, metavar="DIR", help="write an annotated picture of every frame, and a mosaic"
    )
    streaming.add_argument("--save-video", type=Path, metavar="FILE.mp4", help="write an annotated video")

    watching = commands.add_parser(
        "watch",
        parents=[common],
        help="show the newest results of all streams",
        description="Follow the results of everybody's streams: the newest of each camera, until Ctrl-C. A watcher "
        "that is slow misses results, and is told how many; no stream waits for it. Cameras may come later.",
    )
    watching.add_argument("camera", nargs="*", help="cameras to follow (all)")
    watching.add_argument("--count", type=count, metavar="N", help="stop after N results")

    add_bench(commands, [server, waiting])
    commands.add_parser(
        "engine",
        parents=[common, waiting],
        help="show which engine is served",
        description="Show the engine that a stream gets unless it asks for another: its digest, what runs it, labels, "
        "inputs, outputs and memory. `state` shows all engines.",
    )
    following = commands.add_parser(
        "state",
        parents=[common, waiting],
        help="show what the server and its engines can do",
        description="Show what a server can do: starting, serving, degraded (frames are computed, but something is "
        "missing), draining or failed (somebody must act), why, and the same for each of its engines.",
        epilog="exit code: 0 where frames are computed (serving, degraded), else 1; 2 where it cannot be reached",
    )
    following.add_argument("--follow", action="store_true", help="go on with every change, until the server ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
