"""``forward: proxy``: TCP ends here; a proxy worker relays the bytes to a backend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paraglider.config.diagnostics import Path, Problem
from paraglider.forward.base import ForwardMethod
from paraglider.forward.proxy.checks import check_service
from paraglider.netfilter.rules.backend import Need

if TYPE_CHECKING:
    from paraglider.config.model import Network, Service


class ProxyMethod(ForwardMethod):
    """Connections are accepted by a proxy worker, and relayed over connections of its own."""

    name = "proxy"
    options = frozenset({"proxy_protocol", "route"})
    listens = True
    loopback = True

    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """See ``Method``."""
        return check_service(path, service)

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        source = (
            "are told the client's address by the PROXY protocol"
            f" {service.proxy_protocol}, which they must expect"
            if service.proxy_protocol is not None
            else "see this host's address"
        )
        if service.route is not None:
            whose = f"TLS connections to `{service.route.service}` for {service.route}"
            return f"{whose}; the backends {source}."
        return (
            "TCP ends here and a worker carries the bytes on, so a core sets the limit; a backend"
            f" that refuses is passed over; the backends need no route and {source};"
            " needs no kernel feature."
        )

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """See ``ForwardMethod``."""
        header = (
            f"; its server has to understand PROXY protocol {service.proxy_protocol}"
            if service.proxy_protocol is not None
            else ""
        )
        return "nothing", f"the balancer connects by itself, from its own address{header}"
