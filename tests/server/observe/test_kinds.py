"""What each metric is to Prometheus: one that only grows is a counter, whatever its name ends in."""

from __future__ import annotations

import re

from server.observe.metrics import TRITON_METRICS, Metrics
from server.observe.scrape import slices


def test_triton_s_names_are_counters_as_they_are_there() -> None:
    metrics = Metrics(max_cameras=1)
    for family in metrics.triton.values():
        family("quarters", "1.0").set(3)
    page = "".join(slices(metrics))
    kinds = dict(re.findall(r"^# TYPE (nv_\w+) (\w+)$", page, re.MULTILINE))
    assert kinds == dict.fromkeys(TRITON_METRICS, "counter")
    for name in TRITON_METRICS:
        assert f'{name}{{model="quarters",version="1.0"}} 3\n' in page
