"""Checks of a service's health check, and of the source of its backends.

Lives here: ``check_health``, which ``validate`` calls for each service.
Rules: as in ``validate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from paraglider.config.check_strategy import check_parameters
from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check, probes
from paraglider.config.model import BackendSource, Service
from paraglider.config.types import is_endpoint
from paraglider.config.wording import shown

#: keys of a check that only some probes take (``ProbeKind.keys``)
KEYS = ("path", "host", "expect", "verify", "steps", "command", "port")


def check_health(path: Path, service: Service) -> list[Problem]:
    """Every such error in ``service``, which is at ``path``."""
    found = [*_source(path, service)]
    if service.check is not None:
        found += _keys((*path, "check"), service.check)
        found += _port(path, service, service.check)
    return found


def _keys(path: Path, check: Check) -> Iterator[Problem]:
    needs = (*path, "type")
    for key in KEYS:
        if key in check.model_fields_set and key not in check.probe.keys:
            what = f"`{key}` has no meaning with `type: {check.type}`"
            *others, last = (f"`{name}`" for name, probe in probes().items() if key in probe.keys)
            takers = f"{', '.join(others)} or {last}" if others else last
            remedy = f"leave `{key}` out, or write {takers} as `type`"
            yield Problem((*path, key), what, remedy, at="key", needs=(needs,))
    place, owner = (*path, "parameters"), f"`type: {check.type}`"
    yield from check_parameters(place, owner, check.probe.parameters, check.parameters, needs)
    yield from check.probe.contradictions(path, check)


def _port(path: Path, service: Service, check: Check) -> Iterator[Problem]:
    needed = check.probe.needs_port
    if needed and check.port is None and service.source is None and service.single_port is None:
        what = f"the check needs to know a port: `{service.name}` has several"
        remedy = "add `port: 80`, one that every backend answers on, or write `type: icmp`"
        keys = ((*path, "ports"), (*path, "check", "type"), (*path, "check", "port"))
        yield Problem((*path, "check"), what, remedy, at="key", needs=keys)


def _source(path: Path, service: Service) -> Iterator[Problem]:
    source = service.source
    if source is None:
        return
    place: Path = (*path, "backends")
    keys = ((*place, "file"), (*place, "dns"))
    if (source.file is None) == (source.dns is None):
        both = "both `file` and `dns`" if source.file is not None else "neither `file` nor `dns`"
        remedy = "write one of the two, or a list of backends"
        yield Problem(place, f"`backends` has {both}", remedy, at="key", needs=keys)
    elif source.dns is not None and (service.single_port is None or service.protocol == "any"):
        what = "SRV records give each backend one port, and the service has several"
        remedy = "give the service a single port, or list the backends"
        needs = (*keys, (*path, "ports"), (*path, "protocol"))
        yield Problem((*place, "dns"), what, remedy, at="key", needs=needs)
    elif source.dns is not None and not re.match(r"_[^.]+\._(tcp|udp)\.", source.dns):
        what = f"{source.dns} is no name of SRV records (RFC 2782)"
        remedy = f"write one such as _{service.name}._{service.protocol}.example.com"
        yield Problem((*place, "dns"), what, remedy)
    if source.server is not None:
        yield from _server((*place, "server"), source)


def _server(path: Path, source: BackendSource) -> Iterator[Problem]:
    if source.dns is None:
        yield Problem(path, "`server` without `dns`", "leave it out", at="key")
    elif not is_endpoint(source.server):
        what = f"`server`: {shown(source.server)} is no ADDRESS:PORT"
        yield Problem(path, what, 'write one such as "127.0.0.1:8600" or "[::1]:53"')
