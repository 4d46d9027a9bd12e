"""The metrics of the daemon as a whole, by its sections alone."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from paraglider.daemon.http.daemon_metrics import DAEMON
from paraglider.daemon.http.exposition import exposed

CONDITION = {"source": "workers", "object": "worker 0", "severity": "degraded", "text": "full"}


def found(status: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """The values by the name and the sorted labels of each sample."""
    families = text_string_to_metric_families(exposed(DAEMON, status).decode())
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


@pytest.mark.parametrize("true", [True, False])
def test_the_daemon(true: bool) -> None:
    """The version, the start time, the health, and the last load of the configuration."""
    status = {
        "at": 1000.0,
        "daemon": {"version": "1.2", "python": "3.11.2", "build": "compiled", "started": 900.0},
        "health": {"healthy": true, "draining": not true, "conditions": [CONDITION]},
        "config": {"success": true, "at": 950.0},
        "announced": {"2001:db8::1": {"announce": true, "status": "x", "why": "y"}},
    }
    assert found(status) == {
        ("paraglider_build_info", "1.2", "3.11.2", "compiled"): 1,
        ("paraglider_status_timestamp_seconds",): 1000,
        ("paraglider_start_time_seconds",): 900,
        ("paraglider_healthy",): true,
        ("paraglider_draining",): not true,
        ("paraglider_config_last_reload_success",): true,
        ("paraglider_config_last_reload_timestamp_seconds",): 950,
        ("paraglider_condition", "degraded", "worker 0", "workers"): 1,
        ("paraglider_vip_announced", "2001:db8::1"): true,
    }
