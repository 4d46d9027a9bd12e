"""Imports LVS, the kernel's balancer: what ``ipvsadm-save`` and ``ipvsadm -L`` print, and scripts
that call ``ipvsadm``.

Lives here: ``LOOKS``, ``convert``.
Rules: commands change the services in their order, as in the kernel, but delete nothing, since
scripts have their `start` and `stop` in one file. A listing replaces what commands made. A name
instead of an address, and a variable without a value, get an address to be filled in
(``services``). Settings without a counterpart are left out, or replaced by the nearest setting, and
noted; a file without any service is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from paraglider.config.diagnostics import Mark
from paraglider.config.importers import iptables_rules, ipvsadm_listing, lvs, shell
from paraglider.config.importers.draft import Draft, counted, number
from paraglider.config.importers.endpoints import host_and_port
from paraglider.config.importers.ipvsadm_options import SERVICE, parse
from paraglider.config.importers.lvs import LvsServer, LvsService
from paraglider.config.importers.services import FIREWALL_MARK
from paraglider.config.wording import shown

LOOKS = re.compile(
    r"\s*(-A|-a|--add-service|--add-server)\s+-"
    r"|(?:(?:\[[^\]]*\][#$%])?[^#]*[\s/])?ipvsadm\s+-"
    rf"|{ipvsadm_listing.LOOKS}"
)
_WAYS = {"-m": "masquerading", "-g": "gatewaying", "-i": "tunnel"}
# Commands that show or save, which change nothing.
_SHOWING = ("-L", "-S", "-Z", "-h", "-v")
_LEFT_OUT = {
    "--pe": "a persistence engine",
    "-o": "one-packet scheduling",
    "-x": "an upper threshold of connections",
    "-y": "a lower threshold of connections",
}

# The option that names a service, and its value: where that is an address and a port, both of them.
_Key = ipvsadm_listing.Key


@dataclass(slots=True)
class _Table:
    """The services in their order, by the option and the text that name them."""

    draft: Draft
    services: dict[_Key, LvsService] = field(default_factory=dict)
    marked: dict[int, iptables_rules.Rule] = field(default_factory=dict)

    def mistake(self, mark: Mark, message: str) -> None:
        self.draft.mistake(("services",), mark, message)


def convert(text: str) -> Draft:
    """The services of a listing, or of commands."""
    draft = Draft()
    table = _Table(draft)
    rest = ipvsadm_listing.separate(text)
    others: list[Mark] = []
    try:
        _commands(table, rest.text, others)
    except shell.TooManyCommandsError as error:
        table.mistake(error.mark, str(error))
    for found in ipvsadm_listing.services(rest.rows, draft):
        table.services[found.key] = _with_mark(table, found.key, found.service)
    added = lvs.write(list(table.services.values()), draft, text)
    if others:
        what = f"{counted(len(others), 'other command')} not taken over, from this one on"
        draft.note(others[0], f"{what}; keep what is needed in a script beside paraglider.config")
    if not added and not draft.problems:
        what = "there is no service that could be taken over; save the rules with `ipvsadm-save -n`"
        draft.mistake(("services",), Mark(1, 1), what)
    return draft


def _commands(table: _Table, text: str, others: list[Mark]) -> None:
    """Change the services as the commands of ``text`` do; ``others`` gets those that are not
    ipvsadm's. Raises ``TooManyCommandsError``.
    """
    script = "ipvsadm" in text
    for command in shell.commands(text):
        words = command.words
        program = words[0].rpartition("/")[2]
        if program == "ipvsadm":
            _command(table, command.mark, words[1:])
        elif program in ("iptables", "ip6tables"):
            _marked(table, command)
            others.append(command.mark)
        elif script and not words[0].startswith("-"):
            others.append(command.mark)
        else:
            _command(table, command.mark, words)
        if table.draft.too_many_problems:
            return


def _command(table: _Table, mark: Mark, words: tuple[str, ...]) -> None:
    """Change the services as the command with ``words`` does."""
    try:
        options = parse(words)
    except ValueError as error:
        table.mistake(mark, str(error))
        return
    flag = next((flag for flag in SERVICE if flag in options), "")
    text = options.get(flag, "")
    key = ipvsadm_listing.key(flag, text)
    commands = {"-A", "-a", "-E", "-e"} & options.keys()
    if "-C" in options:
        if table.services:  # most often the `stop)` of a script that has a `start)` too
            what = f"{shown(' '.join(words))} clears the table, and is passed over"
            table.draft.note(mark, f"{what}; delete the services above it if they are to go")
    elif "--set" in options:
        _timeouts(table, mark, options["--set"].split())
    elif not commands and ("-D" in options or "-d" in options):
        what = f"{shown(' '.join(words))} deletes, and is passed over"
        table.draft.note(mark, f"{what}; delete the service here if it is to go")
    elif not commands and "-R" in options:
        what = "the rules are in another file, or come from another command"
        table.draft.note(mark, f"{what}; import that file")
    elif not commands and any(name.endswith("-daemon") for name in options):
        what = "the synchronization of connections between two hosts has no counterpart"
        table.draft.note(mark, f"{what}; see `adopt` in docs/nat.md for a pair")
    elif not commands and (not words or any(option in options for option in _SHOWING)):
        pass
    elif not flag or len(commands) != 1:
        what = "this is no line of ipvsadm-save; write `-A -t VIP:PORT -s rr` or `-a -t ...`"
        table.mistake(mark, what)
    else:
        _changed(table, mark, commands.pop(), (key, text), options)


def _changed(
    table: _Table, mark: Mark, command: str, named: tuple[_Key, str], options: dict[str, str]
) -> None:
    """Add or change one service, which is ``named`` by its key and text, or one of its servers."""
    key, text = named
    known = table.services.get(key)
    if command in ("-A", "-E"):
        if command == "-A" and known is not None:
            what = f"the service {shown(text)} is added twice"
            table.mistake(mark, f"{what}; keep one of the two")
            return
        service = _service(table, mark, key[0], options)
        if service is not None:
            service.servers = known.servers if known is not None else []
            table.services[key] = _with_mark(table, key, service)
    elif known is None:
        if key[0] != "--sctp-service":
            what = f"the service {shown(text)} of this server is in no line above"
            table.mistake(mark, f"{what}; add it with -A")
    elif "-r" not in options:
        table.mistake(mark, "this server has no address; add -r IP:PORT")
    else:
        server = _server(table, mark, options)
        if server is not None and command == "-e":
            same = (server.host, server.port)
            known.servers[:] = [one for one in known.servers if (one.host, one.port) != same]
        if server is not None:
            known.servers.append(server)


def _service(table: _Table, mark: Mark, flag: str, options: dict[str, str]) -> LvsService | None:
    text = options[flag]
    if flag == "--sctp-service":
        what = f"the service of SCTP {shown(text)} is left out"
        table.draft.note(mark, f"{what}; a service here has TCP or UDP")
        return None
    try:
        vip, port = (f"{FIREWALL_MARK}{text}", None) if flag == "-f" else host_and_port(text)
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        table.draft.note(mark, f"{what}, so the service {shown(text)} is left out; {remedy}")
        return None
    return LvsService(
        mark,
        "udp" if flag == "-u" else "tcp",
        vip,
        [port] if port else [],
        options.get("-s", "wlc"),
        options.get("-p"),
        options.get("-M", ""),
        tuple(flag for flag in options.get("-b", "").split(",") if flag),
        left_out=[(mark, what) for what in _without(options)],
    )


def _with_mark(table: _Table, key: _Key, service: LvsService) -> LvsService:
    """``service`` with what the rules of iptables say about its mark, if it is one of a mark."""
    flag, text, _ = key
    if flag != "-f":
        return service
    value = number(str(text))
    rule = table.marked.get(value) if isinstance(value, int) else None
    to = rule.condition("-d") if rule is not None else None
    if rule is None or to is None:
        return service
    protocol = rule.condition("-p")
    ports = rule.condition("--dport") or rule.condition("--dports")
    try:
        service.vip = host_and_port(to.value.partition("/")[0])[0]
        values = ports.value.split(",") if ports is not None else []
        service.ports = [_port_or_range(value) for value in values]
    except ValueError as error:
        service.notes.append((rule.mark, str(error), ("ports",)))
    if protocol is not None and protocol.value == "udp":
        service.protocol = "udp"
    return service


def _port_or_range(text: str) -> int | str:
    first, colon, last = text.partition(":")
    if colon:
        return f"{host_and_port(f'*:{first}')[1]}-{host_and_port(f'*:{last}')[1]}"
    return host_and_port(f"*:{first}")[1] or 0


def _marked(table: _Table, command: shell.ShellCommand) -> None:
    """Remember a rule that marks packets for a service."""
    rules = iptables_rules.Ruleset()
    rules.apply(command.mark, command.words[1:], 4, "filter")
    for chain in rules.chains.values():
        for rule in chain:
            marks = rule.to("--set-mark") if rule.target == "MARK" else []
            if marks:
                text = marks[0].partition("/")[0].lower()
                base = 16 if text.startswith("0x") else 10
                if re.fullmatch(r"0x[0-9a-f]{1,8}|\d{1,10}", text):
                    table.marked[int(text, base)] = rule


def _server(table: _Table, mark: Mark, options: dict[str, str]) -> LvsServer | None:
    text = options["-r"]
    try:
        real, port = host_and_port(text)
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        table.draft.note(mark, f"{what}, so the server {shown(text)} is left out; {remedy}")
        return None
    return LvsServer(
        mark,
        text,
        real,
        port or 0,
        next((word for way, word in _WAYS.items() if way in options), "gatewaying"),
        options.get("-w", "1"),
        (options.get("--tun-type", "ipip"), options.get("--tun-port")),
        tuple(_without(options)),
    )


def _without(options: dict[str, str]) -> Iterator[str]:
    """The options of one line without a counterpart."""
    for option, what in _LEFT_OUT.items():
        if option in options and options[option] != "0":
            said = f"{option} {options[option]}".strip()
            yield f"{shown(said)}, {what},"


def _timeouts(table: _Table, mark: Mark, values: list[str]) -> None:
    """`--set TCP TCPFIN UDP` in seconds, of which 0 means unchanged."""
    paths = (("timeouts", "established"), ("timeouts", "closed", "fin"), ("timeouts", "udp"))
    for path, value in zip(paths, values, strict=False):
        if value != "0":
            table.draft.set(path, number(value), mark, "--set")
