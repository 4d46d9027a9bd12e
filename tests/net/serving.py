"""Servers in the backends of a network: nginx, UDP echo and ``peer.py``.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from waiting import wait_until

from paraglider.lab.balancer import start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import Topology

PEER = Path(__file__).parent / "peer.py"

NGINX = """\
daemon off;
user root;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 64m;
    server {{
        {listen}
        add_header X-Backend {name};
        location = / {{ return 200 "{name}\\n"; }}
        location = /from {{ return 200 "$remote_addr\\n"; }}
        location = /big {{ alias {big}; }}
        location / {{ return 404; }}
    }}
}}
"""


def serve(
    net: Topology,
    directory: Path,
    big: Path,
    *,
    http: Sequence[int] = (80,),
    udp: Sequence[int] = (5353,),
) -> None:
    """Start nginx, which sends the file ``big`` at ``/big``, and UDP echo in all backends, named
    ``backend1``, …; wait until they listen.
    """
    servers = []
    for number, backend in enumerate(net.backends, 1):
        name = f"backend{number}"
        if http:
            log = start_nginx(backend, name, directory / name, http, big)
            servers.append((backend, log))
        if udp:
            start_backend(backend, name, http=(), udp=udp)
    for backend, log in servers:
        await_listening(backend, http, log)


def serve_peer(net: Topology, port: int) -> None:
    """Have all backends serve ``peer.py``'s transfers."""
    for backend in net.backends:
        command = [sys.executable, str(PEER), "serve", str(port)]
        server = backend.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert server.stdout is not None
        assert server.stdout.readline() == b'"listening"\n'


def start_nginx(
    backend: Namespace, name: str, directory: Path, ports: Sequence[int], big: Path
) -> Path:
    """Start an nginx called ``name``, which has the file ``big``; returns the path of its log."""
    directory.mkdir(mode=0o755)
    listen = " ".join(f"listen {port}; listen [::]:{port};" for port in ports)
    conf = directory / "nginx.conf"
    conf.write_text(NGINX.format(directory=directory, listen=listen, name=name, big=big))
    with (directory / "output").open("wb") as output:
        backend.popen(["nginx", "-c", str(conf)], stdout=output, stderr=subprocess.STDOUT)
    return directory / "output"


def await_listening(backend: Namespace, ports: Sequence[int], log: Path) -> None:
    """Wait until ``backend`` listens on all ``ports`` in both families."""
    wait_until(lambda: all(listens(backend, port) for port in ports), log.read_text)


def listens(namespace: Namespace, port: int) -> bool:
    """Whether a process listens for TCP on ``port`` in both families. It is connected to: a look
    at /proc/net/tcp goes through the connections of all network namespaces of the host.
    """
    try:
        with namespace.entered():
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, port), 10).close()
    except OSError:
        return False
    return True


def start_dnsmasq(namespace: Namespace, name: str) -> None:
    """A name server that answers a TXT query for who.test with its own name."""
    record = f"--txt-record=who.test,{name}"
    namespace.popen(["dnsmasq", "-k", "-R", "-h", "-u", "root", "-x", "", "-p", "53", record])
    wait_until(lambda: listens(namespace, 53))
