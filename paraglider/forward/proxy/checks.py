"""Checks of ``forward: proxy``: it accepts TCP connections, with a socket per port.

Lives here: ``check_service``.
Rules: as in ``config.check``. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Service

#: most ports of a service: a proxy worker opens a socket for each
MOST_PORTS = 1024


def check_service(path: Path, service: Service) -> Iterator[Problem]:
    """The errors of ``service`` at ``path``."""
    if service.protocol != "tcp":
        what = f"`forward: proxy` carries TCP alone, the service is `{service.protocol}`"
        remedy = "write `protocol: tcp`, or another forward"
        yield Problem((*path, "forward"), what, remedy, needs=((*path, "protocol"),))
    ports = sum(len(span) for span in service.ports)
    if ports > MOST_PORTS:
        named = "all ports" if service.all_ports else f"{ports} ports"
        what = f"`forward: proxy` listens on every port, and the service has {named}"
        remedy = f"name at most {MOST_PORTS} ports, or use another forward"
        needs = ((*path, "ports"),)
        yield Problem((*path, "forward"), what, remedy, needs=needs)
