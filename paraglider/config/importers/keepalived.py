"""Imports ``keepalived.conf``: its virtual servers, which are LVS.

Lives here: ``LOOKS``, ``convert``.
Rules: names and defaults as keepalived.conf(5). VRRP is not taken over: it moves addresses between
hosts, here too (docs/announce.md). A service of LVS is one here (``lvs``); each address of a
virtual server group is a service of its own.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from paraglider.config.diagnostics import Mark
from paraglider.config.importers import keepalived_checks, keepalived_reader, lvs
from paraglider.config.importers.blocks import Statement
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.endpoints import host, port_number
from paraglider.config.importers.includes import Includes
from paraglider.config.importers.lvs import LvsServer, LvsService
from paraglider.config.importers.services import FIREWALL_MARK, MOST_SERVICES, Given
from paraglider.config.types import IPAddress
from paraglider.config.wording import shown, ticked

LOOKS = re.compile(
    r"\s*(global_defs|vrrp_(instance|sync_group|script|track_process)|virtual_server(_group)?"
    r"|static_(ipaddress|routes|rules)|real_server|linkbeat_use_polling)\b"
    r"|!\s*Configuration File for keepalived",
    re.IGNORECASE,
)
_WAYS = {"NAT": "masquerading", "DR": "gatewaying", "TUN": "tunnel"}
_MOST_OF_RANGE = 256
_PERSISTENT = "360"  # default of `persistence_timeout` in seconds (keepalived.conf(5))
_KNOWN = {
    *("lb_algo", "lvs_sched", "lb_kind", "lvs_method", "persistence_timeout", "protocol"),
    *("persistence_granularity", "real_server", "weight", "inhibit_on_failure", "virtualhost"),
    *("delay_loop", "connect_timeout", "retry", "nb_get_retry", "ip_family"),
    *("sh-port", "mh-port", "sh-fallback", "mh-fallback", "flag-1", "flag-2", "flag-3"),
    *keepalived_checks.CHECKERS,
}
_ALERTS = "let Prometheus alert you (docs/metrics.md)"
# What has no counterpart → what to do instead.
_REMEDIES = {
    "sorry_server": "without a ready backend new connections are refused at once (`all_down`)",
    "sorry_server_lvs_method": "leave it out",
    "sorry_server_inhibit": "leave it out",
    "quorum": f"one ready backend is enough; {_ALERTS}",
    "hysteresis": "leave it out",
    "alpha": "a backend gets connections before its first check; leave it out",
    "omega": "leave it out",
    "notify_up": _ALERTS,
    "notify_down": _ALERTS,
    "quorum_up": _ALERTS,
    "quorum_down": _ALERTS,
    "smtp_alert": _ALERTS,
    "ops": "leave it out",
    "uthreshold": "limit the connections at the server",
    "lthreshold": "limit the connections at the server",
    "delay_before_retry": "a check is repeated after `interval`",
    "warmup": "checks are spread over their interval",
}
_OTHER_BLOCKS = {
    "global_defs": "keep it in keepalived.conf, if keepalived stays for VRRP",
    "vrrp_instance": "keepalived keeps moving the addresses: see docs/announce.md",
    "vrrp_sync_group": "keepalived keeps it: see docs/announce.md",
    "vrrp_script": "keepalived keeps it: see docs/announce.md",
}


def convert(text: str, includes: Includes | None = None) -> Draft:
    """The services of a keepalived.conf; ``includes`` reads its included files."""
    draft = Draft()
    statements = keepalived_reader.read(text, includes or Includes(), draft)
    if draft.problems:
        return draft
    groups = {each.word: each for each in statements if each.name == "virtual_server_group"}
    services: list[LvsService] = []
    interface: tuple[str, Mark] | None = None
    for each in statements:
        if each.name == "virtual_server":
            if len(services) <= MOST_SERVICES:
                services += _virtual(each, groups, draft)
            continue
        found = each.last("interface") if each.name == "vrrp_instance" else None
        if found is not None and interface is None:
            interface = (found.word, found.mark)
        if each.name != "virtual_server_group":
            what = f"{ticked(str(each))} is not taken over"
            draft.note(each.mark, f"{what}; {_OTHER_BLOCKS.get(each.name, 'keep it there')}")
    _note_moved(services, statements)
    added = lvs.write(services, draft, text, "persistence_timeout", interface)
    if not added and not draft.problems:
        what = "there is no virtual_server that could be taken over"
        remedy = "add one with a real_server; addresses that VRRP moves stay in keepalived"
        draft.mistake(("services",), Mark(1, 1), f"{what}; {remedy}")
    return draft


def _note_moved(services: list[LvsService], statements: list[Statement]) -> None:
    """Note the services whose VIP must not be one of the host, and is one that VRRP adds to it."""
    moved = {
        str(host(address.name.partition("/")[0]))
        for each in statements
        if each.name == "vrrp_instance"
        for block in each.all("virtual_ipaddress", "virtual_ipaddress_excluded")
        for address in block.inner
    }
    for service in services:
        outside = any(server.way != "masquerading" for server in service.servers)
        if outside and str(service.vip) in moved:
            what = "VRRP adds this VIP to the host, and here only the backends may have it"
            remedy = "have VRRP move the address of a route (conf/keepalived-routed.conf)"
            service.notes.append((service.mark, f"{what}; {remedy}", ("vip",)))


def _virtual(
    virtual: Statement, groups: dict[str, Statement], draft: Draft
) -> Iterator[LvsService]:
    """The services of one virtual server: one, or one for each address of its group."""
    protocol = virtual.last("protocol")
    kind = protocol.word.upper() if protocol is not None else "TCP"
    if kind not in ("TCP", "UDP"):
        what = f"the virtual server of {kind} is left out"
        draft.note(virtual.mark, f"{what}; a service here has TCP or UDP")
        return
    places = list(_places(virtual, groups, draft))
    for index, (mark, vip, port) in enumerate(places):
        service = LvsService(mark, kind.lower(), vip, [port] if port else [])
        _settings(service, virtual)
        servers = list(_servers(service, virtual))
        service.servers = [server for _, server in servers]
        keepalived_checks.add_check(service, virtual, [statement for statement, _ in servers])
        if index:
            # What is said of the group's first address holds for all.
            service.notes, service.left_out = [], []
            service.servers = [replace(server, left_out=()) for server in service.servers]
        yield service


def _places(
    virtual: Statement, groups: dict[str, Statement], draft: Draft
) -> Iterator[tuple[Mark, IPAddress | str, int]]:
    """The address and port, 0 for all, of each service of ``virtual``."""
    if virtual.word == "group":
        name = virtual.words[1] if len(virtual.words) > 1 else ""
        if name not in groups:
            what = f"there is no virtual_server_group {shown(name)}"
            draft.mistake(("services",), virtual.mark, f"{what}; add it, or correct the name")
            return
        for each in groups[name].inner:
            yield from _place(each.mark, (each.name, *each.words), draft)
        return
    yield from _place(virtual.mark, virtual.words, draft)


def _place(
    mark: Mark, words: tuple[str, ...], draft: Draft
) -> Iterator[tuple[Mark, IPAddress | str, int]]:
    if words[:1] == ("fwmark",):
        number = words[1] if len(words) > 1 else ""
        yield mark, f"{FIREWALL_MARK}{number}", 0
        return
    if not words:
        what = "a virtual_server without an address"
        draft.mistake(("services",), mark, f"{what}; write virtual_server ADDRESS PORT")
        return
    try:
        port = port_number(words[1]) if len(words) > 1 else 0
        for address in _addresses(words[0]):
            yield mark, address, port
    except ValueError as error:
        draft.mistake(("services",), mark, str(error))


def _addresses(text: str) -> list[IPAddress | str]:
    """The addresses of `A`, `A-B`, `A-LAST` or a network; raises ``ValueError``."""
    first, dash, last = text.partition("-")
    begin = host(first)
    if "/" in text:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{shown(text)} is no network; write ADDRESS/BITS") from None
        count = network.num_addresses
        begin = network.network_address
    elif dash and not isinstance(begin, str):
        end = host(last)
        if isinstance(end, str):
            separator = "." if begin.version == 4 else ":"
            end = host(f"{first.rpartition(separator)[0]}{separator}{last}")
        count = 0 if isinstance(end, str) else int(end) - int(begin) + 1
    else:
        return [host(text)]
    if not 0 < count <= _MOST_OF_RANGE:
        what = f"{shown(text)} has no 1 to {_MOST_OF_RANGE} addresses"
        raise ValueError(f"{what}; write the addresses one by one")
    return [begin + index for index in range(count)]


def _settings(service: LvsService, virtual: Statement) -> None:
    """The settings of the virtual server itself."""
    scheduler = virtual.last("lb_algo") or virtual.last("lvs_sched")
    if scheduler is not None and scheduler.word:
        service.scheduler = scheduler.word
    timeout = virtual.last("persistence_timeout")
    if timeout is not None:
        service.persistent = timeout.word or _PERSISTENT
    mask = virtual.last("persistence_granularity")
    if mask is not None:
        service.mask = mask.word
    service.flags = tuple(each.name for each in virtual.inner if _is_flag(each.name))
    _inhibited(service, virtual)
    _left_out(service, virtual)


def _is_flag(name: str) -> bool:
    return name in _KNOWN and ("-" in name)


def _inhibited(service: LvsService, where: Statement) -> None:
    """`inhibit_on_failure`: a server that fails keeps its connections."""
    found = where.last("inhibit_on_failure")
    if found is not None and found.word.lower() not in ("off", "false", "no"):
        service.keys["on_down",] = Given("keep", found.mark, "inhibit_on_failure")


def _left_out(service: LvsService, where: Statement) -> None:
    for each in where.inner:
        harmless = each.name == "quorum" and each.word in ("", "0", "1")
        if each.name in _KNOWN or harmless:
            continue
        what = f"{ticked(str(each))} has no counterpart"
        remedy = _REMEDIES.get(each.name, "leave it out")
        service.notes.append((each.mark, f"{what}; {remedy}", ()))


def _servers(service: LvsService, virtual: Statement) -> Iterator[tuple[Statement, LvsServer]]:
    default = virtual.last("lb_kind") or virtual.last("lvs_method")
    for each in virtual.all("real_server"):
        method = each.last("lvs_method") or default
        way = method.word.upper() if method is not None else "NAT"
        if way not in _WAYS:
            what = f"{shown(way)} is no way of forwarding"
            service.notes.append((each.mark, f"{what}; write NAT, DR or TUN", ()))
            continue
        try:
            port = port_number(each.words[1]) if len(each.words) > 1 else 0
        except ValueError as error:
            service.notes.append((each.mark, f"{error}", ()))
            continue
        weight = each.last("weight")
        _inhibited(service, each)
        _left_out(service, each)
        server = LvsServer(
            each.mark,
            " ".join(each.words),
            host(each.word),
            port,
            _WAYS[way],
            weight.word if weight is not None else "1",
            _tunnel(method),
        )
        yield each, server


def _tunnel(method: Statement | None) -> tuple[str, str | None]:
    words = method.words if method is not None else ()
    named = dict(itertools.pairwise(words))
    return named.get("type", "ipip"), named.get("port")
