"""Every benchmark, one after the other: `python -m benchmarks [BUNDLE]`, as `make bench` runs it.

Each prints ratios within one run: absolute times say more about the machine than about the code.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = {
    "fusion": "trained against fused: latency, memory, launches",
    "precision": "INT8 against FP32: latency, accuracy",
    "render": "frames a second of the scene renderer",
    "transport": "one raw 1080p frame by bytes and by shared memory, against a bare gRPC echo",
    "stream": "round trip through the server against the bare runtime; six cameras at full rate",
}
NEEDS_BUNDLE = {"stream"}


def main() -> int:
    """Run them; the first that fails ends it."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<10} {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument("bundle", nargs="?", default="out/demo/bundle", help="bundle to serve (default: %(default)s)")
    arguments = parser.parse_args()
    if not Path(arguments.bundle).exists():
        print(f"no bundle at {arguments.bundle}\n  → make demo", file=sys.stderr)
        return 2
    for name, what in BENCHMARKS.items():
        print(f"\n── {name}: {what} ──", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if name in NEEDS_BUNDLE:
            command.append(arguments.bundle)
        if code := subprocess.run(command, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
