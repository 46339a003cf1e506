"""The dashboard's JSON: what Grafana would reject or draw wrongly, checked without a Grafana."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "docker" / "grafana"
KINDS = {"row", "stat", "timeseries", "heatmap", "table"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def dashboard() -> Json:
    loaded: Json = json.loads((GRAFANA / "dashboards" / "monocoque.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_json_is_what_its_generator_writes() -> None:
    subprocess.run([sys.executable, GRAFANA / "dashboard.py", "--check"], check=True)


def test_it_has_what_grafana_asks_of_a_dashboard(dashboard: Json) -> None:
    assert dashboard["uid"] == "monocoque"
    assert dashboard["schemaVersion"] >= 39
    assert {"title", "time", "refresh", "templating", "annotations", "panels"} <= dashboard.keys()
    assert {panel["type"] for panel in dashboard["panels"]} == KINDS


def test_ids_are_unique(dashboard: Json) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in dashboard["panels"]:
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)


def test_panels_lie_side_by_side(dashboard: Json) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_every_panel_explains_itself(panels: list[Json]) -> None:
    for panel in panels:
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def test_times_of_frames_are_shown_against_the_frame_period(panels: list[Json]) -> None:
    timed = [
        panel
        for panel in panels
        if panel["fieldConfig"]["defaults"]["unit"] == "s" and panel["type"] != "heatmap" and panel["title"] != "Uptime"
    ]
    assert len(timed) >= 5
    for panel in timed:
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None
        assert steps[1] == pytest.approx(1 / 30, rel=0.01), panel["title"]


def test_the_data_source_is_the_provisioned_one(dashboard: Json, panels: list[Json]) -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    asked = [panel["datasource"] for panel in panels]
    asked += [target["datasource"] for panel in panels for target in panel["targets"]]
    asked += [variable["datasource"] for variable in dashboard["templating"]["list"]]
    asked += [annotation["datasource"] for annotation in dashboard["annotations"]["list"]]
    assert all(source == expected for source in asked)


def test_variables_are_declared(dashboard: Json) -> None:
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert declared == {"camera"}
    for panel in dashboard["panels"]:
        assert panel.get("repeat") in {None, *declared}
        for target in panel.get("targets", []):
            words = target["expr"].replace("$__rate_interval", "").split("$")[1:]
            assert all(word.startswith("camera") for word in words), target["expr"]


def test_the_rate_interval_follows_the_scrape_interval() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    prometheus = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    assert provisioned["datasources"][0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
