"""The forwarding methods: the only place that lists them.

Lives here: the list, and ``of``, which returns a service's method.
Rules: importing this module registers the methods (``config.service``) and the probes of checks
(``config.health``; imported with the first check that is read).
The order is that of error messages, the schema and the rules; the first method is the default.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from paraglider.config.health import register
from paraglider.config.service import METHODS
from paraglider.forward.base import ForwardMethod
from paraglider.forward.dsr.method import DsrMethod
from paraglider.forward.nat.method import NatMethod
from paraglider.forward.offload.method import OffloadMethod
from paraglider.forward.proxy.method import ProxyMethod
from paraglider.forward.tunnel.method import TunnelMethod

if TYPE_CHECKING:
    from paraglider.config.model import Service

register(lambda: import_module("paraglider.health.probes").KINDS)
METHODS.update(
    (method.name, method)
    for method in (NatMethod(), OffloadMethod(), DsrMethod(), TunnelMethod(), ProxyMethod())
)


def methods() -> tuple[ForwardMethod, ...]:
    """Every registered method, in the order of the registry."""
    return tuple(method for method in METHODS.values() if isinstance(method, ForwardMethod))


def of(service: Service) -> ForwardMethod:
    """The method of ``service``; raises ``TypeError`` when it is no ``ForwardMethod``."""
    method = METHODS[service.forward]
    if not isinstance(method, ForwardMethod):
        raise TypeError(f"{service.forward}: {method!r} is no ForwardMethod")
    return method
