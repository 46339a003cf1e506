"""What the server exports, read from its own registry, and what a PromQL expression asks for."""

import re
from collections.abc import Iterator

from server.observe.metrics import Metrics

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
ADDED_BY_PROMETHEUS = {"job", "instance"}
NAME = re.compile(r"\b(?:monocoque|process|nv_inference)_[a-z0-9_]+")
SELECTOR = re.compile(r"\b((?:monocoque|process|nv_inference)_[a-z0-9_]+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def exported_series() -> dict[str, set[str]]:
    """The labels of every series, by the name that PromQL knows it by."""
    metrics = Metrics(max_cameras=1)
    series: dict[str, set[str]] = {}
    for family in metrics.families:
        for described in family.metric.describe():
            for suffix in SUFFIXES[described.type]:
                labels = {*family.label_names, *ADDED_BY_PROMETHEUS}
                series[described.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    for described in metrics.collect_process():
        for sample in described.samples:
            series[sample.name] = {*sample.labels, *ADDED_BY_PROMETHEUS}
    return series


def names_in(expression: str) -> set[str]:
    """Names of metrics in a text."""
    return set(NAME.findall(expression))


def selectors_in(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric of an expression, with its matchers (label, operator, value)."""
    for name, matchers in SELECTOR.findall(expression):
        yield name, MATCHER.findall(matchers)


def grouping_in(expression: str) -> set[str]:
    """Labels that an expression groups or joins by."""
    return {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")} - {""}
