"""Imports a listing of ``ipvsadm-save -n``: LVS, the kernel's balancer.

Lives here: ``LOOKS``, ``convert``.
Rules: a service here has one forward method, in LVS each server has one; that of the first server
is used. Settings without a counterpart (firewall marks instead of a VIP, names, GRE) are left out,
or replaced by the nearest setting, and noted; a listing without any service is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from paraglider.config.diagnostics import Mark, Path
from paraglider.config.importers.draft import Draft, number
from paraglider.config.service import METHODS
from paraglider.config.types import IPAddress, parse_address
from paraglider.config.wording import shown
from paraglider.core.strategies import KINDS, canonical

LOOKS = re.compile(r"\s*(\S*ipvsadm\s+)?(-A|-a|--add-service|--add-server)\s+-")

# What ipvsadm(8) calls an option → the short name; those with a value, and those without.
_LONG = {
    "--add-service": "-A",
    "--add-server": "-a",
    "--clear": "-C",
    "--tcp-service": "-t",
    "--udp-service": "-u",
    "--fwmark-service": "-f",
    "--scheduler": "-s",
    "--persistent": "-p",
    "--netmask": "-M",
    "--sched-flags": "-b",
    "--real-server": "-r",
    "--weight": "-w",
    "--u-threshold": "-x",
    "--l-threshold": "-y",
    "--gatewaying": "-g",
    "--ipip": "-i",
    "--masquerading": "-m",
    "--ops": "-o",
    "--ipv6": "-6",
    "--numeric": "-n",
}
_VALUED = {"-t", "-u", "--sctp-service", "-f", "-s", "-M", "-b", "-r", "-w", "-x", "-y", "--pe"} | {
    "--tun-type",
    "--tun-port",
}
_BARE = {"-A", "-a", "-C", "-g", "-i", "-m", "-o", "-6", "-n", "--tun-nocsum", "--tun-csum"}
# Schedulers of IPVS without a name or alias of ours → our strategy, and whether it is the same
# thing. Any other one becomes _NEAREST.
_SCHEDULERS = {"lc": ("weighted", True), "dh": ("source", False)}
_NEAREST = "weighted"
_UNWEIGHTED = ("rr", "lc")
_WAYS = {"-m": "masquerading", "-g": "gatewaying", "-i": "tunnel"}
_METHODS = {"-m": "nat", "-g": "dsr", "-i": "tunnel"}
_PERSISTENT = 300  # default of `-p` in seconds (ipvsadm(8))
_ALL_OF_IT = ("255.255.255.255", "128")  # masks that keep the whole client address


@dataclass(slots=True)
class _Line:
    """One command: its options, short names, with the column that each value stands in."""

    mark: Mark
    options: dict[str, str]


@dataclass(slots=True)
class _Listed:
    """A service with its servers; ``vip`` is None if the service is left out."""

    line: _Line
    vip: tuple[IPAddress, int] | None
    servers: list[_Line] = field(default_factory=list)


def convert(text: str) -> Draft:
    """The services of a listing."""
    draft = Draft()
    services = []
    for listed in _listed(text, draft):
        servers = _usable(listed, draft)
        if listed.vip is not None and servers:
            services.append((listed, listed.vip, servers))
    # A VIP of ours is an address of this host, or with dsr or tunnels of none but the backends.
    ways: dict[IPAddress, set[str]] = {}
    for _, vip, servers in services:
        ways.setdefault(vip[0], set()).add(_way(servers[0][0]))
    for index, (listed, vip, servers) in enumerate(services):
        _service(listed, vip, servers, ("services", index), draft, len(ways[vip[0]]) > 1)
    _interfaces(draft)
    persistent = [listed.line for listed, _, _ in services if "-p" in listed.line.options]
    if not services and not draft.problems:
        what = "there is no service that could be taken over; save the rules with `ipvsadm-save -n`"
        draft.mistake(("services",), Mark(1, 1), what)
    _persistence(persistent, draft)
    return draft


def _listed(text: str, draft: Draft) -> list[_Listed]:
    """The services in their order, each with its servers."""
    found: dict[tuple[str, str], _Listed] = {}
    for line in _lines(text, draft):
        options = line.options
        flag = next((flag for flag in ("-t", "-u", "--sctp-service", "-f") if flag in options), "")
        key = (flag, options.get(flag, ""))
        if "-C" in options:
            continue
        if not flag or ("-A" in options) == ("-a" in options):
            what = "this is no line of ipvsadm-save; write `-A -t VIP:PORT -s rr` or `-a -t ...`"
            draft.mistake(("services",), line.mark, what)
        elif "-a" in options:
            if key in found:
                found[key].servers.append(line)
            else:
                what = f"the service {shown(key[1])} of this server is in no line above"
                draft.mistake(("services",), line.mark, f"{what}; add it with -A")
        elif key in found:
            what = f"the service {shown(key[1])} is added twice"
            draft.mistake(("services",), line.mark, f"{what}; keep one of the two")
        else:
            found[key] = _Listed(line, _vip(flag, key[1], line.mark, draft))
    return list(found.values())


def _lines(text: str, draft: Draft) -> Iterator[_Line]:
    for index, line in enumerate(text.split("\n")):
        words = line.split()
        if words and words[0].rpartition("/")[2] == "ipvsadm":
            words = words[1:]
        if not words or words[0].startswith("#"):
            continue
        mark = Mark(index + 1, len(line) - len(line.lstrip()) + 1)
        options = _options(words, mark, draft)
        if options is not None:
            yield _Line(mark, options)
        if draft.too_many_problems:
            return


def _options(words: list[str], mark: Mark, draft: Draft) -> dict[str, str] | None:
    """The options of one line; None if one is wrong."""
    options: dict[str, str] = {}
    rest = iter(words)
    following = next(rest, None)
    while following is not None:
        word, equals, joined = following.partition("=")
        name = _LONG.get(word, word)
        following = next(rest, None)
        if name in _BARE:
            options[name] = ""
        elif name in _VALUED or (name == "-p" and (equals or _is_number(following))):
            value = joined if equals else following
            if value is None:
                draft.mistake(("services",), mark, f"{shown(word)} has no value; add one")
                return None
            options[name] = value
            following = following if equals else next(rest, None)
        elif name == "-p":
            options[name] = str(_PERSISTENT)
        else:
            what = f"{shown(word)} is no option of ipvsadm-save"
            draft.mistake(("services",), mark, f"{what}; leave it out")
            return None
    return options


def _is_number(word: str | None) -> bool:
    return word is not None and isinstance(number(word), int)


def _vip(flag: str, text: str, mark: Mark, draft: Draft) -> tuple[IPAddress, int] | None:
    if flag not in ("-t", "-u"):
        kind = "a firewall mark" if flag == "-f" else "SCTP"
        what = f"the service of {kind} {shown(text)} is left out"
        draft.note(mark, f"{what}; a service here has a VIP, and TCP or UDP")
        return None
    return _endpoint(text, mark, draft)


def _endpoint(text: str, mark: Mark, draft: Draft) -> tuple[IPAddress, int] | None:
    """The address and port of ``text``, port 0 for all; None, with a note, if it has names."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        its_port = number(port)
        if not isinstance(its_port, int) or its_port > 65535:
            raise ValueError
        return parse_address(host), its_port
    except ValueError:
        what = f"{shown(text)} is no address and port, so it is left out"
        draft.note(mark, f"{what}; save the rules with `ipvsadm-save -n`")
        return None


