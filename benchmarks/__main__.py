"""The benchmarks, one after the other: `python -m benchmarks [NAME...]`, as `make bench` runs them.

Each prints ratios within one run: absolute times say more about the machine than about the code. Where there is an aim,
it is printed beside what was found, met or missed. Each is a command of its own, with flags of its own:
`python -m benchmarks.stream --help`. docs/benchmarks.md says how to read them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

USUAL = {
    "fusion": "trained against fused: latency, memory, launches",
    "precision": "INT8 against FP32: latency, accuracy",
    "decode": "each encoding into the network input, against OpenCV's own way",
    "render": "frames a second of the scene renderer",
    "transport": "one raw 1080p frame by bytes and by shared memory, against a bare gRPC echo",
    "stream": "our stream against a bare gRPC stream with the engine in its handler",
    "messages": "100 kB messages without an engine, against the best bare gRPC echo",
    "overload": "six cameras at twice what the engine can do: what is kept, and how old",
    "scrape": "p99 with a scrape a second against p99 without",
    "accounting": "CPU time of ledger, encoding and metrics",
}
BY_NAME = {
    "swap": "frames lost, and p99, while an engine is swapped",
    "flags": "what affinity, real time, memory locking and spinning gain",
    "peers": "Triton and the KServe SDK beside ours; installs them first, 1 GB",
    "soak": "memory and descriptors over a million frames: seven minutes",
    "cost": "whether the fuser's cost model orders what it decides between as the runtimes do",
    "deploy_forms": "fused against the form that each family's authors deploy",
    "memory": "memory of fusing a large model",
    "real_models": "models that people run, fused, quantized, compiled",
    "preprocessing": "accuracy of large frames, by the kernel that brings them to the network's size",
    "search": "how long the search over an accuracy budget takes on 30 layers",
    "classifier": "INT8 of a classifier in RepVGG's or QARepVGG's form, trained here",
    "backbones": "what re-parameterization buys on the reference task: trains for hours",
    "train_forms": "INT8 of the reference network in RepVGG's and QARepVGG's form: trains for half an hour",
}


def main() -> int:
    """Run them; the first that fails ends it."""
    listed = [f"  {name:<13} {what}" for name, what in USUAL.items()]
    listed += ["", "by name only:", *(f"  {name:<13} {what}" for name, what in BY_NAME.items())]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["without a name, about six minutes on two cores:", *listed]),
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="which to run, in this order")
    names = parser.parse_args().name
    if unknown := [name for name in names if name not in USUAL | BY_NAME]:
        parser.error(f"{', '.join(unknown)} is none of {', '.join(USUAL | BY_NAME)}")
    for name in names or USUAL:
        print(f"\n── {name}: {(USUAL | BY_NAME)[name]} ──", flush=True)
        if code := subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
