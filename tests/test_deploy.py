"""The files of ``deploy/`` for Prometheus and Grafana fit the metrics; the rig has a real Prometheus."""

import json
import re
from pathlib import Path

import pytest

from kit.scrapes import described
from kit.sources import emitting
from vmclock_async import Publisher
from vmclock_async.metrics import PublisherCollector

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", ["deploy/prometheus/rules.yml", "deploy/grafana/vmclock.json"])
def test_rules_and_dashboard_name_metrics_that_are_there(file: str) -> None:
    """A metric that was renamed would leave an alert that never fires, and a panel without data."""
    text = (ROOT / file).read_text(encoding="utf-8")
    named = set(re.findall(r"\bvmclock_\w+", text))
    assert len(named) > 5
    assert named <= described(PublisherCollector(Publisher("/nowhere/shm0", [emitting()]))).keys()


def test_dashboard_is_one_that_grafana_imports() -> None:
    """Panels with titles, queries and places of their own; the data source is asked for."""
    dashboard = json.loads((ROOT / "deploy/grafana/vmclock.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) > 8
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in panels]
    cells = [(x + dx, y + dy) for x, y, w, h in places for dx in range(w) for dy in range(h)]
    assert len(cells) == len(set(cells))
    assert all(target["expr"] for panel in panels for target in panel["targets"])
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
