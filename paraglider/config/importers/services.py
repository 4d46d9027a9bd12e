"""Services as importers find them in a foreign file, and how they get into a draft.

Lives here: ``FoundService`` with its ``FoundBackend`` and ``Given`` values, ``ServiceWriter``,
``longest`` (a time that the whole file shares), ``unique_name``.
Rules: an address that the file does not have (a name, "every address of the host") is replaced by
one that is reserved for documentation or tests (RFC 5737, RFC 2544, RFC 3849), with a note: the
output then loads, and says what to fill in. The same name gets the same address. A service has one
family, one port if a backend's port differs, and a backend that takes connections; what does not
fit is noted. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from paraglider.config.diagnostics import Mark, Path
from paraglider.config.importers.draft import Draft, number
from paraglider.config.importers.endpoints import ANY, ANY6
from paraglider.config.types import IPAddress, parse_address
from paraglider.config.wording import shown

#: the beginning of the name of a VIP that only a firewall mark stands for
FIREWALL_MARK: Final = "mark "
#: most ports of a service that become services of their own
_MOST_PORTS: Final = 64
_STAND_INS: Final = {
    ("vip", 4): "192.0.2.0/24",
    ("vip", 6): "2001:db8::/64",
    ("backend", 4): "198.18.0.0/15",
    ("backend", 6): "2001:db8:0:1::/64",
}
#: most services and backends of an import: a file of garbage, or of a whole cluster, ends there
MOST_SERVICES: Final = 5000
_MOST_BACKENDS: Final = 50_000
_PROBES_WITH_PORT: Final = ("tcp", "http", "https")


@dataclass(frozen=True, slots=True)
class Given:
    """A value of our file, with its place in the foreign one, and a comment."""

    value: Any
    mark: Mark
    comment: str = ""


@dataclass(slots=True)
class FoundBackend:
    """A backend; ``host`` is a name if the file has no address, ``port`` None for the client's."""

    mark: Mark
    host: IPAddress | str
    port: int | None = None
    weight: Any = 1
    comment: str = ""


@dataclass(slots=True)
class FoundService:
    """A service.

    ``vip`` is a name, or ``ANY``, if the file has no address; ``ports`` are numbers and ranges, or
    empty for all; ``keys`` are further keys of the service, ``notes`` what to say about it (place,
    message, path of the key).
    """

    mark: Mark
    name: str
    vip: IPAddress | str
    protocol: str
    ports: list[int | str] = field(default_factory=list)
    keys: dict[Path, Given] = field(default_factory=dict)
    backends: list[FoundBackend] = field(default_factory=list)
    notes: list[tuple[Mark, str, Path]] = field(default_factory=list)

    def note(self, mark: Mark, message: str, *path: str | int) -> None:
        """Note ``message`` ("what; remedy"), about the key at ``path`` of this service."""
        self.notes.append((mark, message, path))

    def leave_out(self, mark: Mark, what: str) -> None:
        """Note that ``what`` has no counterpart here."""
        self.note(mark, f"{what} has no counterpart; leave it out")


