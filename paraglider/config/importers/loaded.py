"""Imports loaded's ``loaded.config`` and ``loaded.config6``, a shell script that loaded also
parses.

Lives here: ``LOOKS``, ``convert``.
Rules: assignments are parsed as loaded parses them: a value ends at a blank or `#`, and every
`server4` adds a backend. loaded balances every port of the VIP and keeps a client at its backend.
``paraglider.config`` replaces the commands of the script as delivered, without flushing the host's
firewall; other commands are noted.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from paraglider.config.diagnostics import Mark, Path
from paraglider.config.importers.draft import Draft, number
from paraglider.config.wording import shown, ticked

LOOKS = re.compile(r"\s*(VIP[46]|server[46])\s*=", re.ASCII)
_ASSIGNED = re.compile(r"\s*([A-Za-z_]\w*)(\s*)=(\s*)([^\s#]*)", re.ASCII)
_QUEUED = re.compile(r".*\s-d\s+\$\{?VIP([46])\b.*\s-j\s+NFQUEUE\b")
_PROTOCOL = re.compile(r".*\s-p\s+(\S+)")
_MASQUERADED = re.compile(r"\s*ip6?tables\b.*\s-j\s+(MASQUERADE|SNAT)\b")
# The commands of the delivered scripts, which the set-up makes superfluous.
_DELIVERED = re.compile(
    r"""\s*(
        (/sbin/)?modprobe\s+(nfnetlink_queue|ip6?_queue)\b .*
      | ip6?tables\s+-P\s+(INPUT|OUTPUT|FORWARD)\s+ACCEPT
      | ip6?tables\s+-F(\s+-t\s+(mangle|nat))? (\s+\#.*)?
      | ip6?tables\s.*\$\{?(NS|VIP[46]|RIP[46])\b .*
      | ip\s+(-[46]\s+)?(addr|route|link|neigh)\s .*
      | echo\s+[01]\s*>\s*/proc/sys/net/ipv[46]/ .*
      | for\s+i\s+in\s.*;\s*do | do | done
    )\s*""",
    re.VERBOSE | re.ASCII,
)
# loaded's keys with exactly one counterpart.
_NUMBERS: dict[str, Path] = {
    "FIRST_CORE": ("workers", "first_core"),
    "LAST_CORE": ("workers", "last_core"),
    "port_alive": ("failover", "port_alive"),
    "check_cycle": ("failover", "check_cycle"),
}
_TEXTS: dict[str, Path] = {
    "public_NIC": ("network", "public", "interface"),
    "private_NIC": ("network", "private", "interface"),
    "private_GW": ("network", "private", "gateway", 0),
    "broadcast": ("failover", "broadcast"),
}
_SERVERS = ("server4", "server6")
_OTHERS = ("VIP4", "VIP4net", "RIP4", "VIP6", "VIP6net", "RIP6", "NS", "nfq_len", "strategy")
_KNOWN = {*_NUMBERS, *_TEXTS, *_SERVERS, *_OTHERS}
_LONGEST = 65536  # the longest queue that is accepted


@dataclass(slots=True)
class _Script:
    """The assignments and commands of a script, with their lines."""

    values: dict[str, tuple[str, Mark]] = field(default_factory=dict)
    servers: dict[str, list[tuple[str, Mark]]] = field(default_factory=lambda: {"4": [], "6": []})
    queued: dict[str, set[str]] = field(default_factory=lambda: {"4": set(), "6": set()})


def convert(text: str) -> Draft:
    """The services of a loaded.config: one of each family that has a VIP."""
    draft = Draft()
    script = _scanned(text, draft)
    for key, (value, mark) in script.values.items():
        if key in _NUMBERS:
            draft.set(_NUMBERS[key], number(value), mark, key)
        elif key in _TEXTS:
            draft.set(_TEXTS[key], value, mark, key)
    _special(script, draft)
    index = 0
    for family in "46":
        if f"VIP{family}" in script.values:
            _service(script, family, index, draft)
            index += 1
        elif script.servers[family]:
            mark = script.servers[family][0][1]
            draft.note(mark, f"server{family} without a VIP{family}; add VIP{family}=ADDRESS")
    if index == 0:
        mark = Mark(1, 1)
        draft.mistake(("services",), mark, "there is no VIP4 and no VIP6; write VIP4=ADDRESS")
    return draft


def _scanned(text: str, draft: Draft) -> _Script:
    script = _Script()
    for index, line in enumerate(text.split("\n")):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        mark = Mark(index + 1, len(line) - len(line.lstrip()) + 1)
        assigned = _ASSIGNED.match(line)
        if assigned:
            _assigned(assigned, mark, script, draft)
        elif words.startswith("failover"):
            script.values["failover"] = ("true", mark)
        else:
            _command(line, mark, script, draft)
        if draft.too_many_problems:
            break
    return script


def _assigned(match: re.Match[str], mark: Mark, script: _Script, draft: Draft) -> None:
    key, before, after, value = match.groups()
    value = value.strip("\"'")
    at = Mark(mark.line, match.start(4) + 1)
    if key not in _KNOWN:
        draft.note(mark, f"{ticked(key)} is none of loaded's keys; leave it out")
    elif before or after:
        draft.mistake(("services",), mark, f"blanks around the `=` of `{key}`; write {key}=VALUE")
    elif "$" in value or "`" in value:
        what = f"`{key}`: {shown(value)} is for a shell to work out"
        draft.mistake(("services",), at, f"{what}; write the value itself")
    elif key in _SERVERS:
        script.servers[key[-1]].append((value, at))
    else:
        script.values[key] = (value, at)


def _command(line: str, mark: Mark, script: _Script, draft: Draft) -> None:
    queued = _QUEUED.match(line)
    if queued:
        protocol = _PROTOCOL.match(line)
        script.queued[queued[1]].add(protocol[1] if protocol else "any")
    elif _MASQUERADED.match(line):
        what = "the backends' own connections are not masqueraded"
        draft.note(mark, f"{what}; keep this rule if they need it: {shown(line.strip())}")
    elif not _DELIVERED.fullmatch(line):
        what = f"{shown(line.strip())} is a command of your own"
        draft.note(mark, f"{what}; keep it in a script beside paraglider.config")


def _special(script: _Script, draft: Draft) -> None:
    """The keys that need more than a copy."""
    if "NS" in script.values:
        value, mark = script.values["NS"]
        host = f"[{value}]" if ":" in value else value
        draft.set(("network", "exempt", 0), f"{host}:53/udp", mark, "NS")
    if "failover" in script.values:
        draft.set(("failover", "enabled"), True, script.values["failover"][1], "failover")
    if "nfq_len" in script.values:
        value, mark = script.values["nfq_len"]
        length = number(value)
        if isinstance(length, int) and length > _LONGEST:
            length = _LONGEST
            what = f"`nfq_len` {shown(value)[1:-1]} is more than the kernel ever holds"
            draft.note(mark, f"{what}; {_LONGEST} is the most", ("queue", "length"))
        draft.set(("queue", "length"), length, mark, "nfq_len")
    gateway = script.values.get("private_GW", ("", Mark(1, 1)))[0]
    for key in ("RIP4", "RIP6"):
        if key in script.values:
            value, mark = script.values[key]
            if not _on_link(value, gateway):
                what = f"no route to `{key}` {shown(value)} comes with the gateway's address"
                draft.note(mark, f"{what}; add it with `ip route`")


def _on_link(network: str, gateway: str) -> bool:
    """True when the route to ``network`` comes with the address ``gateway``."""
    try:
        inner = ipaddress.ip_network(network, strict=False)
        outer = ipaddress.ip_interface(gateway).network
    except ValueError:
        return False
    return inner.version == outer.version and outer.supernet_of(inner)  # type: ignore[arg-type]


def _service(script: _Script, family: str, index: int, draft: Draft) -> None:
    path: Path = ("services", index)
    vip, mark = script.values[f"VIP{family}"]
    bits = script.values.get(f"VIP{family}net")
    draft.set((*path, "name"), "loaded" if family == "4" else "loaded6", mark)
    draft.set((*path, "vip"), f"{vip}/{bits[0]}" if bits else vip, mark, f"VIP{family}")
    queued = script.queued[family]
    protocol = next(iter(queued)) if len(queued) == 1 and queued < {"tcp", "udp"} else "any"
    rule = "as the rule for NFQUEUE has it" if protocol != "any" else "as loaded balances"
    draft.set((*path, "protocol"), protocol, mark, rule)
    draft.set((*path, "forward"), "nat", mark)
    draft.set((*path, "affinity"), "client", mark, "as loaded: a client keeps its backend")
    strategy, place = script.values.get("strategy", ("rr", mark))
    if strategy not in ("rr", "weighted"):
        what = f"`strategy` {shown(strategy)} is none of loaded's"
        draft.note(place, f"{what}; it is rr here", (*path, "strategy"))
        strategy = "rr"
    draft.set((*path, "strategy"), strategy, place)
    servers = script.servers[family]
    if not servers:
        remedy = f"add server{family}=ADDRESS"
        draft.mistake((*path, "backends"), mark, f"there is no server{family}; {remedy}")
    for number_, (server, where) in enumerate(servers):
        draft.set((*path, "backends", number_, "address"), server, where)
