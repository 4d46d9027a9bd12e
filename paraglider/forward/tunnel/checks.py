"""Checks of ``forward: tunnel``: the packet inside is unchanged, the outer one fits.

Lives here: ``check_service``.
Rules: as in ``config.check``. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Network, Service
from paraglider.forward.one_sided_checks import check_keys


def check_service(path: Path, service: Service, network: Network) -> Iterator[Problem]:
    """The errors of ``service`` at ``path``, in a file with ``network``."""
    if network.public is None:
        what = "`forward: tunnel` without `network: public`"
        remedy = "add `network: {public: {interface: …}}`, whose interface answers for the VIP"
        yield Problem((*path, "forward"), what, remedy, needs=(("network", "public"),))
    yield from check_keys(path, service, "the packet inside as it is")
    outer = service.encapsulation
    if "port" in outer.model_fields_set and not outer.udp_port:
        what = f"`port` with `encapsulation: {{type: {outer.type}}}`, which has no ports"
        remedy = "write `type: gue`, or leave `port` out"
        place = (*path, "encapsulation", "port")
        yield Problem(place, what, remedy, at="key", needs=((*path, "forward"),))
