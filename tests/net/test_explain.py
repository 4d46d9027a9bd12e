"""`paraglider explain` beside a running daemon: it uses the present flows and states."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from failing import Peer, control
from waiting import TIMEOUT

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root


def explained(here: Namespace, *arguments: object) -> Any:
    """The output of `paraglider explain --json`."""
    command = [sys.executable, "-m", "paraglider", "explain", "--json", *map(str, arguments)]
    return json.loads(here.run(command, timeout=2 * TIMEOUT).stdout)


def test_flows_and_states_of_now(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """A connection that lives keeps its backend though that drains; another client does not get
    it; and a file without it would lose the connection.
    """
    net = topology(backends=2)
    serve_peer(net, 9000)
    plan = service(4, ports=9000, strategy="maglev", backends=2)
    running = balancer(net, config(plan))
    peer = Peer(net.client, tmp_path / "peer", "pause", VIP[4], 9000)
    assert peer.begun()
    (flow,) = control(running).get("flows")["flows"]
    its, other = sorted(plan["backends"], key=lambda address: address != flow["backend"])
    assert its in (backend_address(4, 1), backend_address(4, 2))
    control(running).set_backend("web4", its, state="drain")
    vip = f"{VIP[4]}:9000"
    here = net.balancer
    (lives,) = explained(
        here, "-c", running.config, "tcp", f"{flow['client']}:{flow['client_port']}", vip
    )["flows"]
    assert (lives["backend"], lives["why"][-1]["about"]) == (its, "flow")
    for port in range(1, 3):
        (new,) = explained(here, "-c", running.config, "tcp", f"192.0.2.9:{port}", vip)["flows"]
        assert new["backend"] == other
    without = tmp_path / "without.conf"
    without.write_text(config({**plan, "backends": [other]}))
    moved = explained(here, "-c", running.config, "--against", without)["against"]["live"]["web4"]
    assert (moved["flows"], moved["lost"]) == (1, 1)
    assert "error" not in peer.end()
