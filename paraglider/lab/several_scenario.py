"""The lab of several balancers: one of them goes and returns, in every way, under load.

Lives here: ``SeveralLab``, what ``fleet_scenario`` and ``pair_scenario`` have in common.
Rules: as in ``scenario``. The same flows stay open over all events; after one that broke some, all
are opened anew, so that each row counts as many. An event is over when the router leads packets as
expected and every flow has gone on, or is broken.
"""

from __future__ import annotations

import shutil
import time
from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from paraglider.errors import OperatorError, ParagliderError
from paraglider.forward.registry import methods
from paraglider.lab import direct, removal, xdp
from paraglider.lab.event_table import EventRow, event_table
from paraglider.lab.fleet_configuration import PORT, SERVICES, fleet_document
from paraglider.lab.fleet_topology import VIP, FleetTopology
from paraglider.lab.flows import OpenFlows, serve
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.member import Member
from paraglider.lab.scenario import Lab, LabOptions, neighbouring_cores

#: methods with flows that can go on at another balancer
FORWARDS = tuple(method.name for method in methods() if not method.listens)
#: what happens, in this order; each leaves all balancers as they were
ACTS: Final = ("kill", "power", "drain", "upgrade")
RATE: Final = 20.0  # new connections a second to each VIP
#: seconds that a flow has to go on: TCP's timeout doubles while packets are lost
PATIENCE: Final = 20.0


def installed(program: str, wanted: bool | None) -> bool:
    """Whether ``program`` is installed, unless ``wanted`` says whether it is to be used."""
    return shutil.which(program) is not None if wanted is None else wanted


