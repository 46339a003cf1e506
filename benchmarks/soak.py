"""Whether anything grows: many small frames, some large ones, streams that open and close all the time.

    python -m benchmarks.soak                               a million small frames, 10,000 large ones: seven minutes
    python -m benchmarks.soak --frames 100000 --large 2000  a tenth of it
    python -m benchmarks.soak --plot out/soak.png --json out/soak.json

After each chunk of frames, with nothing in flight, all our processes are looked at twice: the server and the client,
which is this one. First as they are: PSS counts shared pages once over all processes, so their sum is what the machine
has lost. Then what is in use: without garbage, without the free memory that the allocator keeps for the next frames
(both are given back for this look), and without libraries, whose share changes with who else has them open. Growth is
of what is in use; PSS must not pass the peak of its first half by more than a tenth. Streams end in three ways in turn:
finished, closed with frames on their way, and left by their connection; large frames go as bytes and through shared
memory in turn. The slope is the median of the slopes between all pairs of samples (Theil and Sen) but the first fifth.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import client
from benchmarks.serving import Running, machine, python, verdict
from benchmarks.soak_server import trim
from benchmarks.tiny_engine import write_tiny_bundle

AIM_MB = 1.0
"""Growth of what is in use, per 100,000 frames."""
PEAK_AIM = 1.1
"""Peak PSS of the second half over the first's."""
WARM_UP_SHARE = 0.2
CHUNKS = 50
SETTLE_SECONDS = 0.1
LOOKS = 3
"""Of which the least counts: the last stream may still be closing."""
CAMERAS = 4
SMALL, LARGE = (32, 16), (1920, 1080)
FRAMES_PER_STREAM = {"small": 500, "large": 40}
ENDINGS = ("finished", "closed", "disconnected")


@dataclass(frozen=True)
class Sample:
    """What all our processes hold at one moment.

    Attributes:
        phase: `small` or `large`.
        frames: Frames answered in this phase so far.
        seconds: Since the start.
        pss_mb: Of each process, as it is.
        used_mb: Anonymous and shared memory, once the allocator has given back what is free.
        shared_mb: The part of it in shared memory.
        descriptors: Open files, sockets and regions of each process.
    """

    phase: str
    frames: int
    seconds: float
    pss_mb: dict[str, float]
    used_mb: dict[str, float]
    shared_mb: dict[str, float]
    descriptors: dict[str, int]


def look(processes: dict[str, int], phase: str, frames: int, started: float) -> Sample:
    """Sample the processes: as they are, then without the allocator's free memory. proc(5): fd."""
    pss = {name: _sizes_mb(pid)["Pss"] for name, pid in processes.items()}
    looks = []
    for _ in range(LOOKS):
        os.kill(processes["server"], signal.SIGUSR1)
        trim()
        time.sleep(SETTLE_SECONDS)
        looks.append({name: _sizes_mb(pid) for name, pid in processes.items()})
    sizes = {name: min((one[name] for one in looks), key=lambda found: found["Pss_Anon"]) for name in processes}
    return Sample(
        phase=phase,
        frames=frames,
        seconds=time.monotonic() - started,
        pss_mb=pss,
        used_mb={name: found["Pss_Anon"] + found["Pss_Shmem"] for name, found in sizes.items()},
        shared_mb={name: found["Pss_Shmem"] for name, found in sizes.items()},
        descriptors={name: sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for name, pid in processes.items()},
    )


def _sizes_mb(pid: int) -> dict[str, float]:
    """proc(5): smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {key.rstrip(":"): int(value) / 1024 for key, value, *_ in map(str.split, lines)}


class Load:
    """Streams of one kind of frames, one after the other.

    Args:
        address: To whom.
        phase: `small` or `large`.
    """

    def __init__(self, address: str, phase: str) -> None:
        self._address = address
        self._phase = phase
        width, height = SMALL if phase == "small" else LARGE
        self._cameras = [client.Camera(f"camera_{number}", width, height, "rgb8") for number in range(CAMERAS)]
        self._pixels = np.full((height, width, 3), 127, np.uint8)
        self._endings = itertools.cycle(ENDINGS)
        self._shared = itertools.cycle((False, True) if phase == "large" else (False,))
        self.answered = 0

    async def send(self, frames: int) -> None:
        """Send so many frames, over as many streams as that takes."""
        while frames > 0:
            count = min(frames, FRAMES_PER_STREAM[self._phase])
            async with client.connect(self._address) as connection:
                await self._stream(connection, count, next(self._endings))
            frames -= count

    async def _stream(self, connection: client.Connection, count: int, ending: str) -> None:
        shared = next(self._shared)
        async with connection.stream(self._cameras, policy="replay", shared_memory=shared) as stream:
            left = count

            async def read() -> None:
                nonlocal left
                async for result in stream:
                    if result.status != "ok":
                        raise SystemExit(f"a frame was answered {result.status}: {result.reason}")
                    left -= 1
                    self.answered += 1

            reading = asyncio.ensure_future(read())
            try:
                for number in range(count):
                    await stream.send(client.Frame(self._cameras[number % CAMERAS].id, self._pixels))
                if ending == "finished":
                    await stream.finish()
                    await reading
                elif ending == "disconnected":
                    await connection.__aexit__(None, None, None)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


async def measure(running: Running, small: int, large: int, file: IO[str]) -> None:
    """Both phases, a sample after each chunk: to a file, since this process is one of those that must not grow."""
    processes = {"server": running.pid, "client": os.getpid()}
    started = time.monotonic()
    with Progress() as progress:
        for phase, total in (("small", small), ("large", large)):
            if not total:
                continue
            task = progress.add_task(f"{phase} frames", total=total)
            load = Load(running.address, phase)
            sent = 0
            for number in range(CHUNKS):
                chunk = total * (number + 1) // CHUNKS - sent
                await load.send(chunk)
                sent += chunk
                progress.update(task, completed=sent)
                await asyncio.sleep(SETTLE_SECONDS)  # for the server to close the last stream
                file.write(json.dumps(asdict(look(processes, phase, sent, started))) + "\n")


def slope(points: list[tuple[float, float]]) -> float:
    """Median slope between all pairs of points (Theil 1950, Sen 1968)."""
    slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in itertools.combinations(points, 2) if x1 != x0]
    return statistics.median(slopes) if slopes else 0.0


def peak_of_halves(values: list[float]) -> tuple[float, float]:
    """The largest of the first half, and of the second."""
    middle = max(1, len(values) // 2)
    return max(values[:middle]), max(values[middle:] or values)


def settled(samples: list[Sample], phase: str) -> list[Sample]:
    """A phase's samples after its warm-up."""
    found = [sample for sample in samples if sample.phase == phase]
    return found[int(len(found) * WARM_UP_SHARE) :]


