"""`python -m build_engine`: from a trained model to a verified engine bundle."""

from __future__ import annotations

import argparse
import errno
import json
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

try:
    from build_engine import arguments, summary
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed\n  → pip install 'monocoque[build]'")
from build_engine.errors import BuildError
from build_engine.progress import Bars
from engine.bundle import Bundle
from engine.errors import EngineError

USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 an engine disagrees with its reference, 2 something that was given cannot be used.
    """
    given = arguments.parser().parse_args(argv)
    commands = {"build": _build, "fuse": _fuse, "inspect": _inspect, "verify": _verify}
    try:
        return commands[given.command](given)
    except (BuildError, EngineError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        what, remedy = error.filename or getattr(given, "output", None), "check the path, its permissions and the disk"
        if error.errno == errno.ENOSPC:
            remedy = "make room there, or write elsewhere with -o; nothing was left behind"
        print(f"error: {what}: {error.strerror}\n  → {remedy}" if what else f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            "stopped; nothing was written. What a search measured is kept: the same command goes on from there",
            file=sys.stderr,
        )
    return USER_ERROR


def _build(given: argparse.Namespace) -> int:
    from build_engine.pipeline import build  # noqa: PLC0415 - `--help` should not wait for ONNX

    options = arguments.build_options(given)
    with Bars() as bars:
        built = build(options, bars)
    summary.print_built(built)
    return 0


def _fuse(given: argparse.Namespace) -> int:
    from build_engine.fuse_command import fuse_file  # noqa: PLC0415 - likewise

    with Bars() as bars:
        fused = fuse_file(arguments.fuse_request(given), bars)
    if given.html is not None:
        given.html.write_text(fused.page())
    if given.json:
        print(json.dumps(fused.to_dict(), indent=2))
    else:
        from build_engine.fuse_summary import print_fused  # noqa: PLC0415 - likewise

        print_fused(fused)
    return 0


def _inspect(given: argparse.Namespace) -> int:
    bundle = Bundle.open(given.bundle)
    if given.json:
        sys.stdout.write(bundle.manifest.to_bytes().decode())
    else:
        summary.print_bundle(bundle)
    return 0


def _verify(given: argparse.Namespace) -> int:
    from build_engine.verify import check_bundle  # noqa: PLC0415 - likewise

    bundle = Bundle.open(given.bundle)
    console = Console()
    console.print(f"[green]✓[/] {len(bundle.names)} files match their digests", highlight=False)
    marks = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]–[/]"}
    outcomes = check_bundle(bundle, given.target)
    for outcome in outcomes:
        text = outcome.message if outcome.passed is not None else f"cannot run here: {outcome.message}"
        console.print(f"{marks[outcome.passed]} {outcome.target}: {text}", highlight=False, soft_wrap=True)
    return 1 if any(outcome.passed is False for outcome in outcomes) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was half-written is removed
    sys.exit(main())
