"""The key `route` of a service in a file: a list, each item of which becomes a service.

Lives here: ``expand``, ``SHARED`` (the keys that a route cannot have).
Rules: a route has the keys of its service, except those that it has itself; the services that are
made stand after those of the file, so that paths of the file stay what they are; ``Marks.written``
leads from their paths to those of the file. Works on plain data, before the model. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, Final

from paraglider.config.diagnostics import Marks, Path, Problem
from paraglider.config.messages import known_keys
from paraglider.config.service import Service
from paraglider.config.wording import shown, ticked

#: keys that are the service's: it listens for its routes
SHARED: Final = frozenset({"vip", "protocol", "ports", "forward", "route"})
#: keys of a service that its routes do not inherit
_OWN: Final = frozenset({"name", "backends", "route"})
#: keys of a route that its service does not have
_MATCH: Final = ("sni", "alpn")
_LONGEST_NAME: Final = 63
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")

Data = dict[str, Any]


def expand(data: Data, marks: Marks) -> tuple[Data, list[Problem]]:
    """``data`` with a service for each route, and the problems of the routes themselves; adds the
    routes to ``marks``.

    A service without a name, VIP or protocol is left as it is: its routes are read once it has
    them.
    """
    services = data.get("services")
    if not isinstance(services, list):
        return data, []
    problems: list[Problem] = []
    known, made = list(services), list[Data]()
    for index, service in enumerate(services):
        if not isinstance(service, dict) or "route" not in service:
            continue
        known[index] = {key: value for key, value in service.items() if key != "route"}
        path: Path = ("services", index)
        routes = service["route"]
        if not isinstance(routes, list) or not routes:
            what = f"`route`: {shown(routes)} where a list of routes belongs"
            problems.append(Problem((*path, "route"), what, _SHAPE))
        elif all(isinstance(service.get(key), str) for key in ("name", "vip", "protocol")):
            for number in range(len(routes)):
                one = _Written(service, path, number, ("services", len(services) + len(made)))
                problems += one.problems()
                if one.is_section:
                    made.append(one.service())
                    marks.routes[one.place] = one.path, one.inherited
    return {**data, "services": [*known, *made]}, problems


_SHAPE: Final = 'write each on a line of its own: `- {sni: "*.a.example", backends: [10.0.0.1]}`'


class _Written:
    """Route ``number`` of ``service``, which is at ``path``; it becomes the service ``place``."""

    def __init__(self, service: Data, path: Path, number: int, place: Path) -> None:
        self._parent = service
        self.path: Path = (*path, "route", number)
        self.place = place
        self._route = service["route"][number]
        self.is_section = isinstance(self._route, dict)

    def problems(self) -> Iterator[Problem]:
        """The mistakes that the model and ``check`` do not find."""
        if not self.is_section:
            what = f"`route[{self.path[-1]}]`: {shown(self._route)} where a section belongs"
            yield Problem(self.path, what, _SHAPE)
            return
        keys = [*_MATCH, *(key for key in known_keys(Service) if key not in SHARED)]
        for key in self._route:
            if key in SHARED:
                what = f"`{key}` in a route, which has that of its service"
                remedy = "leave it out, or make this a service of its own"
                yield Problem((*self.path, key), what, remedy, at="key")
            elif key not in keys:
                absent = [known for known in keys if known not in self._route]
                meant = difflib.get_close_matches(str(key), absent, n=1)
                remedy = f"the keys of a route are: {', '.join(keys)}"
                remedy = f"did you mean `{meant[0]}`?" if meant else remedy
                yield Problem((*self.path, key), f"unknown key {ticked(key)}", remedy, at="key")
        if not any(key in self._route for key in _MATCH) and set(self._route) <= set(keys):
            what = "a route without `sni` and `alpn` takes every connection"
            remedy = "add one of the two; the service's own `backends` get what no route takes"
            yield Problem(self.path, what, remedy)
        if "backends" not in self._route:
            what = f"`route[{self.path[-1]}]` has no `backends`"
            yield Problem((*self.place, "backends"), what, "add `backends: ...`")
        name = self._name()
        if "name" not in self._route and len(name) > _LONGEST_NAME:
            what = f"the route's name {shown(name)} is longer than {_LONGEST_NAME} characters"
            yield Problem((*self.place, "name"), what, "give the route a `name`")

    def service(self) -> Data:
        """The service that it becomes."""
        own = {key: value for key, value in self._route.items() if key in known_keys(Service)}
        match = {key: _listed(self._route[key]) for key in _MATCH if key in self._route}
        return {
            **{key: value for key, value in self._parent.items() if key in self.inherited},
            "name": self._name(),
            **{key: value for key, value in own.items() if key not in SHARED},
            "route": {"service": self._parent["name"], **match},
        }

    @property
    def inherited(self) -> frozenset[str]:
        """The keys that it has of the service around it."""
        own: frozenset[str] = _OWN | (self._route.keys() - SHARED)
        if "strategy" in self._route:
            own |= {"strategy_parameters"}  # of another strategy
        return frozenset(self._parent) - own

    def _name(self) -> str:
        """Its name: `SERVICE.SNI`, or with ALPN `SERVICE.SNI.ALPN`, if it gives none."""
        parts = [str(self._parent["name"])]
        for key in _MATCH:
            value = self._route.get(key)
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, str):
                text = first.lower().removesuffix(".").replace("*.", "_wildcard.")
                parts.append(_NOT_IN_NAMES.sub("-", text))
        return ".".join(parts) if parts[1:] else f"{parts[0]}.{self.path[-1]}"


def _listed(value: Any) -> Any:
    """One text is a list of one."""
    return [value] if isinstance(value, str) else value
