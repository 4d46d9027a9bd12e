"""The differences between two configurations as text, and those that need a restart.

Lives here: ``differences``, ``in_place`` (the new configuration without the changes that need a
restart), ``shared`` (the new configuration with the unchanged objects of the old one), and
``predecessors``, which maps services of the new configuration to the old one.
Rules: pure. A service costs one comparison (``shared``), and the same object costs nothing more:
the supervisor compares between requests. Services are identified by name, or by VIP, protocol and
ports; backends by ADDRESS or ADDRESS:PORT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from paraglider.config.model import Config, Service

#: sections that a running daemon cannot change, with the reason
RESTART: Final = {
    "workers": "workers have their cores",
    "queue": "queues are open",
    "user": "processes are that user's",
    "chroot": "processes are locked in there",
    "control": "the socket is there",
    "stats": "the socket is there",
    "flows": "flow tables have their size",
    "seed": "packets are steered to the workers by it",
}
#: fields of a service that are compared on their own
_APART: Final = {"name", "listed", "seed"}


def differences(old: Config, new: Config) -> list[str]:
    """The differences between ``old`` and ``new``, one line each, without those that need a
    restart.
    """
    before, after = _plain(old), _plain(new)
    lines = [
        f"{path}: {was} → {now}"
        for name in before
        if name not in RESTART
        for path, was, now in _changes(name, before[name], after[name])
    ]
    return [*lines, *_services(old, new)]


def restarts(old: Config, new: Config) -> list[str]:
    """The differences between ``old`` and ``new`` that need a restart, one line each."""
    before, after = _plain(old), _plain(new)
    found = [
        f"{change} takes a restart ({why})"
        for name, why in RESTART.items()
        for change in _lines(name, before[name], after[name])
    ]
    if new.announcer not in (None, old.announcer) and old.control == new.control:
        found += [
            f"{change} takes a restart ({RESTART['control']})"
            for change in _lines("control.announcer", old.announcer, new.announcer)
        ]
    return found


def in_place(old: Config, new: Config) -> Config:
    """``new`` with the sections of ``old`` that need a restart."""
    return new.model_copy(update={name: getattr(old, name) for name in RESTART})


def shared(old: Config, new: Config) -> Config:
    """``new`` with the services of ``old`` that are equal: from then on a comparison of the two is
    one of objects.
    """
    known = {service.name: service for service in old.services}
    services = tuple(
        before if (before := known.get(service.name)) == service and before is not None else service
        for service in new.services
    )
    return new.model_copy(update={"services": services})


def predecessors(old: Config, new: Config) -> dict[str, str]:
    """The predecessor in ``old`` of each service of ``new``, by names; new services have none.

    It is the service of the same name. If the two have no port in common, it is the one with the
    same VIP, protocol and forward method and a common port, whose own name is gone or belongs to
    another service now (two services that swap their ports, or a renamed one), if there is one: a
    flow belongs to a service by VIP, protocol and port.
    """
    names = {service.name: service for service in old.services}
    found: dict[str, str] = {}
    loose: list[Service] = []
    for service in new.services:
        namesake = names.get(service.name)
        if namesake is service:
            found[service.name] = names.pop(service.name).name
        elif namesake is None or (
            _what(namesake) == _what(service) and not _meet(namesake, service)
        ):
            loose.append(service)
        else:
            found[service.name] = names.pop(service.name).name
    left: dict[tuple[object, ...], list[Service]] = {}
    for service in names.values():
        left.setdefault(_what(service), []).append(service)
    for service in loose:
        for before in left.get(_what(service), ()):
            if before.name in names and _meet(before, service):
                found[service.name] = names.pop(before.name).name
                break
    for service in loose:
        if service.name not in found and service.name in names:
            found[service.name] = service.name
    return found


def _meet(one: Service, other: Service) -> bool:
    return any(a.overlaps(b) for a in one.ports for b in other.ports)


def _what(service: Service) -> tuple[object, ...]:
    match = None if service.route is None else service.route.match[1:]
    return service.vip.ip, service.protocol, service.forward, match


def _services(old: Config, new: Config) -> Iterator[str]:
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    names = {was: now for now, was in predecessors(old, new).items()}
    for name, service in before.items():
        if (now := names.get(name)) is None:
            yield f"service {name} removed"
            continue
        if now != name:
            yield f"service {name} is called {now} now"
        yield from _service(service, after[now])
    known = set(names.values())
    for name, service in after.items():
        if name not in known:
            count = len(service.backends)
            yield f"service {name} added, {count} backend{'' if count == 1 else 's'}"


def _service(old: Service, new: Service) -> Iterator[str]:
    if old is new:
        return
    differing = {
        name
        for name in Service.model_fields
        if name not in _APART and getattr(old, name) != getattr(new, name)
    }
    before, after = (
        one.model_dump(mode="json", by_alias=True, include=differing) for one in (old, new)
    )
    for key in before:
        for path, was, now in _changes(key, before[key], after[key]):
            yield f"service {old.name}: {path} {was} → {now}"
    if None not in (old.seed, new.seed) and old.seed != new.seed:  # no key in the log
        yield f"service {old.name}: seed changed"
    if new.source is not None and old.source != new.source:
        yield f"service {old.name}: backends come from {_source(old)} → {_source(new)}"
    if old.backends == new.backends:
        return
    known = {backend.name: backend for backend in old.backends}
    wanted = {backend.name: backend for backend in new.backends}
    for name, backend in known.items():
        if name not in wanted:
            yield f"service {old.name}: backend {name} removed, its flows live on"
        elif wanted[name].weight != backend.weight:
            yield (
                f"service {old.name}: backend {name} weight {backend.weight}"
                f" → {wanted[name].weight}"
            )
    for name in wanted:
        if name not in known:
            yield f"service {old.name}: backend {name} added"


def _source(service: Service) -> str:
    if service.source is None:
        return "this file"
    return service.source.file or f"DNS {service.source.dns}"


def _changes(path: str, old: Any, new: Any) -> Iterator[tuple[str, str, str]]:
    """The paths below ``path`` where two plain values differ, and both values as text."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _changes(f"{path}.{key}", old.get(key), new.get(key))
        return
    yield path, _shown(old), _shown(new)


def _lines(name: str, old: Any, new: Any) -> Iterator[str]:
    """The differences of the section ``name``; that of a key without the values."""
    if name == "seed":
        yield from ["seed"] if old != new else []
        return
    for path, was, now in _changes(name, old, new):
        yield f"{path}: {was} → {now}"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, Mapping):
        given = {key: item for key, item in value.items() if item not in (None, {})}
        shown = {
            k: f"({_shown(v)})" if isinstance(v, Mapping) else _shown(v) for k, v in given.items()
        }
        return " ".join(f"{key} {text}" for key, text in shown.items())
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _plain(config: Config) -> dict[str, Any]:
    plain: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude={"services"})
    return plain