def report(console: Console, samples: list[Sample]) -> dict[str, float]:
    """Print the table and the verdicts; returns growth per 100,000 frames by phase, MB."""
    table = Table(title=f"after warm-up; growth in MB per 100,000 frames; {machine()}", title_justify="left")
    table.add_column("frames", no_wrap=True)
    for name in ("process", "PSS peak MB, halves", "in use MB", "growth", "shared", "files"):
        table.add_column(name, justify="right", no_wrap=True)
    growth = {}
    for phase in dict.fromkeys(sample.phase for sample in samples):
        kept = settled(samples, phase)
        for name in kept[0].pss_mb:
            peaks = peak_of_halves([sample.pss_mb[name] for sample in kept])
            counts = [sample.descriptors[name] for sample in kept]
            table.add_row(
                f"{kept[-1].frames} {phase}",
                name,
                f"{peaks[0]:.0f}, {peaks[1]:.0f}",
                f"{kept[-1].used_mb[name]:.1f}",
                f"{1e5 * slope([(sample.frames, sample.used_mb[name]) for sample in kept]):+.2f}",
                f"{1e5 * slope([(sample.frames, sample.shared_mb[name]) for sample in kept]):+.2f}",
                f"{1e5 * slope([(sample.frames, float(sample.descriptors[name])) for sample in kept]):+.1f} "
                f"({min(counts)} … {max(counts)})",
            )
        growth[phase] = 1e5 * slope([(sample.frames, sum(sample.used_mb.values())) for sample in kept])
    console.print(table)
    for phase in growth:
        first, second = peak_of_halves([sum(sample.pss_mb.values()) for sample in settled(samples, phase)])
        console.print(
            verdict(f"{phase} frames: peak PSS of the second half over the first's", second / first, PEAK_AIM)
        )
    for phase, value in growth.items():
        console.print(verdict(f"{phase} frames: MB of all our processes per 100,000 frames", value, AIM_MB))
        kept_bytes = value * (1 << 20) / 1e5 * FRAMES_PER_STREAM[phase]
        console.print(f"{phase} frames: that is {kept_bytes:.0f} bytes per stream of {FRAMES_PER_STREAM[phase]} frames")
    return growth


def plot(samples: list[Sample], path: Path) -> None:
    """PSS and open descriptors over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    memory, files = figure.subplots(2, 1, sharex=True)
    seconds = [sample.seconds for sample in samples]
    for name in samples[0].pss_mb:
        memory.plot(seconds, [sample.pss_mb[name] for sample in samples], ".-", label=f"{name}, PSS")
        memory.plot(seconds, [sample.used_mb[name] for sample in samples], ":", label=f"{name}, in use")
        files.plot(seconds, [sample.descriptors[name] for sample in samples], ".-", label=name)
    memory.set(ylabel="MB", ylim=(0, None))
    files.set(ylabel="open descriptors", xlabel="seconds", ylim=(0, None))
    large = next((sample.seconds for sample in samples if sample.phase == "large"), None)
    for axes in (memory, files):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        if large is not None:
            axes.axvline(large, color="0.6", linestyle="--")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="small ones, 32x16 (%(default)s)")
    parser.add_argument("--large", type=int, default=10_000, help="large ones, 1920x1080 raw (%(default)s)")
    parser.add_argument("--plot", type=Path, help="draw memory and descriptors over time there")
    parser.add_argument("--json", type=Path, help="write every sample there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_tiny_bundle(Path(folder) / "tiny")
        flags = ("--port", "0", "--metrics-port", "0", "--threads", "1")
        command = ("-m", "benchmarks.soak_server", str(bundle), *flags)
        with python(*command) as running, (Path(folder) / "samples").open("w+") as file:
            asyncio.run(measure(running, arguments.frames, arguments.large, file))
            file.seek(0)
            samples = [Sample(**json.loads(line)) for line in file]
    growth = report(Console(), samples)
    if arguments.plot is not None:
        plot(samples, arguments.plot)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"mb_per_100000_frames": growth, "samples": [asdict(sample) for sample in samples]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
