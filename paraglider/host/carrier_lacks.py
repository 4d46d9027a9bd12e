"""The forward methods that a kernel cannot carry in BPF, though it can others.

Lives here: ``lacks_of``, ``by_lack``, ``require_some``, ``require_needed``.
Rules: pure. A lack is found by the self-check, and is known from then on by the name of the method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paraglider.config.model import Config
from paraglider.config.service import METHODS, Method
from paraglider.host.carrier_support import SourceUnavailableError


def by_lack(config: Config, lacks: Mapping[Method, str]) -> dict[str, list[str]]:
    """The names of the services of ``config`` that want BPF and whose method is in ``lacks``, by
    its reason.
    """
    found: dict[str, list[str]] = {}
    for service in config.services:
        if service.wants_bpf and (why := lacks.get(service.method, "")):
            found.setdefault(why, []).append(service.name)
    return found


def lacks_of(results: Iterable[str]) -> dict[Method, str]:
    """The forward methods that a kernel with these results of self-checks cannot carry, and why."""
    why = "".join(results)  # the program at XDP leaves tunnels to that at tc, and lacks nothing
    return {method: why for method in METHODS.values() if why and method.asks_for_source}


def require_some(config: Config, lacks: Mapping[Method, str]) -> None:
    """Raise ``CarrierUnavailableError`` if every service of ``config`` that wants BPF has a method
    in ``lacks``.
    """
    wanting = [service for service in config.services if service.wants_bpf]
    if lacks and all(service.method in lacks for service in wanting):
        raise SourceUnavailableError(lacks[wanting[0].method])


def require_needed(config: Config, lacks: Mapping[Method, str]) -> None:
    """As ``_require_some``, also if such a service cannot work without BPF."""
    require_some(config, lacks)
    for service in config.services:
        if service.needs_bpf and service.method in lacks:
            raise SourceUnavailableError(lacks[service.method])
