"""``paraglider lab``: build the network, set up, balance, show the answers, remove.

Lives here: ``LabOptions``, the lab's configuration and ``Lab`` (one run).
Rules: the lab uses only the operator's commands (set-up and daemon), and reports only what it has
counted in this run. It removes everything at its end, also after an error.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console, RenderableType
from rich.markup import escape

from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.base import ForwardMethod
from paraglider.forward.registry import methods
from paraglider.lab import carrier, direct, port_forward, removal, topology, xdp
from paraglider.lab.balancer import LabBalancer, StaticBalancer, start_backend
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.namespace import Namespace
from paraglider.lab.results import ResultRow, count_answers, ping_counts, table
from paraglider.lab.topology import GATEWAY, PRIVATE_PREFIX, PUBLIC_PREFIX, VIP, Plan, Topology

HTTP_PORT = 80
UDP_PORT = 5353
ANY_VIP = {4: "192.168.0.12", 6: "2001:db8::12"}
STATIC = "static"  # not a `forward` of the file: the kernel alone, by `paraglider start`
FORWARDS = (*(method.name for method in methods()), STATIC)
FAMILIES = (4, 6)


@dataclass(frozen=True)
class LabOptions:
    """The options of ``paraglider lab``; ``connections`` is per family and protocol, ``carrier``
    that of the services, None for the default, ``balancers`` the number of active ones, None for a
    lab with one or with a ``pair``.
    """

    forward: str = "nat"
    workers: int = 1
    connections: int = 30
    backends: int = 3
    keep: bool = False
    failover: bool = False
    carrier: str | None = None
    balancers: int | None = None
    pair: bool = False

    @property
    def static(self) -> bool:
        """Whether the kernel alone balances."""
        return self.forward == STATIC

    @property
    def method(self) -> ForwardMethod:
        """The method of the services; for the kernel alone that of conntrack."""
        return next(
            method
            for method in methods()
            if (method.conntracked if self.static else method.name == self.forward)
        )

    @property
    def chooses_carrier(self) -> bool:
        """Whether the method has more than one carrier."""
        return not self.static and "carrier" in self.method.options


def neighbouring_cores(wanted: int, allowed: frozenset[int]) -> tuple[int, int]:
    """First and last of ``wanted`` neighbouring cores among ``allowed``.

    Raises ``OperatorError`` when there are not enough.
    """
    for first in sorted(allowed):
        if all(core in allowed for core in range(first, first + wanted)):
            return first, first + wanted - 1
    raise OperatorError(
        f"{wanted} workers need {wanted} neighbouring cores, and this process may run on "
        f"{', '.join(map(str, sorted(allowed)))}",
        "give fewer --workers",
    )


def configuration(options: LabOptions, directory: Path, allowed: frozenset[int]) -> str:
    """The lab's configuration file: a TCP, a UDP and an all-protocols service per family; TCP only
    with ``forward: proxy``.
    """
    first, last = neighbouring_cores(options.workers, allowed)
    services: list[dict[str, object]] = []
    for family in FAMILIES:
        common = {
            "forward": options.method.name,
            "strategy": "rr",
            "backends": [
                topology.backend_address(family, number)
                for number in range(1, options.backends + 1)
            ],
            **({} if options.carrier is None else {"carrier": options.carrier}),
        }
        vip = f"{VIP[family]}/{PUBLIC_PREFIX[family]}"
        any_vip = f"{ANY_VIP[family]}/{PUBLIC_PREFIX[family]}"
        services.append(
            {"name": f"web{family}", "vip": vip, "protocol": "tcp", "ports": HTTP_PORT, **common}
        )
        if options.method.listens:
            continue
        services += [
            {"name": f"echo{family}", "vip": vip, "protocol": "udp", "ports": UDP_PORT, **common},
            {"name": f"all{family}", "vip": any_vip, "protocol": "any", **common},
        ]
    network: dict[str, object] = {"public": {"interface": "eth0"}}
    if options.method.owns_vip or options.method.neighbours:  # else a router is in between
        gateways = [f"{GATEWAY[family]}/{PRIVATE_PREFIX[family]}" for family in FAMILIES]
        network["private"] = {"interface": "eth1", "gateway": gateways}
    document: dict[str, object] = {
        "workers": {"first_core": first, "last_core": last},
        "chroot": str(directory / "empty"),
        "control": {"socket": str(directory / "control.sock")},
        "network": network,
        "services": services,
    }
    if options.keep and not options.static:
        document["stats"] = {"bind": f"{port_forward.ADDRESS}:{port_forward.PORT}", "admin": True}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


class Lab:
    """One run of the lab; ``run`` returns whether it had no faults."""

    def __init__(self, options: LabOptions, console: Console) -> None:
        if options.connections < options.backends:
            raise OperatorError(
                f"{options.connections} connections cannot reach {options.backends} backends",
                "give at least as many --connections",
            )
        carrier.refuse(options.forward, options.carrier, chooses=options.chooses_carrier)
        self.options = options
        self.console = console
        self.prefix = topology.new_prefix()
        name = f"paraglider-lab-{self.prefix}-{secrets.token_hex(4)}"
        self.directory = Path(tempfile.gettempdir()) / name
        self._undo_needed = True
        self._balancer: LabBalancer | None = None
        self._config = self._configuration(frozenset(os.sched_getaffinity(0)))

    def run(self) -> bool:
        """Run the scenario; ``keep`` leaves everything up. Ctrl-C removes everything and is
        raised.
        """
        kept = False
        with Interrupts() as interrupts:
            try:
                try:
                    good = self._run(interrupts)
                    if self.options.keep:
                        self._note()
                        kept = True
                    return good
                finally:
                    self._clean(interrupts, kept)
            finally:
                self._clean(interrupts, kept)

    def _configuration(self, cores: frozenset[int]) -> str:
        return configuration(self.options, self.directory, cores)

    def _run(self, interrupts: Interrupts) -> bool:
        options, show = self.options, self._print
        removal.prepare()
        (self.directory / "empty").mkdir(parents=True, mode=0o700)
        show(
            f"[bold]1.[/] Building a client, a balancer and {options.backends} backends as network"
            f" namespaces [cyan]{self.prefix}-*[/]"
        )
        bypassed = not options.method.owns_vip
        far = bypassed and not options.method.neighbours
        built = Topology(Plan(options.backends, direct=bypassed, far=far), prefix=self.prefix)
        for number, backend in enumerate(built.backends, 1):
            start_backend(backend, f"backend{number}", http=(HTTP_PORT,), udp=(UDP_PORT,))
        static = options.static
        xdp.prepare_for(options.carrier, built.namespaces)
        make = StaticBalancer if static else LabBalancer
        balancer = self._balancer = make(built.balancer, self.directory, self._config)
        command = "paraglider start" if static else "paraglider.config"
        show(f"[bold]2.[/] Setting the balancer up: [cyan]{command} -c {balancer.config}[/]")
        with interrupts.deferred():
            balancer.hold_pins()  # mounts are undone if it is known that there are some
            balancer.set_up()
            if not options.method.owns_vip:
                names = [
                    str(service["name"]) for service in yaml.safe_load(self._config)["services"]
                ]
                show(
                    "   and each backend: [cyan]paraglider backend-setup -c"
                    f" {balancer.config} {' '.join(names)} --apply[/]"
                )
                direct.set_up(built.backends, balancer.config, names)
        workers = "1 worker" if options.workers == 1 else f"{options.workers} workers"
        daemon = f"Starting the daemon, {workers}: [cyan]paraglider -c {balancer.config}[/]"
        show(f"[bold]3.[/] {'No daemon: the kernel balances' if static else daemon}")
        balancer.start()
        show(
            f"[bold]4.[/] Opening {options.connections} connections per protocol and family from"
            " the client"
        )
        rows = self._measure(built)
        show(table(rows, options.backends))
        faults = [fault for row in rows for fault in row.faults(options.workers)]
        faults += self._check_bypass(built)
        if options.chooses_carrier:
            found = carrier.counted(balancer.carrier, options.carrier)
            show(f"   {escape(carrier.described(found))}")
            faults += carrier.faults_of(found, options.carrier)
        faults += [f"error in the daemon's log: {line}" for line in balancer.trouble()]
        for fault in faults:
            show(f"[red]✗[/] {escape(fault)}")
        if not options.keep:
            faults += self._end(balancer, interrupts, 5)
        if not faults:
            shares = "/".join(map(str, rows[0].counts))
            show(
                "[green]✓[/] Every backend answered over IPv4 and IPv6; round robin shared"
                f" {options.connections} connections {shares}."
            )
        return not faults

    def _end(self, balancer: LabBalancer, interrupts: Interrupts, step: int) -> list[str]:
        """Stop the daemon and undo the set-up, as step number ``step``; returns the faults."""
        daemon = "" if self.options.static else "Stopping the daemon, "
        end = f"{daemon}undoing the set-up, removing the namespaces"
        self._print(f"[bold]{step}.[/] {end[0].upper()}{end[1:]}")
        faults = []
        code = balancer.stop()
        if code != 0:
            faults.append(f"the daemon ended with exit {code}")
            self._print(f"[red]✗[/] {escape(faults[-1])}")
        with interrupts.deferred():
            balancer.undo()
            self._undo_needed = False
        return faults

    def _measure(self, built: Topology) -> list[ResultRow]:
        """Open the client's connections; one row per protocol and family."""
        rows = []
        tries = [("tcp", HTTP_PORT, VIP), ("udp", UDP_PORT, VIP), ("ping", 0, ANY_VIP)]
        for protocol, port, vips in tries[:1] if self.options.method.listens else tries:
            for family in FAMILIES:
                before = ping_counts(built.backends, family)
                command = [sys.executable, "-m", "paraglider.lab.client", protocol]
                command += [vips[family], str(port), str(self.options.connections)]
                done = built.client.run(command, timeout=120)
                row = count_answers(protocol, family, done.stdout, self.options.backends)
                if protocol == "ping":
                    after = ping_counts(built.backends, family)
                    row = row.with_counts(after[i] - before[i] for i in range(len(after)))
                rows.append(row)
        return rows

    def _check_bypass(self, built: Topology) -> list[str]:
        """If backends have the VIP, check that answers bypass the balancer; returns the faults."""
        if self.options.method.owns_vip:
            return []
        try:
            found = direct.download(built, HTTP_PORT)
        except PlatformError as error:
            return [str(error)]
        self._print(
            f"   Downloaded {found.got:,} bytes; meanwhile the balancer sent {found.sent:,} bytes"
            " to the client's network"
        )
        return found.faults()

    def _note(self) -> None:
        """Write the note by which `--down` finds this lab, and print commands to try."""
        removal.STATE.mkdir(mode=0o755, exist_ok=True)
        note = {"prefix": self.prefix, "directory": str(self.directory)}
        removal.note_path(self.prefix).write_text(json.dumps(note), encoding="utf-8")
        client, balancer = f"{self.prefix}-client", f"{self.prefix}-balancer"
        hints = (
            ("Request over IPv4", f"ip netns exec {client} curl http://{VIP[4]}/"),
            ("Request over IPv6", f"ip netns exec {client} curl 'http://[{VIP[6]}]/'"),
            *self._inside(client, balancer),
            *self._page(client, balancer),
            ("Its configuration", f"cat {self.directory / 'paraglider.conf'}"),
            ("Remove the lab", "paraglider lab --down"),
        )
        self.console.print("The lab is running. Commands to try, as root:")
        for what, command in hints:
            self.console.print(
                f"  {what + ':':<26}[cyan]{command}[/]", highlight=False, soft_wrap=True
            )

    def _page(self, client: str, balancer: str) -> tuple[tuple[str, str], ...]:
        """Start continuous traffic and the port forward of the stats page, with a daemon."""
        if self.options.static:
            return ()
        command = [sys.executable, "-m", "paraglider.lab.traffic", str(HTTP_PORT)]
        Namespace(client, attach=True).popen([*command, *VIP.values()])
        url = port_forward.open_port_forward(Namespace(balancer, attach=True))
        return (
            ("Stats page", url),
            ("Its token, for changes", f"cat {self.directory / 'stats.token'}"),
        )

    def _inside(self, client: str, balancer: str) -> tuple[tuple[str, str], ...]:
        """Commands that show the balancer's rules, queues, connections and log."""
        log = ("The daemon's log", f"tail -f {self.directory / 'daemon.log'}")
        if self.options.method.listens:
            return (("The connections", f"ip netns exec {balancer} ss -tnp"), log)
        common = (
            ("Ping a backend", f"ip netns exec {client} ping {ANY_VIP[4]}"),
            ("The rules", f"ip netns exec {balancer} iptables-save"),
        )
        if self.options.static:
            return (
                *common,
                ("The table", f"ip netns exec {balancer} nft list ruleset"),
                ("The counters", f"ip netns exec {balancer} paraglider show"),
            )
        queues = "cat /proc/net/netfilter/nfnetlink_queue"
        return (*common, ("The queues", f"ip netns exec {balancer} {queues}"), log)

    def _print(self, what: RenderableType) -> None:
        self.console.print(what, highlight=False, soft_wrap=isinstance(what, str))

    def _clean(self, interrupts: Interrupts, kept: bool) -> None:
        if not kept:
            interrupts.ignore()
            try:
                known = self._balancer
                started = () if known is None else known.namespace.started()
                removal.remove(self.prefix, self.directory, undo=self._undo_needed, started=started)
            finally:
                if self._balancer is not None:
                    self._balancer.release_pins()
