"""A real server with frames streaming, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import client

ROOT = Path(__file__).resolve().parents[2]
CAMERAS = ("front", "left", "right")
PATIENCE_SECONDS = 180.0
SCRAPE_SECONDS = 2
"""Instead of five: enough for a busy machine, and the test ends sooner."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def wait_for(ready: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@contextmanager
def server(bundle: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """`python -m server`, ready; gives the addresses for frames and for metrics."""
    port, metrics = free_port(), free_port()
    log = folder / "server.log"
    command = [sys.executable, "-m", "server", str(bundle), "--port", str(port), "--metrics-port", str(metrics)]
    with process(command, log) as running:
        probe = [sys.executable, str(ROOT / "docker" / "healthcheck.py"), f"127.0.0.1:{port}"]

        def healthy() -> bool:
            assert running.poll() is None, log.read_text()
            return subprocess.run(probe, check=False, capture_output=True).returncode == 0

        wait_for(healthy, log.read_text)
        yield f"127.0.0.1:{port}", f"127.0.0.1:{metrics}"


@contextmanager
def frames(address: str) -> Iterator[list[BaseException]]:
    """Cameras that stream for as long as the block lasts, after a stream that has ended.

    One JPEG in ten is cut off, and the cameras are faster than their frames are answered: every way to lose a frame
    that a healthy camera and a healthy server know leaves its trace. Gives the list of what went wrong here.
    """
    cameras = [client.Camera(name, width=64, height=48, encoding="jpeg") for name in CAMERAS]
    good = client.encode(np.full((48, 64, 3), 128, np.uint8), "jpeg")
    bad = good[: len(good) // 2]
    stop = threading.Event()
    faults: list[BaseException] = []

    def drive() -> None:
        try:
            with client.connect_sync(address) as connection:
                with connection.stream(cameras[:1]) as short:
                    short.submit(client.Frame(CAMERAS[0], good))
                    next(short)
                with connection.stream(cameras) as stream:
                    reader = threading.Thread(target=deque, args=(stream, 0))  # reads to the end, keeps nothing
                    reader.start()
                    count = 0
                    while not stop.wait(0.01):
                        count += 1
                        for camera in cameras:
                            stream.submit(client.Frame(camera.id, bad if count % 10 == 0 else good))
                    stream.finish()
                    reader.join()
        except BaseException as error:
            faults.append(error)

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        yield faults
    finally:
        stop.set()
        driver.join()
    assert not faults


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str, log: Path) -> None:
        self._address = address
        self.log = log

    def get(self, path: str, **parameters: str) -> Any:
        """Data of one call of its HTTP API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> dict[str, float]:
        """Values of an expression now, by their labels."""
        found = self.get("query", query=expression)["result"]
        return {json.dumps(series["metric"], sort_keys=True): float(series["value"][1]) for series in found}

    def ready(self) -> bool:
        try:
            return bool(self.get("query", query="1"))
        except OSError:
            return False


@contextmanager
def prometheus(program: str, target: str, folder: Path) -> Iterator[Prometheus]:
    """The project's own configuration, with another target and a shorter interval."""
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], f"{SCRAPE_SECONDS}s")
    config["rule_files"] = [str(ROOT / "docker" / "prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "monocoque"]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    log = folder / "prometheus.log"
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    with process([*command, f"--web.listen-address={address}"], log) as running:
        found = Prometheus(address, log)

        def ready() -> bool:
            assert running.poll() is None, log.read_text()
            return found.ready()

        wait_for(ready, log.read_text)
        yield found
