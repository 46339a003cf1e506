"""Prometheus itself: its configuration, its alerts, and a live server whose every panel has data."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.live import CAMERAS, Prometheus, frames, prometheus, server, wait_for
from tests.docker.test_names import dashboard_expressions, rules
from tests.server.bundles import write_bundle

ROOT = Path(__file__).resolve().parents[2]
RATE_INTERVAL = "20s"
HAS_NO_DATA_HERE = {"GPU memory A", "Restarts"}
"""The server of this test has no GPU and does not restart."""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


def test_promtool_accepts_the_configuration() -> None:
    command = [program("promtool"), "check", "config", str(ROOT / "docker" / "prometheus" / "prometheus.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    command = [program("promtool"), "test", "rules", str(Path(__file__).with_name("alerts_test.yml"))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("live")
    bundle = write_bundle(folder / "bundle")
    with (
        server(bundle, folder) as (address, metrics),
        frames(address) as faults,
        prometheus(binary, metrics, folder) as running,
    ):

        def flowing() -> bool:
            assert not faults
            return bool(running.query(f"rate(monocoque_frames_total[{RATE_INTERVAL}]) > 0"))

        wait_for(flowing, running.log.read_text)
        yield running


def filled_in(expression: str) -> str:
    return expression.replace("$camera", ".*").replace("$__rate_interval", RATE_INTERVAL)


@pytest.mark.parametrize(
    ("where", "expression"), list(dashboard_expressions()), ids=[w for w, _ in dashboard_expressions()]
)
def test_a_panel_has_data(live: Prometheus, where: str, expression: str) -> None:
    query = filled_in(expression)
    if where in HAS_NO_DATA_HERE:
        live.query(query)  # Prometheus understands it
        return
    wait_for(lambda: any(not math.isnan(value) for value in live.query(query).values()), lambda: f"no data: {query}")


def test_prometheus_reads_the_page_without_a_complaint(live: Prometheus) -> None:
    def up() -> bool:
        (target,) = live.get("targets")["activeTargets"]
        return bool(target["health"] == "up")

    wait_for(up, lambda: json.dumps(live.get("targets")))
    said = [line for line in live.log.read_text().splitlines() if 'component="scrape manager"' in line]
    assert not [line for line in said if "level=warn" in line or "level=error" in line]


def test_every_alert_is_evaluated_without_an_error(live: Prometheus) -> None:
    def evaluated() -> bool:
        groups = live.get("rules")["groups"]
        return all(rule["health"] != "unknown" for group in groups for rule in group["rules"])

    wait_for(evaluated, lambda: json.dumps(live.get("rules")))
    found = {rule["name"]: rule for group in live.get("rules")["groups"] for rule in group["rules"]}
    assert found.keys() == {rule["alert"] for rule in rules()}
    for rule in found.values():
        assert rule["health"] == "ok", rule


def test_what_is_wrong_with_the_frames_of_this_test_is_noticed(live: Prometheus) -> None:
    """One frame in ten is broken: the expression behind the alert sees it, for every camera."""
    failing = next(rule["expr"] for rule in rules() if rule["alert"] == "MonocoqueFramesFailing")
    wait_for(lambda: len(live.query(failing)) == len(CAMERAS), lambda: json.dumps(live.query(failing)))


def test_the_camera_variable_offers_the_cameras(live: Prometheus) -> None:
    values = live.get("label/camera/values", **{"match[]": "monocoque_frames_total"})
    assert sorted(values) == sorted(CAMERAS)
