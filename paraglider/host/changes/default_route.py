"""The default route of a backend's host, through the balancer.

Rules: other default routes stay if ours can have a lower metric; a route with the lowest possible
metric is replaced, and restored by the revert.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from paraglider.host.changes.base import Action, Host

_FIRST_METRIC = {4: 0, 6: 1}  # IPv6 takes 0 for its default, 1024


@dataclass(frozen=True, slots=True)
class DefaultRouteChange:
    """``route`` takes precedence, and replaces ``replaced`` if given; in ip(8)'s syntax."""

    kind: ClassVar[str] = "default-route"
    family: int
    route: str
    replaced: str | None = None

    @classmethod
    def through(
        cls, family: int, gateway: str, interface: str, present: Iterable[str]
    ) -> DefaultRouteChange:
        """The change, given the default routes that are ``present``."""
        best = best_route(family, present)
        route = f"default via {gateway} dev {interface}"
        if best is None:
            return cls(family, route)
        route += f" metric {_FIRST_METRIC[family]}" if _FIRST_METRIC[family] else ""
        return cls(family, route, best if metric(family, best) <= _FIRST_METRIC[family] else None)

    @property
    def identity(self) -> tuple[str, ...]:
        """The route."""
        return (self.kind, str(self.family), self.route)

    def describe(self, action: Action) -> str:
        """The route, and the effect on the other one."""
        if action == "revert":
            back = f", {self.replaced} is back" if self.replaced is not None else ""
            return f"route {self.route} removed{back}"
        instead = f" in place of {self.replaced}" if self.replaced is not None else ""
        return f"route {self.route}{instead if action == 'apply' else ''}"

    def script(self, host: Host) -> str:
        """ip(8)."""
        return f"ip -{self.family} route replace {self.route}\n"

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        if self.replaced is not None:
            return f"ip -{self.family} route replace {self.replaced}\n"
        return f"ip -{self.family} route del {self.route}\n"

    def apply(self, host: Host) -> None:
        """Add it."""
        host.netlink.replace_route(self.family, self.route)

    def revert(self, host: Host) -> None:
        """Restore the replaced route, or remove this one."""
        if self.replaced is not None:
            host.netlink.replace_route(self.family, self.replaced)
        else:
            host.netlink.remove_route(self.family, self.route)


def best_route(family: int, routes: Iterable[str]) -> str | None:
    """The one of ``routes`` with the lowest metric; None if there is none."""
    return min(routes, key=lambda route: metric(family, route), default=None)


def metric(family: int, route: str) -> int:
    """The metric of a route in ip(8)'s syntax; the lowest takes precedence."""
    words = route.split()
    return int(words[words.index("metric") + 1]) if "metric" in words else 1024 * (family == 6)


def gateway_of(route: str) -> str | None:
    """The gateway of a route in ip(8)'s syntax; None if it has none or several."""
    words = route.split()
    return words[words.index("via") + 1] if words.count("via") == 1 else None


def can_be_put_back(route: str) -> bool:
    """Whether ``ip route replace`` can restore ``route`` from ip(8)'s output."""
    return not {"nexthop", "nhid", "encap", "expires"} & set(route.split())
