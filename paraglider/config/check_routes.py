"""Checks of routes: two of one service that take the same connections.

Lives here: ``check_routes``, which ``check`` calls with the whole configuration.
Rules: as in ``check``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config


def check_routes(config: Config) -> Iterator[Problem]:
    """Every route of ``config`` that takes what another one takes already."""
    first: dict[tuple[str, str, str], int] = {}
    for index, service in enumerate(config.services):
        if service.route is None:
            continue
        owner, names, protocols = service.route.match
        for name, protocol in product(names or ("",), protocols or ("",)):
            earlier = first.setdefault((owner, name, protocol), index)
            if earlier != index:
                taken = " with ".join(filter(None, (name, protocol)))
                what = f"`{config.services[earlier].name}` takes {taken} of `{owner}` already"
                path: Path = ("services", index, "route")
                place = (*path, "sni" if name else "alpn")
                needs: tuple[Path, ...] = (path, ("services", earlier, "route"))
                yield Problem(place, what, "leave it out of one of the two", needs=needs)
