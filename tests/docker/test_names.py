"""Dashboard, alerts and documentation speak of metrics, labels and values that the server exports, and of no others."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.observe.metrics import LATENCY_BUCKETS_SECONDS, STAGES, STATUSES
from server.settings import ENVIRONMENT_PREFIX, Settings
from tests.docker.exported import exported_series, grouping_in, names_in, selectors_in

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "monocoque.json"
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
KNOWN_VALUES = {
    "stage": set(STAGES),
    "status": set(STATUSES),
    "kind": {"resident", "peak", "used", "total"},
    "job": {"monocoque"},
    "le": {f"{bound}" for bound in LATENCY_BUCKETS_SECONDS},
    "alertstate": {"firing"},
}


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from group["rules"]


EXPRESSIONS = [*dashboard_expressions(), *((rule["alert"], rule["expr"]) for rule in rules())]
SERIES = exported_series()


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_asks_for_what_is_exported(where: str, expression: str) -> None:
    labels: set[str] = set()
    for name, matchers in selectors_in(expression):
        assert name in SERIES, f"{where}: the server exports no {name}"
        labels |= SERIES[name]
        for label, operator, value in matchers:
            assert label in SERIES[name], f"{where}: {name} has no label {label}"
            values = set(value.split("|")) if operator in {"=~", "!~"} else {value}
            known = KNOWN_VALUES.get(label)
            assert value == "$camera" or known is None or values <= known, f"{where}: {label} is never {value}"
    if names_in(expression):
        assert grouping_in(expression) <= labels, f"{where}: groups by {grouping_in(expression) - labels}"


def test_every_metric_of_ours_is_drawn_or_watched() -> None:
    used = {re.sub("_(bucket|sum|count)$", "", name) for _, text in EXPRESSIONS for name in names_in(text)}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in SERIES if name.startswith("monocoque_")}
    assert ours == {name for name in used if name.startswith("monocoque_")}


def test_the_documentation_names_metrics_alerts_and_settings_that_exist() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    prefixes = {re.sub("_(bucket|sum|count|total)$", "", name) for name in SERIES} | set(SERIES)
    assert names_in(text) <= prefixes
    alerts = set(re.findall(r"\bMonocoque[A-Z]\w+", text))
    assert alerts == {rule["alert"] for rule in rules()}
    compose = (ROOT / "docker-compose.yml").read_text()
    settings = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields}
    substituted = set(re.findall(r"\$\{(MONOCOQUE_\w+)", compose))
    assert set(re.findall(r"\bMONOCOQUE_[A-Z_]+[A-Z]", text)) <= settings | substituted | {"MONOCOQUE_IMAGE_TEST"}


def test_the_documentation_names_every_alert_with_its_meaning() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    for rule in rules():
        assert re.search(rf"^\| `{rule['alert']}` \| {rule['labels']['severity']} \|", text, re.MULTILINE), rule[
            "alert"
        ]


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_saw_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "action"}
    assert "{{" in rule["annotations"]["summary"]


def test_every_alert_is_tested() -> None:
    cases = yaml.safe_load((ROOT / "tests" / "docker" / "alerts_test.yml").read_text())["tests"]
    fired = {test["alertname"] for case in cases for test in case["alert_rule_test"] if test.get("exp_alerts")}
    quiet = {test["alertname"] for case in cases for test in case["alert_rule_test"] if not test.get("exp_alerts")}
    assert fired == quiet == {rule["alert"] for rule in rules()}
