"""The proxies balance the same services over the same backends."""

from __future__ import annotations

from bench.peers.proxies import haproxy_configuration, nginx_configuration


def test_haproxy_has_every_backend_in_turn() -> None:
    """HTTP goes to all three, iperf3 to the first, in one thread."""
    text = haproxy_configuration()
    servers = [line.split()[-1] for line in text.splitlines() if line.strip().startswith("server")]
    assert servers == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:5201"]
    for words in ("mode tcp", "balance roundrobin", "nbthread 1", "bind 192.168.0.11:80"):
        assert words in text


def test_nginx_has_every_backend_in_turn() -> None:
    """HTTP goes to all three, iperf3 in both protocols to the first, in one process."""
    text = nginx_configuration("/somewhere")
    assert "server 10.0.0.1:80; server 10.0.0.2:80; server 10.0.0.3:80;" in text
    assert text.count("proxy_pass 10.0.0.1:5201;") == 2
    assert "worker_processes 1;" in text
    assert text.count("{") == text.count("}")