class ServiceWriter:
    """Writes services into ``draft``, which is made of the file with ``text``."""

    def __init__(self, draft: Draft, text: str) -> None:
        self._draft = draft
        self._names: dict[str, int] = {}
        self._taken = set(re.findall(r"\d+\.\d+\.\d+\.\d+|[0-9a-fA-F:]{4,39}", text))
        self._free = {key: _hosts(network) for key, network in _STAND_INS.items()}
        self._stand_ins: dict[tuple[str, int, str], IPAddress] = {}
        self._backends = 0
        self.count = 0
        #: there are too many services or backends: nothing more is added
        self.full = False

    def write(self, service: FoundService) -> None:
        """Add ``service``, or note why it is left out."""
        if self.full:
            return
        if self.count >= MOST_SERVICES or self._backends >= _MOST_BACKENDS:
            self.full = True
            what = f"there are more than {MOST_SERVICES} services or {_MOST_BACKENDS} backends"
            self._draft.mistake(("services",), service.mark, f"{what}; import parts of the file")
            return
        family = _family(service)
        backends = self._of_family(service, family)
        if all(str(backend.weight) == "0" for backend in backends):
            for mark, message, _ in dict.fromkeys(service.notes):
                self._draft.note(mark, message)
            what = f"the service {shown(service.name)} has no server that takes connections"
            self._draft.note(service.mark, f"{what}; it is left out")
            return
        service = replace(service, backends=backends)
        parts = list(_divided(service)) if _needs_one_port(service) else [service]
        for part in parts:
            self._write(part, family)

    def _of_family(self, service: FoundService, family: int) -> list[FoundBackend]:
        """The backends that ``service``, of ``family``, can have; others are noted."""
        found = []
        for backend in service.backends:
            if isinstance(backend.host, str) or backend.host.version == family:
                found.append(backend)
                continue
            what = f"backend {backend.host} is IPv{backend.host.version}, its service IPv{family}"
            remedy = "each family needs a service of its own, so it is left out"
            self._draft.note(backend.mark, f"{what}; {remedy}")
        return found

    def _write(self, service: FoundService, family: int) -> None:
        draft, path = self._draft, ("services", self.count)
        self.count += 1
        self._backends += len(service.backends)
        name = unique_name(service.name, self._names)
        draft.set((*path, "name"), name, service.mark)
        vip = self._address("vip", service.vip, family, service.mark, (*path, "vip"))
        comment = "" if service.vip is vip else _comment(service.vip)
        draft.set((*path, "vip"), str(vip), service.mark, comment)
        draft.set((*path, "protocol"), service.protocol, service.mark)
        if service.ports:
            ports: Any = service.ports if len(service.ports) > 1 else service.ports[0]
            draft.set((*path, "ports"), ports, service.mark)
        for key, given in self._keys(service).items():
            draft.set((*path, *key), given.value, given.mark, given.comment)
        for mark, message, key in dict.fromkeys(service.notes):
            draft.note(mark, message, (*path, *key))
        only = service.ports[0] if len(service.ports) == 1 else None
        for index, backend in enumerate(service.backends):
            self._backend(backend, (*path, "backends", index), family, only)

    def _backend(
        self, backend: FoundBackend, item: Path, family: int, service_port: int | str | None
    ) -> None:
        draft = self._draft
        address = self._address("backend", backend.host, family, backend.mark, item)
        draft.set((*item, "address"), str(address), backend.mark)
        comment = backend.comment
        if address is not backend.host:
            comment = ", ".join(filter(None, (comment, _comment(backend.host))))
        if comment:
            draft.comments[item] = comment
        if backend.port is not None and backend.port != service_port:
            draft.set((*item, "port"), backend.port, backend.mark)
        if backend.weight != 1:
            draft.set((*item, "weight"), backend.weight, backend.mark)

    def _keys(self, service: FoundService) -> dict[Path, Given]:
        """The keys of ``service``; a check gets a port, where the service has several."""
        kind = service.keys.get(("check", "type"))
        port: Path = ("check", "port")
        single = len(service.ports) == 1 and isinstance(service.ports[0], int)
        mapped = service.backends[0].port
        if kind is None or kind.value not in _PROBES_WITH_PORT or port in service.keys or single:
            return service.keys
        first = int(str(service.ports[0]).partition("-")[0]) if service.ports else mapped or 80
        what = f"the check needs one port, and the service has several; {first} is taken"
        service.note(kind.mark, f"{what}, write another if that is not it", *port)
        return {**service.keys, port: Given(first, kind.mark)}

    def _address(
        self, role: str, host: IPAddress | str, family: int, mark: Mark, path: Path
    ) -> IPAddress:
        """The address of ``host``; a stand-in, with a note at ``path``, if that is a name."""
        if not isinstance(host, str):
            return host
        key = (role, family, host)
        if key not in self._stand_ins:
            free = (each for each in self._free[role, family] if str(each) not in self._taken)
            found = next(free, None)
            if found is None:
                what = f"more than 250 names stand for addresses, {shown(host)} too"
                self._draft.mistake(path, mark, f"{what}; write the addresses into the file")
                return parse_address("192.0.2.1" if family == 4 else "2001:db8::1")
            self._stand_ins[key] = found
            self._draft.note(mark, _to_fill_in(host, found), path)
        return self._stand_ins[key]


