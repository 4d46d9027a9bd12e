"""Contradictions in what a service says of its backends' health, and of where they are listed.

Lives here: ``check_health``, which ``validate`` calls for each service.
Rules: as in ``validate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.config.model import BackendSource, Service
from paraglider.config.types import is_endpoint, shown

_OVER_HTTP = ("http", "https")
#: a check's key → the types that it means something for
_MEANT_FOR = {
    "path": _OVER_HTTP,
    "host": _OVER_HTTP,
    "expect": _OVER_HTTP,
    "verify": ("https",),
    "command": ("exec",),
    "port": ("tcp", "http", "https", "exec"),
}


def check_health(path: Path, service: Service) -> list[Problem]:
    """Every contradiction of the kind in ``service``, which stands at ``path``."""
    found = [*_source(path, service)]
    if service.check is not None:
        found += _keys((*path, "check"), service.check)
        found += _port(path, service, service.check)
    return found


def _keys(path: Path, check: Check) -> Iterator[Problem]:
    needs = ((*path, "type"),)
    for key, types in _MEANT_FOR.items():
        if key in check.model_fields_set and check.type not in types:
            what = f"`{key}` has no meaning with `type: {check.type}`"
            remedy = f"leave `{key}` out, or write `type: {types[0]}`"
            yield Problem((*path, key), what, remedy, at="key", needs=needs)
    if check.type == "exec":
        command = check.command
        if command is None:
            remedy = "add `command: [/usr/local/bin/my-check]`, the program and its arguments"
            what = "`type: exec` without a `command`"
            yield Problem((*path, "type"), what, remedy, needs=((*path, "command"),))
        elif not command[0].startswith("/"):
            what = "`command` does not begin with the absolute path of a program"
            yield Problem((*path, "command"), what, "write it in full, such as /usr/bin/test")
    if check.type == "https" and check.verify and check.host is None:
        what = "`verify: true` without the name that the certificate is to be valid for"
        remedy = "add `host: www.example.com`, the name that clients use"
        yield Problem((*path, "verify"), what, remedy, needs=((*path, "host"), *needs))


def _port(path: Path, service: Service, check: Check) -> Iterator[Problem]:
    needed = check.type in ("tcp", *_OVER_HTTP)
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
