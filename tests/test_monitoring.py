"""conf/ for Prometheus and Grafana: the alert rules, and a valid dashboard."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.daemon.http.metrics import SECTIONS

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "conf" / "alerts.yml"
DASHBOARD = ROOT / "conf" / "grafana-dashboard.json"
SAID = Path(__file__).with_name("alerts.test.yml")
#: what Grafana puts in the place of its variables
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$service": ".*"}


def promtool(*arguments: str | Path) -> str:
    """The output of ``promtool ARGUMENTS``, which must succeed."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def questions(panels: list[dict[str, Any]]) -> list[str]:
    """The queries of the panels."""
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_the_rules_are_rules() -> None:
    """promtool finds nothing wrong with them."""
    assert "SUCCESS" in promtool("check", "rules", ALERTS)


def test_alerts_fire_when_they_should() -> None:
    """Each alert fires when it should, and none without a problem; the test covers all of them."""
    assert "SUCCESS" in promtool("test", "rules", SAID)
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    told = SAID.read_text(encoding="utf-8")
    assert {rule["alert"] for rule in rules} == set(re.findall(r'alertname="(\w+)"', told))
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in rules)
    assert {rule["labels"]["severity"] for rule in rules} == {"warning", "critical"}


@pytest.mark.parametrize("file", [ALERTS, DASHBOARD])
def test_what_is_asked_for_is_there(file: Path) -> None:
    """No metric is named that there is not."""
    asked = set(re.findall(r"\bparaglider_[a-z_]+\b", file.read_text(encoding="utf-8")))
    assert asked
    assert asked <= {metric.name for section in SECTIONS for metric in section.metrics}


def test_the_scrape_in_the_document(tmp_path: Path) -> None:
    """Prometheus takes what docs/metrics.md has for its configuration."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    config = yaml.safe_load(block)
    config["rule_files"] = [str(ALERTS)]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    assert "1 rule files found" in promtool("check", "config", file)


def test_the_dashboard_is_whole() -> None:
    """Every panel has a title, an id and a position, and except for headings a valid query."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    places = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(
        panel["title"] and (panel["type"] == "row" or questions([panel])) for panel in panels
    )


def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    """As rules, with a value for each of Grafana's variables, all queries are valid."""
    asked = questions(json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"])
    rules = []
    for number, expression in enumerate(asked):
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)  # noqa: PLW2901 - step by step
        assert "$" not in expression
        rules.append({"record": f"panel{number}", "expr": expression})
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)