def _to_fill_in(host: str, address: IPAddress) -> str:
    """The message about an ``address`` that stands for ``host``."""
    if host in (ANY, ANY6):
        what = f"the service is on every address of its host; {address} stands for the VIP"
        return f"{what}, write the address that the clients connect to"
    if host.startswith(FIREWALL_MARK):
        what = f"which packets have the {host} is in the rules of iptables"
        return f"{what}; {address} stands for their VIP, write their `vip`, `protocol` and `ports`"
    what = f"the address of {shown(host)} is not in the file; {address} stands for it"
    return f"{what}, write the right one"


def _comment(host: IPAddress | str) -> str:
    """The comment on a value that is to be filled in."""
    if host in (ANY, ANY6):
        return "write the VIP"
    text = str(host)[:40] if str(host).isprintable() else "a name"
    return f"{text}: write its address"


def _hosts(network: str) -> Iterator[IPAddress]:
    return iter(ipaddress.ip_network(network).hosts())


def _family(service: FoundService) -> int:
    """4 or 6: the family of the VIP, or if that has no address of the first backend with one."""
    if service.vip == ANY6:
        return 6
    hosts = (service.vip, *(backend.host for backend in service.backends))
    return next((host.version for host in hosts if not isinstance(host, str)), 4)


def _needs_one_port(service: FoundService) -> bool:
    single = len(service.ports) == 1 and isinstance(service.ports[0], int)
    return not single and any(backend.port is not None for backend in service.backends)


def _divided(service: FoundService) -> Iterator[FoundService]:
    """A service for each port of ``service``, whose backends have ports of their own."""
    ports = list(_each_port(service.ports))
    if not ports or len(ports) > _MOST_PORTS:
        many = f"{len(ports)} ports" if ports else "all ports"
        what = f"the backends have a port of their own, and the service has {many}"
        remedy = "the port of the client is kept, so write services of one port each if that is it"
        service.note(service.mark, f"{what}; {remedy}", "backends")
        kept = [replace(backend, port=None) for backend in service.backends]
        yield replace(service, backends=kept)
        return
    for index, port in enumerate(ports):
        notes = service.notes if index == 0 else []
        yield replace(service, name=f"{service.name}-{port}", ports=[port], notes=notes)


def _each_port(ports: Sequence[int | str]) -> Iterator[int]:
    for port in ports:
        first, _, last = str(port).partition("-")
        if first.isdigit() and (last or first).isdigit():
            yield from range(int(first), min(int(last or first), int(first) + 65535) + 1)


def unique_name(wanted: str, taken: dict[str, int], default: str = "service") -> str:
    """A valid service name similar to ``wanted`` that is not in ``taken``, to which it is added.

    ``taken`` has the number of names that were similar to each, so that many equal ones are quick.
    """
    base = re.sub(r"[^A-Za-z0-9._-]", "-", wanted).lstrip("._-")[:55] or default
    free, count = base, taken.get(base, 0)
    while free in taken:
        count += 1
        free = f"{base}-{count}"
    taken[base] = max(count, 1)
    taken.setdefault(free, 1)
    return free


def longest(draft: Draft, path: Path, times: Iterable[Given], what: str) -> None:
    """Set the seconds at ``path``, which all services share: the longest of ``times``.

    ``what`` is the beginning of the note if they differ: "a client is kept for one time".
    """
    every = list(times)
    if not every:
        return
    wrong = next((given for given in every if not isinstance(number(str(given.value)), int)), None)
    if wrong is not None:
        draft.mistake(path, wrong.mark, f"{wrong.comment} {shown(wrong.value)}; write seconds")
        return
    seconds = [int(str(given.value)) for given in every]
    most = max(seconds)
    chosen = every[seconds.index(most)]
    draft.set(path, most, chosen.mark, chosen.comment)
    if any(each != most for each in seconds):
        message = f"{what} in all services; {most} s is the longest of theirs"
        draft.note(chosen.mark, message, path)