class SeveralLab(Lab):
    """One run with ``acts``; ``run`` returns whether no flow broke."""

    #: how the option is spelt, the number of balancers, and the one to which things happen
    option: str
    count: int
    victim: int
    #: what the router and the others run beside the daemons, for the lab's output
    beside: str

    def __init__(self, options: LabOptions, console: Console, acts: Collection[str] = ACTS) -> None:
        self._refuse(options)
        self._faults: list[str] = []
        self._rows: list[EventRow] = []
        self._members: list[Member] = []
        self._flows: OpenFlows | None = None
        self._acts = acts
        super().__init__(options, console)

    def _refuse(self, options: LabOptions) -> None:
        """Raise ``OperatorError`` for options that clash."""
        if options.pair and options.balancers is not None:
            raise OperatorError(
                "--balancers has several active balancers, --pair two of which one is active",
                "give one of the two options",
            )
        for option, given in (("-f", options.failover), ("--keep", options.keep)):
            if given:
                raise OperatorError(
                    f"{option} is for the lab of one balancer",
                    f"leave out {option} or {self.option}",
                )
        if options.forward not in FORWARDS:
            raise OperatorError(
                f"no connection of --forward {options.forward} continues at another balancer",
                f"with {self.option} use --forward {', '.join(FORWARDS[:-1])} or {FORWARDS[-1]}",
            )

    def _configuration(self, cores: frozenset[int]) -> str:
        self._cores = neighbouring_cores(self.options.workers, cores)
        return ""  # each balancer has a file of its own

    @abstractmethod
    def _document(self, number: int) -> dict[str, Any]:
        """The file of balancer ``number``."""

    @abstractmethod
    def _prepare(self, net: FleetTopology, interrupts: Interrupts) -> None:
        """Prepare what leads packets to the balancers."""

    @abstractmethod
    def _begin(self, member: Member) -> None:
        """Start what runs beside the daemon of ``member``, which runs."""

    @abstractmethod
    def _cut(self, member: Member) -> None:
        """End that, without a word to others: ``member`` has no cables any more."""

    @abstractmethod
    def _await(self, since: float, *, out: bool) -> float:
        """Wait until packets go to the balancers that are to have them while the victim is ``out``,
        or not; returns how many seconds after ``since`` they did. Raises ``PlatformError``.
        """

    @abstractmethod
    def _close(self) -> None:
        """End what leads packets to the balancers; may be called again."""

    def _file(self, number: int, **changes: Any) -> dict[str, Any]:
        """The file of balancer ``number`` with the options of the lab."""
        options = self.options
        return fleet_document(
            number,
            self.directory / f"lb{number}",
            self._cores,
            backends=options.backends,
            forward=options.method.name,
            carrier=options.carrier,
            **changes,
        )

    def _run(self, interrupts: Interrupts) -> bool:
        options, show = self.options, self._print
        removal.prepare()
        self.directory.mkdir(mode=0o755)
        show(
            f"[bold]1.[/] Building a client, two routers, {self.count} balancers and"
            f" {options.backends} backends as network namespaces [cyan]{self.prefix}-*[/]"
        )
        net = FleetTopology(self.count, backends=options.backends, prefix=self.prefix)
        serve(net.backends, PORT)
        xdp.prepare_for(options.carrier, net.namespaces)
        for number in range(1, self.count + 1):
            place = self.directory / f"lb{number}"
            self._members.append(Member(net, number, place, self._document(number)))
        config = self._members[0].balancer.config
        show(f"[bold]2.[/] Setting each balancer up: [cyan]paraglider.config -c {config}[/] …")
        with interrupts.deferred():
            for member in self._members:
                member.balancer.hold_pins()  # mounts are undone if it is known that there are some
                member.balancer.set_up()
            if direct.needed(config):
                names = list(SERVICES.values())
                show(
                    "   and each backend: [cyan]paraglider backend-setup -c"
                    f" {config} {' '.join(names)} --apply[/]"
                )
                direct.set_up(net.backends, config, names)
        show(f"[bold]3.[/] Starting the daemons, and {self.beside}")
        self._prepare(net, interrupts)
        for member in self._members:
            member.start()
            self._begin(member)
        self._await(time.monotonic(), out=False)
        show(
            f"[bold]4.[/] Opening {options.connections} flows of each family, which stay open, and"
            f" {RATE:g} new connections a second of each"
        )
        self._story(net)
        show("[bold]5.[/] Stopping the daemons, undoing the set-ups, removing the namespaces")
        self._end_all(interrupts)
        return self._verdict()

    def _story(self, net: FleetTopology) -> None:
        """All events, and their table."""
        try:
            for act in self._acts:
                for what, do in self._events(act):
                    self._event(net, what, do)
        except ParagliderError as error:
            self._fault(str(error))
        self._print(event_table(f"Balancer {self.victim} of {self.count}", self._rows))
        for member in self._members:
            if member.number != self.victim:  # which was killed
                for line in member.balancer.trouble():
                    self._fault(f"error in the log of balancer {member.number}: {line}")

    def _verdict(self) -> bool:
        """Print whether flows broke; returns whether none did, and nothing else is wrong."""
        broken = [row for row in self._rows if row.broken]
        if broken:
            events = "events" if len(broken) > 1 else "event"
            self._print(f"[red]✗[/] Flows broke in {len(broken)} {events}.")
        elif not self._faults:
            self._print(f"[green]✓[/] In {len(self._rows)} events no flow broke.")
        return not self._faults and not broken

    def _events(self, act: str) -> list[tuple[str, Callable[[], float]]]:
        """The events of ``act``; the functions return when the router knew, in seconds."""
        return {
            "kill": [("is killed", self._kill), ("comes back", self._start)],
            "power": [("loses its power", self._unplug), ("is back", self._plug)],
            "drain": [("is drained", self._drain), ("is ready again", self._ready)],
            "upgrade": [("is restarted (upgrade)", self._upgrade)],
        }[act]

    def _event(self, net: FleetTopology, what: str, do: Callable[[], float]) -> None:
        flows = self._opened(net)
        flows.count_from_now()
        knew = do()
        broken = flows.broken(PATIENCE)
        count = self.options.connections * len(VIP)
        row = EventRow(what, count, broken, flows.new_connections(PATIENCE), knew)
        self._rows.append(row)
        self._print(f"   Balancer {self.victim} {what}: {escape(row.summary())}")

    def _opened(self, net: FleetTopology) -> OpenFlows:
        """The open flows, of which none is broken."""
        if self._flows is not None and self._flows.broken(PATIENCE):
            self._flows.end()
            self._flows = None
        if self._flows is None:
            downs = -(-self.options.connections // 4)
            echoes = self.options.connections - downs
            self._flows = OpenFlows(net.client, PORT, VIP.values(), echoes, downs, rate=RATE)
            if broken := self._flows.broken(PATIENCE):
                self._fault(f"{broken} flows did not go on though nothing happened")
        return self._flows

    @property
    def _victim(self) -> Member:
        return self._members[self.victim - 1]

    def _kill(self) -> float:
        since = time.monotonic()
        self._victim.kill()
        return self._await(since, out=True)

    def _start(self) -> float:
        self._victim.start()
        return self._await(time.monotonic(), out=False)

    def _unplug(self) -> float:
        since = time.monotonic()
        self._victim.unplug()
        self._cut(self._victim)
        self._victim.kill()
        return self._await(since, out=True)

    def _plug(self) -> float:
        self._victim.plug()
        self._victim.start()
        self._begin(self._victim)
        return self._await(time.monotonic(), out=False)

    def _drain(self) -> float:
        since = time.monotonic()
        self._victim.drain()
        return self._await(since, out=True)

    def _ready(self) -> float:
        since = time.monotonic()
        self._victim.ready()
        return self._await(since, out=False)

    def _upgrade(self) -> float:
        since = time.monotonic()
        self._victim.drain(until_restart=True)
        knew = self._await(since, out=True)
        self._victim.await_silence()
        self._victim.restart()
        self._await(time.monotonic(), out=False)
        return knew

    def _fault(self, what: str) -> None:
        """Print and record a fault."""
        self._faults.append(what)
        self._print(f"[red]✗[/] {escape(what)}")

    def _end_all(self, interrupts: Interrupts) -> None:
        self._close()
        for member in self._members:
            if code := member.balancer.stop():
                self._fault(f"the daemon of balancer {member.number} ended with exit {code}")
        with interrupts.deferred():
            for member in self._members:
                member.balancer.undo()
            self._undo_needed = False

    def _clean(self, interrupts: Interrupts, kept: bool) -> None:
        interrupts.ignore()
        balancers = [member.balancer for member in self._members]
        try:
            self._close()
        finally:
            try:
                started = [pid for each in balancers for pid in each.namespace.started()]
                removal.remove(self.prefix, self.directory, undo=self._undo_needed, started=started)
            finally:
                for each in balancers:
                    each.release_pins()
