"""``route`` of ``forward: proxy`` end to end: nginx ends TLS, curl says the name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from failing import control
from proxying import service
from serving import listens
from waiting import wait_until

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import CLIENT, VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)

#: nginx that says which backend it is, what the client asked for, and whom the PROXY protocol names
SECURE = """\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    server {{
        listen 443 ssl; listen [::]:443 ssl;
        location / {{ return 200 "backend{number} $ssl_server_name -\\n"; }}
    }}
    server {{
        listen 8443 ssl proxy_protocol; listen [::]:8443 ssl proxy_protocol;
        location / {{ return 200 "backend{number} $ssl_server_name $proxy_protocol_addr\\n"; }}
    }}
}}
"""


def said(client: Namespace, name: str, vip: str, *options: str) -> str:
    """What the backend says to a client that asks for ``name`` at ``vip``."""
    host = f"[{vip}]" if ":" in vip else vip
    command = ["curl", "-sSk", "--max-time", "60", "--resolve", f"{name}:443:{host}", *options]
    return client.run([*command, f"https://{name}/"], timeout=90).stdout.strip()


def test_names_and_protocols(topology: Any, config: Any, balancer: Any, tmp_path: Path) -> None:
    """Each name reaches the backends of its route, over IPv4 and IPv6, with the client's address
    where the route has the PROXY protocol; the rest the service's own. Each is counted.
    """
    net: Topology = topology()
    for number, backend in enumerate(net.backends, 1):
        directory = tmp_path / f"secure{number}"
        directory.mkdir()
        file = self_signed(directory, f"backend{number}.example")
        text = SECURE.format(directory=directory, number=number, certificate=file)
        (directory / "nginx.conf").write_text(text)
        backend.popen(["nginx", "-c", str(directory / "nginx.conf")])
    services = []
    for family in FAMILIES:
        own, wild, both = (backend_address(family, number) for number in (1, 2, 3))
        told = {"backends": [{"address": wild, "port": 8443}], "proxy_protocol": "v2"}
        routes = [
            {"sni": "*.a.example", "name": f"wild{family}", **told},
            {
                "sni": "api.a.example",
                "alpn": "http/1.1",
                "name": f"api{family}",
                "backends": [both],
            },
        ]
        services.append(service(family, ports=443, backends=[own], route=routes))
    running = balancer(net, config(*services))
    for backend in net.backends:
        wait_until(partial(listens, backend, 443))
    for family in FAMILIES:
        for name, options, number, whose in [
            ("www.a.example", [], 2, CLIENT[family]),
            ("x.a.example", ["--tls-max", "1.2"], 2, CLIENT[family]),
            ("api.a.example", [], 3, "-"),
            ("api.a.example", ["--no-alpn"], 2, CLIENT[family]),
            ("a.example", [], 1, "-"),
            ("x.y.a.example", [], 1, "-"),
        ]:
            heard = said(net.client, name, VIP[family], *options)
            assert heard == f"backend{number} {name} {whose}"
    counts = {"web": 2, "wild": 3, "api": 1}
    expected = {f"{name}{family}": n for name, n in counts.items() for family in FAMILIES}

    def conns() -> dict[str, int]:
        return {row["service"]: row["conns"] for row in control(running).get("backends")}

    wait_until(lambda: conns() == expected, lambda: str(conns()))