def _usable(listed: _Listed, draft: Draft) -> list[tuple[_Line, IPAddress, int]]:
    """The servers that can be imported; others are noted."""
    if listed.vip is None:
        return []
    found = []
    ways = [_way(server) for server in listed.servers]
    for server, way in zip(listed.servers, ways, strict=True):
        if "-r" not in server.options:
            draft.mistake(("services",), server.mark, "this server has no address; add -r IP:PORT")
            continue
        text = server.options["-r"]
        address = _endpoint(text, server.mark, draft)
        if way != ways[0]:
            what = f"server {shown(text)} is forwarded by {_WAYS[way]}, the first by"
            remedy = "a service has one way of forwarding, so it is left out"
            draft.note(server.mark, f"{what} {_WAYS[ways[0]]}; {remedy}")
        elif address is not None:
            found.append((server, *address))
    text = listed.line.options.get("-t") or listed.line.options.get("-u") or ""
    if not any(line.options.get("-w") != "0" for line, _, _ in found):
        what = f"the service {shown(text)} has no server that takes connections"
        draft.note(listed.line.mark, f"{what}; it is left out")
        return []
    return found


def _way(server: _Line) -> str:
    """The forward method of ``server``; the default is gatewaying (ipvsadm(8))."""
    return next((way for way in _WAYS if way in server.options), "-g")


