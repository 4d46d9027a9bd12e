"""The stage of one measurement: namespaces from the lab, with servers on the backends.

Rules: every measurement has a new stage, because a firewall's tables, conntrack and closed sockets
outlive the peer that made them. Every backend answers HTTP with its own name; the first one also
has the iperf3 server. The peer itself sets up the balancer. The CPU time of all processes of a
stage is read by its ``meter``.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from bench.cgroup import Group
from bench.cpu import Meter
from paraglider.errors import PlatformError
from paraglider.lab import removal
from paraglider.lab.topology import (
    BALANCER,
    GATEWAY,
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    Plan,
    Topology,
    backend_address,
)
from paraglider.lab.topology import VIP as VIPS

VIP = VIPS[4]
VIP_WITH_PREFIX = f"{VIP}/{PUBLIC_PREFIX[4]}"
GATEWAY_WITH_PREFIX = f"{GATEWAY[4]}/{PRIVATE_PREFIX[4]}"
BACKENDS = tuple(backend_address(4, number) for number in (1, 2, 3))
HTTP_PORT = 80
IPERF_PORT = 5201
READY_TIMEOUT = 60.0  # seconds until a peer must answer

_NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {port} backlog=4096;
        location / {{ return 200 "{name}\\n"; }}
    }}
}}
"""


class Stage:
    """Namespaces called ``prefix-*``, files in ``directory``; ``close`` removes both.

    With ``direct`` the backends have a leg in the client's network, so that answers bypass the
    balancer; with ``far`` a router is between the balancer and them. ``build`` builds it, not the
    constructor, so that an interrupted build can be closed.
    """

    topology: Topology
    meter: Meter

    def __init__(
        self, prefix: str, directory: Path, *, direct: bool = False, far: bool = False
    ) -> None:
        self.prefix = prefix
        self.direct = direct
        self.far = far
        self.directory = directory
        self._words = directory / "peer.log"
        self._group: Group | None = None
        #: what is left to do when the namespaces are gone
        self.after = contextlib.ExitStack()

    def build(self) -> None:
        """Make the namespaces and start the servers."""
        (self.directory / "empty").mkdir(mode=0o700, parents=True)
        self.topology = Topology(
            Plan(backends=len(BACKENDS), direct=self.direct, far=self.far), prefix=self.prefix
        )
        self._group = Group.create(self.prefix)
        self.meter = Meter(self.topology.balancer, self.topology.namespaces, self._group)
        # The end that closes first keeps the port for a minute: the client behind a relay, and the
        # relay
        for namespace in (self.topology.client, self.topology.balancer):
            namespace.sysctl("net.ipv4.tcp_tw_reuse=1", "net.ipv4.ip_local_port_range=10000 65000")
        # Plain routing: the client has a route to the backends.
        self.topology.client.ip(f"route add 10.0.0.0/8 via {BALANCER[4]}")
        for number, backend in enumerate(self.topology.backends, 1):
            directory = self.directory / f"backend{number}"
            directory.mkdir()
            conf = directory / "nginx.conf"
            conf.write_text(_NGINX.format(directory=directory, port=HTTP_PORT, name=directory.name))
            backend.popen(["nginx", "-c", str(conf)])
        # Bound, so that a backend with two legs answers datagrams from the address they came to.
        iperf = ["iperf3", "-s", "-p", str(IPERF_PORT), "-B", BACKENDS[0]]
        self.topology.backends[0].popen(iperf)

    def take_addresses(self) -> None:
        """Give the balancer VIP and gateway, for peers without a set-up."""
        self.topology.balancer.ip(
            f"address add {VIP_WITH_PREFIX} dev eth0", f"address add {GATEWAY_WITH_PREFIX} dev eth1"
        )

    def popen(self, *command: str) -> None:
        """Start a program of the peer in the balancer's namespace; its output is kept."""
        with self._words.open("ab") as words:
            self.topology.balancer.popen(command, stdout=words, stderr=words)

    def await_answers(self, address: str, backends: int) -> None:
        """Wait until HTTP requests to ``address`` are answered by ``backends`` backends in turn.

        Raises ``PlatformError`` after a timeout: such a peer must not be measured.
        """
        command = [sys.executable, "-m", "paraglider.lab.client", "tcp", address, str(HTTP_PORT)]
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            done = self.topology.client.run([*command, str(2 * backends)], timeout=60)
            answers = set(done.stdout.splitlines())
            if len(answers) == backends and "error" not in done.stdout:
                return
            if time.monotonic() > deadline:
                words = self._words.read_text().strip()[-300:] if self._words.exists() else ""
                raise PlatformError(f"{address} answers {', '.join(sorted(answers))} {words}")
            time.sleep(0.02)

    def close(self) -> None:
        """Undo the set-up, end all processes, remove namespaces and files; may be called again."""
        removal.remove(self.prefix, self.directory)
        self.after.close()
        if self._group is not None:
            self._group.close()
