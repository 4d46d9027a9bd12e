"""A running balancer as Prometheus scrapes it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsing import HOST, ask_page
from carrying import by_workers
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.daemon.http.exposition import CONTENT_TYPE
from paraglider.daemon.http.metrics import SECTIONS
from paraglider.errors import OperatorError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def scraped(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> tuple[Topology, LabBalancer]:
    """A balancer with a stats page, services of nat, which is checked, of proxy and of offload, and
    one of nat that BPF may carry.
    """
    net = topology()
    serve(net, udp=())
    checked = service(4, ports=80, check={"type": "tcp", "interval": 0.5, "timeout": 20})
    carried = service(6, ports=80, forward="proxy")
    marked = service(4, ports=81, forward="offload", name="bulk")
    fast = service(4, ports=82, name="fast", carrier="bpf")
    return net, balancer(net, config(checked, carried, marked, fast, stats={"bind": HOST}))


def scrape(namespace: Namespace) -> str:
    """The text at /metrics; empty before there is one."""
    status, headers, body = ask_page(namespace, "/metrics")
    assert status in (200, 503)
    assert status == 503 or headers["content-type"] == CONTENT_TYPE
    return body.decode() if status == 200 else ""


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of ``name`` with ``labels``, -1 if there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else -1


def until(namespace: Namespace, condition: Callable[[str], object]) -> str:
    """Scrape until ``condition`` is true of the text."""
    text = ""

    def true() -> object:
        nonlocal text
        text = scrape(namespace)
        return condition(text)

    wait_until(true, lambda: text)
    return text


def names(text: str) -> set[str]:
    """The names of the metrics that have samples."""
    return set(re.findall(r"^(\w+)", text, re.MULTILINE))


@by_workers
def test_a_scrape(scraped: tuple[Topology, LabBalancer], ask: Any) -> None:
    """promtool finds no mistake; every metric of the table is present, that of conditions during a
    condition, that of announced VIPs with `announce`, and so everything that dashboard and alerts
    use; numbers equal the generated flows and the control socket's.
    """
    net, running = scraped
    here = net.balancer
    ask(net, "tcp", VIP[4], 80, 9)
    ask(net, "tcp", VIP[6], 80, 3)

    condition = "paraglider_condition"

    def complete(text: str) -> bool:
        flows = [
            value(text, "paraglider_service_connections_total", service=name)
            for name in ("web4", "web6")
        ]
        checked = value(text, "paraglider_backend_check_success", service="web4")
        looked = "paraglider_conntrack_limit" in text and "paraglider_carrier_packets_total" in text
        # A busy machine may have conditions of its own for a moment.
        return looked and (*flows, checked) == (9, 3, 3) and condition not in names(text)

    text = until(here, complete)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    table = {metric.name for section in SECTIONS for metric in section.metrics}
    table.remove("paraglider_vip_announced")
    assert names(text) == table - {condition}
    for file in ("alerts.yml", "grafana-dashboard.json"):
        asked = re.findall(r"\bparaglider_[a-z_]+\b", (CONF / file).read_text(encoding="utf-8"))
        assert names(text) >= set(asked)

    first = {"service": "web4", "backend": backend_address(4, 1)}
    assert value(text, "paraglider_backend_connections_total", **first) == 3
    assert value(text, "paraglider_backend_in_packets_total", **first) >= 9
    assert value(text, "paraglider_worker_packets_total", role="worker") >= 9 * 6
    assert value(text, "paraglider_queue_limit_packets", traffic="established") == 2048
    assert value(text, "paraglider_queue_limit_packets", traffic="openings") == 512
    assert value(text, "paraglider_config_last_reload_success") == 1
    assert value(text, "paraglider_healthy") == 1

    path = running.config.parent.parent / "control.sock"
    command = ["curl", "-sSf", "--unix-socket", path, "http://paraglider/v1/metrics"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert names(said.stdout) - {condition} == table - {condition}

    control = ControlClient(str(path))
    for backend in (1, 2, 3):
        control.post(f"backends/web4/{backend_address(4, backend)}", {"state": "drain"})
    nobody = {"source": "services", "object": "service web4", "severity": "unhealthy"}
    text = until(here, lambda text: value(text, condition, **nobody) == 1)
    assert value(text, "paraglider_backend_state", state="drain", **first) == 1
    assert value(text, "paraglider_healthy") == 0
    assert names(text) == table


def test_another_file(scraped: tuple[Topology, LabBalancer], ask: Any) -> None:
    """An invalid file is reported, and the old one restored; a removed backend has no series, while
    its counts stay in its service.
    """
    net, running = scraped
    here = net.balancer
    gone = backend_address(6, 3)
    ask(net, "tcp", VIP[6], 80, 3)
    total = "paraglider_service_connections_total"
    until(here, lambda text: value(text, total, service="web6") == 3)
    good = running.config.read_text()
    path = running.config.parent.parent / "control.sock"

    running.config.write_text(good.replace("proxy", "prixy"))
    with pytest.raises(OperatorError):
        ControlClient(str(path)).post("reload", {})
    name = "paraglider_config_last_reload_success"
    text = until(here, lambda text: value(text, name) == 0)
    assert f'backend="{gone}"' in text

    document = yaml.safe_load(good)
    document["services"][1]["backends"].remove(gone)
    running.config.write_text(yaml.safe_dump(document))
    ControlClient(str(path)).post("reload", {})
    until(here, lambda text: gone not in text and value(text, name) == 1)
    ask(net, "tcp", VIP[6], 80, 2)
    until(here, lambda text: value(text, total, service="web6") == 5)
