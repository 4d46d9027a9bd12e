"""Checks of methods whose backends have the VIP: they answer directly, from the port of the VIP.

Lives here: ``check_keys``.
Rules: as in ``config.check``. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Service


def check_keys(path: Path, service: Service, unchanged: str) -> Iterator[Problem]:
    """The errors in the keys of ``service`` at ``path``; ``unchanged`` says what its method leaves
    unchanged, so that ports cannot be mapped.
    """
    method = f"`forward: {service.forward}`"
    needs: tuple[Path, ...] = ((*path, "forward"),)
    if "return_" in service.model_fields_set and service.return_ == "via":
        what = f"`return: via` with {method}, where the backends answer the clients"
        remedy = "leave `return` out, or use `forward: nat`"
        yield Problem((*path, "return"), what, remedy, needs=needs)
    for index, backend in enumerate(service.backends):
        # The backend gets the packet with the client's destination port.
        if backend.port is not None and backend.port != service.single_port:
            what = f"`port` with {method}, which leaves {unchanged}"
            remedy = "leave `port` out, or use `forward: nat`"
            place = (*path, "backends", index, "port")
            yield Problem(place, what, remedy, at="key", needs=(*needs, (*path, "ports")))
