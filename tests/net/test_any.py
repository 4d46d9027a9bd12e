"""`protocol: any` on all ports, as in conf/any.conf, with an exempt name server."""

from __future__ import annotations

from typing import Any

import pytest
from waiting import wait_until

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import BALANCER, CLIENT, VIP, backend_address

pytestmark = pytest.mark.root


def start_name_server(namespace: Namespace) -> None:
    """A name server that answers a TXT query for seen.test."""
    command = ["dnsmasq", "-k", "-R", "-h", "-u", "root", "-x", "", "-p", "53"]
    namespace.popen([*command, "--txt-record=seen.test,server"])
    listening = ["ss", "-Hlun", "sport = 53"]
    wait_until(lambda: namespace.run(listening).stdout.count("\n") >= 2)


def query(namespace: Namespace, server: str, source: str, seconds: int = 60) -> str:
    """The server's answer to a query from ``source``; empty without one in ``seconds``."""
    options = ["-b", source, "+short", "+tries=1", f"+time={seconds}", "+notcp"]
    command = ["dig", f"@{server}", "seen.test", "TXT", *options]
    done = namespace.run(command, check=False, timeout=90)
    return done.stdout.strip() if done.returncode == 0 else ""


@pytest.mark.parametrize("exempt", [True, False])
def test_the_name_server_is_exempt(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, exempt: bool
) -> None:
    """The balancer's host queries it from the VIP and gets the answer if the server is exempt;
    otherwise the answer is balanced like every packet to the VIP. Backends query it from their own
    addresses.
    """
    net = topology()
    serve(net, udp=())
    start_name_server(net.client)
    text = config(*(service(f, protocol="any", affinity="client") for f in (4, 6)))
    if exempt:
        ends = [f"{CLIENT[4]}:53/udp", f"[{CLIENT[6]}]:53/udp"]
        text = text.replace("network:\n", f"network:\n  exempt: {ends}\n")
    balancer(net, text)
    for family in (4, 6):
        answer = query(net.balancer, CLIENT[family], VIP[family], 60 if exempt else 3)
        assert answer == ('"server"' if exempt else "")
        own = backend_address(family, 1)
        net.client.ip(f"route add {own} via {BALANCER[family]}")
        assert query(net.backends[0], CLIENT[family], own) == '"server"'
        # The same client's connections to the VIP are balanced as ever.
        assert len(ask(net, "tcp", VIP[family], 80, 6)) == 1
