"""Builds the CPU image without a Docker engine, serves from it, and streams frames to it from outside.

    python docker/try_image.py out/demo/bundle             as root, with buildah and debootstrap
    python docker/try_image.py BUNDLE --base DIRECTORY     a base that debootstrap made before

The base is what debian:trixie-slim is made of: debootstrap's minimal Debian. The Dockerfile is the real one, and so are
the user, the environment, the entry point and the health check. What is missing beside Docker is isolation: buildah's
chroot shares the network and the processes of this machine, so the server is told to stay on the loopback.
"""

# ruff: noqa: S603, S607 - it runs buildah and debootstrap, as found on the path
from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

import client

ROOT = Path(__file__).resolve().parents[1]
SUITE = "trixie"
# What the slim image of Debian leaves out; sizes are comparable without it.
NOT_SLIM = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
CERTIFICATES_INSIDE = "/run/certificates.crt"
FRAMES_PER_CAMERA = 25
START_SECONDS = 60
DRAIN_SECONDS = 30


class Buildah:
    """buildah with a storage of its own, and no privileges beyond a chroot.

    Args:
        folder: Where its images and containers go.
    """

    def __init__(self, folder: Path) -> None:
        storage = ("--storage-driver", "vfs", "--root", str(folder / "store"), "--runroot", str(folder / "run"))
        self.command = ("buildah", *storage)

    def __call__(self, *arguments: str | Path) -> str:
        """Run one command; returns what it printed.

        Raises:
            SystemExit: It failed; what it said is printed.
        """
        done = subprocess.run([*self.command, *map(str, arguments)], check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"buildah {arguments[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()


def make_base(folder: Path) -> None:
    """A minimal Debian, as slim as the official slim image."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", SUITE, str(folder)], check=True, stdout=subprocess.DEVNULL, env=os.environ
    )
    for name in NOT_SLIM:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)


def build(buildah: Buildah, base: Path, folder: Path, extras: str) -> str:
    """The image, with these extras of ours; returns its name."""
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, base, "/")
    buildah("commit", "--quiet", "--rm", container, "localhost/base")
    # Behind a proxy that signs for itself, pip inside needs this machine's certificates. They do not stay.
    pip = folder / "pip.conf"
    pip.write_text(f"[global]\ncert = {CERTIFICATES_INSIDE}\n" if Path(CERTIFICATES).exists() else "")
    mounts = ["--volume", f"{CERTIFICATES}:{CERTIFICATES_INSIDE}:ro"] if Path(CERTIFICATES).exists() else []
    buildah(
        *("bud", "--isolation", "chroot", "--format", "docker", "--layers=false"),
        *(
            "--build-arg",
            "BASE_IMAGE=localhost/base",
            "--build-arg",
            f"EXTRAS={extras}",
            "--secret",
            f"id=pip.conf,src={pip}",
            *mounts,
        ),
        *("--file", ROOT / "docker" / "cpu.Dockerfile", "--tag", "localhost/monocoque:cpu", ROOT),
    )
    return "localhost/monocoque:cpu"


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def server_process(root: int) -> int | None:
    """The process that the image's entry point became, below buildah's own."""
    # Every thread has children of its own, and buildah starts its from any of them.
    children = " ".join(path.read_text() for path in Path(f"/proc/{root}/task").glob("*/children"))
    for child in map(int, children.split()):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        found = child if words[0].rpartition(b"/")[2] == b"python" else server_process(child)
        if found is not None:
            return found
    return None


@dataclass(frozen=True)
class Served:
    """A server in its image.

    Attributes:
        address: Where frames go.
        metrics: Where metrics come from.
        root: The container's files.
        healthy_seconds: From its start until its own health check was content.
        shell: Runs a command line in the container; returns what it printed.
    """

    address: str
    metrics: str
    root: Path
    healthy_seconds: float
    shell: Callable[[str], str]


@contextmanager
def serving(buildah: Buildah, image: str, bundle: Path) -> Iterator[Served]:
    """The server of the image, once it is healthy; afterwards it is stopped as Docker stops it.

    Raises:
        SystemExit: It does not get healthy, or does not end well after SIGTERM.
    """
    container = buildah("from", "--pull-never", image)
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {"HOST": "127.0.0.1", "PORT": address.split(":")[1], "METRICS_PORT": metrics.split(":")[1]}
    environment = [part for name, value in settings.items() for part in ("--env", f"MONOCOQUE_{name}={value}")]
    run = [*buildah.command, "run", "--isolation", "chroot", *environment]
    run += ["--volume", f"{bundle}:/bundle:ro", container, "--"]
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]

    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*run, *words], check=False, capture_output=True, text=True)

    with tempfile.TemporaryFile("w+") as log:

        def fail(what: str) -> NoReturn:
            log.seek(0)
            raise SystemExit(f"the server of the image {what}:\n{log.read()[-4000:]}")

        started = time.monotonic()
        process = subprocess.Popen([*run, *config["Entrypoint"], *config["Cmd"]], stdout=log, stderr=subprocess.STDOUT)
        try:
            while inside(*config["Healthcheck"]["Test"][1:]).returncode:
                if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                    fail("did not get healthy")
                time.sleep(0.1)
            healthy_seconds = time.monotonic() - started
            root = Path(buildah("mount", container))
            yield Served(address, metrics, root, healthy_seconds, lambda line: inside("sh", "-c", line).stdout.strip())
            os.kill(server_process(process.pid) or process.pid, signal.SIGTERM)
            if process.wait(DRAIN_SECONDS):
                fail(f"ended with exit code {process.returncode} after SIGTERM")
        finally:
            if process.poll() is None:
                os.kill(server_process(process.pid) or process.pid, signal.SIGKILL)
                process.wait()
            buildah("rm", container)


def stream(address: str) -> Mapping[str, int]:
    """Some frames of six cameras, every one of which must be answered; returns them by status."""
    names = ("front", "front_narrow", "left", "right", "rear_left", "rear_right")
    cameras = [client.Camera(name, width=640, height=384, encoding="jpeg") for name in names]
    ramp = np.linspace(0, 255, 640 * 384 * 3).reshape(384, 640, 3).astype(np.uint8)
    jpeg = client.encode(ramp, "jpeg")
    statuses: Counter[str] = Counter()
    with client.connect_sync(address) as server, server.stream(cameras, policy="replay") as frames:
        for _ in range(FRAMES_PER_CAMERA):
            for camera in cameras:
                frames.send(client.Frame(camera.id, jpeg))
        frames.finish()
        for result in frames:
            statuses[result.status] += 1
    return statuses


def size_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def check(what: str, seen: object, expected: object) -> None:
    """Say it if it is so.

    Raises:
        SystemExit: It is not.
    """
    if seen != expected:
        raise SystemExit(f"{what}: {seen!r}, expected {expected!r}")
    sys.stdout.write(f"  {what}: {seen}\n")


def try_image(bundle: Path, folder: Path, base: Path | None, extras: str) -> None:
    """Everything, in a folder that is empty at first."""
    say = sys.stdout.write
    buildah = Buildah(folder)
    started = time.monotonic()
    if base is None:
        base = folder / "base"
        say(f"── a minimal Debian {SUITE} ─────────────────────────\n")
        make_base(base)
        say(f"  made in {time.monotonic() - started:.0f} s\n")
    say("── building the image ─────────────────────────────\n")
    started = time.monotonic()
    image = build(buildah, base, folder, extras)
    say(f"  made in {time.monotonic() - started:.0f} s\n")
    say("── serving from it ────────────────────────────────\n")
    with serving(buildah, image, bundle) as served:
        say(f"  healthy after {served.healthy_seconds:.1f} s\n")
        check("user", served.shell("id -u"), "10001")
        check("compilers and installers", served.shell("command -v gcc cc g++ nvcc pip"), "")
        check("torch", served.shell("python -c 'import torch' 2>/dev/null && echo there"), "")
        video = served.shell("python -c 'import av' 2>/dev/null && echo there")
        check("video decoder", video, "there" if extras == "video" else "")
        check("telemetry is off", served.shell("echo $ORT_DISABLE_TELEMETRY"), "1")
        check("files it can change", served.shell("find /opt /usr /etc -writable ! -type l"), "")
        check("frames by status", dict(stream(served.address)), {"ok": 6 * FRAMES_PER_CAMERA})
        with urllib.request.urlopen(f"http://{served.metrics}/metrics") as answer:
            page = answer.read().decode()
        counted = sum(float(line.split()[-1]) for line in page.splitlines() if 'status="ok"' in line)
        check("frames counted by the metrics", int(counted), 6 * FRAMES_PER_CAMERA)
        added = size_bytes(served.root / "opt")
        whole = size_bytes(served.root)
        say(f"  size: {whole / 1e6:.0f} MB, of it {added / 1e6:.0f} MB Monocoque with its libraries\n")
    say("  stopped by SIGTERM with exit code 0\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="engine bundle to serve, for the target cpu")
    parser.add_argument("--base", type=Path, help="a directory that debootstrap made; none: it is made")
    parser.add_argument("--extras", default="", choices=("", "video"), help="extras to build it with (none)")
    arguments = parser.parse_args()
    if not arguments.bundle.exists():
        raise SystemExit(f"no bundle at {arguments.bundle}: `make demo` leaves one in out/demo/bundle")
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing or os.geteuid():
        raise SystemExit(f"needs root and {' and '.join(missing) or 'nothing else'}: see docs/deployment.md")
    with tempfile.TemporaryDirectory(prefix="monocoque-image-") as folder:
        try_image(arguments.bundle.resolve(), Path(folder), arguments.base, arguments.extras)


if __name__ == "__main__":
    main()
