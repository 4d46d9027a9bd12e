"""A policy that never returns, met by a packet: the service goes on without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import children
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root

#: picks the first backend, and loops at two ports of the client
LOOPS = """
class Loops:
    def __init__(self, **context):
        self.ready = ()
    def prepare(self, ready):
        self.ready = ready
    def pick(self, flow):
        while flow.client_port in (6664, 6666):
            pass
        return self.ready[0]
"""
FAMILIES = (4, 6)
EVENT = "policy does not return, suspended: rr is used until a reload"


def test_a_policy_that_never_returns(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, tmp_path: Path
) -> None:
    """Each blocked worker is replaced by one without the policy, and so are the others; `nat` and
    `proxy`, both families. It is a condition in `health`, and a reload tries it again.
    """
    directory = tmp_path / "policies"
    directory.mkdir(mode=0o755)
    (directory / "loops.py").write_text(LOOPS)
    net = topology()
    serve(net, udp=())
    policy = {"strategy": "loops:Loops"}
    services = [
        service(family, name=f"{forward}{family}", ports=port, forward=forward, **policy)
        for family, forward, port in ((4, "nat", 80), (6, "proxy", 80))
    ]
    text = config(*services, workers=2, policies={"path": str(directory)})
    running = balancer(net, text, trouble=True)
    control = ControlClient(str(running.config.parent.parent / "control.sock"))

    def conditions() -> str:
        return " ".join(control.get("health")["problems"])

    assert [ask(net, "tcp", VIP[family], 80, 6) for family in FAMILIES] == [{"backend1": 6}] * 2
    before = children(running)

    def replaced() -> set[str]:
        return {name for name, pid in children(running).items() if before.get(name, pid) != pid}

    clients = []
    for family in FAMILIES:
        url = f"http://{VIP[family] if family == 4 else f'[{VIP[family]}]'}/"
        command = ["curl", "-sm", "60", "--local-port", f"666{family}", url]
        clients.append(net.client.popen(command))
    wait_until(lambda: running.log().count(EVENT) == len(FAMILIES), running.log)
    wait_until(lambda: len(replaced()) == len(FAMILIES), running.log)
    for client in clients:  # what one sends again would meet the policy after the reload
        client.kill()
        client.wait()
    assert {name.partition("/")[0] for name in replaced()} == {"paraglider", "paraproxy"}
    for family in FAMILIES:
        spread = ask(net, "tcp", VIP[family], 80, 12)
        assert set(spread) == {"backend1", "backend2", "backend3"}, spread
    for name in ("nat4", "proxy6"):
        assert f"service {name}: its policy `loops:Loops` did not return" in conditions()
    control.reload({})
    assert [ask(net, "tcp", VIP[family], 80, 6) for family in FAMILIES] == [{"backend1": 6}] * 2
    assert "did not return" not in conditions()
