"""Routes: which service takes a TLS connection, by the ClientHello.

Lives here: ``RouteMatch`` (what a route asks for), ``RouteTable`` (the routes of one service).
Rules: pure. A look-up is one for the name, and one for its wildcard (RFC 6125 §6.4.3: `*` is one
label, the first). An exact name precedes a wildcard, and that a route without a name; of the routes
for one name those with ALPN precede the one without, in the order of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from paraglider.core.client_hello import Hello

T = TypeVar("T")


class RouteMatch(NamedTuple):
    """What a route asks for: a route of ``service`` takes a ClientHello with one of the names
    ``sni`` (`*.a.example` for any name with one more label) and one of the protocols ``alpn``; one
    that is empty is not asked for. Names are as ``client_hello.plain_name`` has them.
    """

    service: str
    sni: tuple[str, ...]
    alpn: tuple[str, ...]


class RouteTable(Generic[T]):
    """Finds the route of a ClientHello."""

    def __init__(self) -> None:
        # By the name, or ""; the protocols that are asked for, and the route.
        self._routes: dict[str, list[tuple[frozenset[str], T]]] = {}

    def add(self, match: RouteMatch, route: T) -> None:
        """Add ``route`` after those that are there."""
        for name in match.sni or ("",):
            entry = frozenset(match.alpn), route
            self._routes.setdefault(name, []).append(entry)
            self._routes[name].sort(key=lambda known: not known[0])

    def find(self, hello: Hello) -> T | None:
        """The route that takes ``hello``; None if there is none."""
        for name in self._names(hello.sni):
            for protocols, route in self._routes.get(name, ()):
                if not protocols or not protocols.isdisjoint(hello.alpn):
                    return route
        return None

    @staticmethod
    def _names(sni: str) -> Iterable[str]:
        """The keys of routes for the name ``sni``, the narrowest first."""
        label, _, rest = sni.partition(".")
        if label:
            yield sni
            yield f"*.{rest}"
        yield ""
