"""Userspace proxies of layer 4: HAProxy in tcp mode, nginx stream.

Rules: one process (or thread) that carries, as Paraglider's peers have one worker; otherwise their
defaults, with access logs off.
"""

from __future__ import annotations

from typing import ClassVar

from bench.network import BACKENDS, HTTP_PORT, IPERF_PORT, VIP, Stage
from bench.peers.base import Peer

_HAPROXY = """\
global
    maxconn 4096
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen web
    bind {vip}:{http}
    balance roundrobin
{web}
listen iperf
    bind {vip}:{iperf}
    server b1 {first}:{iperf}
"""

_NGINX = """\
load_module modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 16384; }}
stream {{
    upstream web {{ {web} }}
    server {{ listen {vip}:{http} backlog=4096; proxy_pass web; }}
    server {{ listen {vip}:{iperf}; proxy_pass {first}:{iperf}; }}
    server {{ listen {vip}:{iperf} udp; proxy_pass {first}:{iperf}; }}
}}
"""


class HAProxy(Peer):
    """HAProxy, ``mode tcp``, one thread."""

    name = "haproxy"
    title = "HAProxy, tcp mode"
    cannot: ClassVar[dict[str, str]] = {"udp": "HAProxy balances no UDP"}

    def start(self, stage: Stage) -> None:
        """Write the configuration and run it in the foreground."""
        stage.take_addresses()
        conf = stage.directory / "haproxy.cfg"
        conf.write_text(haproxy_configuration())
        stage.popen("haproxy", "-db", "-f", str(conf))


class NginxStream(Peer):
    """nginx with its stream module, one worker process."""

    name = "nginx"
    title = "nginx stream"

    def start(self, stage: Stage) -> None:
        """Write the configuration and run it in the foreground."""
        stage.take_addresses()
        directory = stage.directory / "nginx-stream"
        directory.mkdir()
        conf = directory / "nginx.conf"
        conf.write_text(nginx_configuration(str(directory)))
        stage.popen("nginx", "-c", str(conf))


def haproxy_configuration() -> str:
    """The text of haproxy.cfg."""
    web = "\n".join(
        f"    server b{number} {backend}:{HTTP_PORT}" for number, backend in enumerate(BACKENDS, 1)
    )
    return _HAPROXY.format(vip=VIP, http=HTTP_PORT, iperf=IPERF_PORT, first=BACKENDS[0], web=web)


def nginx_configuration(directory: str) -> str:
    """The text of nginx.conf for an nginx whose files are in ``directory``."""
    web = " ".join(f"server {backend}:{HTTP_PORT};" for backend in BACKENDS)
    return _NGINX.format(
        directory=directory,
        vip=VIP,
        http=HTTP_PORT,
        iperf=IPERF_PORT,
        first=BACKENDS[0],
        web=web,
    )