def _service(
    listed: _Listed,
    vip: tuple[IPAddress, int],
    servers: list[tuple[_Line, IPAddress, int]],
    path: Path,
    draft: Draft,
    shared: bool,
) -> None:
    """Add one service; ``shared``: services of its VIP are forwarded in several ways."""
    options, mark = listed.line.options, listed.line.mark
    protocol = "tcp" if "-t" in options else "udp"
    address, port = vip
    tail = f"{address}-{port}".replace(":", "-") if port else f"{address}".replace(":", "-")
    draft.set((*path, "name"), f"{protocol}-{tail}", mark)
    draft.set((*path, "vip"), str(address), mark)
    draft.set((*path, "protocol"), protocol, mark)
    if port:
        draft.set((*path, "ports"), port, mark)
    way = _way(servers[0][0])
    method = "nat" if shared else _METHODS[way]
    draft.set((*path, "forward"), method, mark, _WAYS[way])
    if method != _METHODS[way]:
        wanted = _METHODS[way]
        what = f"the VIP is also forwarded otherwise, which does not go with `forward: {wanted}`"
        remedy = f"this forwards by nat; give the service another VIP for {wanted}"
        draft.note(servers[0][0].mark, f"{what}; {remedy}", (*path, "forward"))
        if way == "-i":
            draft.set((*path, "return"), "direct", mark)
    elif way == "-i":
        _encapsulation([line for line, _, _ in servers], path, draft)
    theirs = options.get("-s", "wlc")
    ours = canonical(theirs)
    strategy, same = _SCHEDULERS.get(theirs, (ours, True) if ours in KINDS else (_NEAREST, False))
    draft.set((*path, "strategy"), strategy, mark, theirs if theirs != strategy and same else "")
    if not same:
        what = f"the scheduler {shown(theirs)} has no counterpart; {strategy} is the nearest"
        draft.note(mark, what, (*path, "strategy"))
    if "-p" in options:
        draft.set((*path, "affinity"), "client", mark, f"-p {options['-p']}")
    _left_out(listed.line, path, draft)
    for index, (server, real, its_port) in enumerate(servers):
        item: Path = (*path, "backends", index)
        draft.set((*item, "address"), str(real), server.mark)
        if way == "-m" and port and its_port not in (0, port):
            draft.set((*item, "port"), its_port, server.mark)
        weight = number(server.options.get("-w", "1"))
        if weight != 1 and (theirs not in _UNWEIGHTED or weight == 0 or isinstance(weight, str)):
            draft.set((*item, "weight"), weight, server.mark)
        _left_out(server, path, draft)


def _encapsulation(servers: list[_Line], path: Path, draft: Draft) -> None:
    """Set the outer headers of a tunnel: those of the first server count for the service."""
    outer = [
        (one.options.get("--tun-type", "ipip"), one.options.get("--tun-port")) for one in servers
    ]
    kind, port = outer[0]
    place, mark = (*path, "encapsulation"), servers[0].mark
    if kind == "gue":
        draft.set((*place, "type"), kind, mark)
        if port is not None:
            draft.set((*place, "port"), number(port), mark)
    elif kind != "ipip":
        what = f"tunnels of type {shown(kind)} have no counterpart"
        draft.note(mark, f"{what}; this encapsulates IP in IP", (*path, "forward"))
    for line, other in zip(servers, outer, strict=True):
        if other != outer[0]:
            what = "this server has another encapsulation than the first"
            draft.note(
                line.mark,
                f"{what}, which all servers of a service share here; give it a service of its own",
                path,
            )


def _interfaces(draft: Draft) -> None:
    """Placeholder names of interfaces for dsr and tunnels, since a listing has none."""
    methods = [METHODS[service["forward"]] for service in draft.data.get("services", ())]
    needing = [index for index, method in enumerate(methods) if not method.owns_vip]
    if not needing:
        return
    mark = draft.marks.value(("services", needing[0]))
    draft.set(("network", "public", "interface"), "eth0", mark)
    remedy = "write the one towards the clients"
    if any(method.neighbours for method in methods):
        draft.set(("network", "private", "interface"), "eth1", mark)
        remedy += ", and the one towards the backends"
    named = " and ".join(dict.fromkeys(methods[index].name for index in needing))
    what = f"the names of the interfaces, needed for {named}, are in no listing"
    draft.note(mark, f"{what}; {remedy}", ("network",))


def _left_out(line: _Line, path: Path, draft: Draft) -> None:
    """Note the options of one line without a counterpart."""
    words = {
        "-b": "flags of the scheduler",
        "--pe": "a persistence engine",
        "-o": "one-packet scheduling",
        "-x": "an upper threshold of connections",
        "-y": "a lower threshold of connections",
    }
    for option, what in words.items():
        if option in line.options and line.options[option] != "0":
            said = f"{option} {line.options[option]}".strip()
            draft.note(line.mark, f"{shown(said)}, {what}, has no counterpart; leave it out", path)
    mask = line.options.get("-M", _ALL_OF_IT[0])
    if mask not in _ALL_OF_IT:
        what = f"clients are kept one by one, not by the mask {shown(mask)}"
        draft.note(line.mark, f"{what}; leave it out", path)


def _persistence(lines: list[_Line], draft: Draft) -> None:
    """One persistence timeout for the whole file: the longest of the services."""
    if not lines:
        return
    times = [(number(line.options["-p"]), line.mark) for line in lines]
    for seconds, mark in times:
        if not isinstance(seconds, int):
            draft.mistake(("timeouts", "affinity"), mark, f"-p {shown(seconds)}; write seconds")
            return
    longest, mark = max(times)
    draft.set(("timeouts", "affinity"), longest, mark, "-p")
    if any(seconds != longest for seconds, _ in times):
        what = (
            f"a client is kept for one time in all services; {longest} s is the longest of theirs"
        )
        draft.note(mark, what, ("timeouts", "affinity"))
