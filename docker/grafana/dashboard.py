"""Writes `dashboards/monocoque.json`, the latency and memory dashboard, from the panels of `rows.py`.

    python docker/grafana/dashboard.py           write it again
    python docker/grafana/dashboard.py --check   exit code 1 if it is not what these files say

Grafana's own JSON is 2,000 lines of which those are the ones that somebody decided.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from panel import DATASOURCE, Json, as_json  # beside this file
from queries import FRAMES, RED
from rows import ROWS

TARGET = Path(__file__).with_name("dashboards") / "monocoque.json"
WIDTH = 24


def build() -> Json:
    """The whole dashboard."""
    panels: list[Json] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "type": "row",
                "id": len(panels) + 1,
                "title": title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row:
            if x + panel.width > WIDTH:
                y, x, height = y + height, 0, 0
            grid = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append(as_json(panel, len(panels) + 1, grid))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": "monocoque",
        "title": "Monocoque: latency and memory",
        "description": "Camera frames from capture to result, and the memory this takes.",
        "tags": ["monocoque"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m"]},
        "timezone": "browser",
        "templating": {"list": [_camera_variable()]},
        "annotations": {"list": [_restarts()]},
        "links": [],
        "panels": panels,
    }


def _camera_variable() -> Json:
    query = f"label_values({FRAMES}, camera)"
    return {
        "name": "camera",
        "label": "Camera",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "camera"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
    }


def _restarts() -> Json:
    return {
        "name": "Restarts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": RED,
        "expr": 'changes(process_start_time_seconds{job="monocoque"}[$__rate_interval]) > 0',
        "titleFormat": "The server restarted",
        "step": "5s",
    }


def main(arguments: list[str]) -> int:
    """Exit code of the command."""
    text = json.dumps(build(), indent=2, ensure_ascii=False) + "\n"
    if arguments == ["--check"]:
        if TARGET.read_text() == text:
            return 0
        sys.stderr.write(f"{TARGET} is not what {__file__} writes: run python {__file__}\n")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
