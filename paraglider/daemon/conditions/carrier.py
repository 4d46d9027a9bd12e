"""The switch of the BPF carrier: on if BPF carries nat's flows, off if only the workers do.

    off    the host helper detaches the program, so that every packet reaches a worker again; the
           workers read the state of their flows from the program's entries, and delete them
    on     the host helper attaches the program, and the workers install their flows

A process that starts inherits the position. A reload keeps it; a restart of the daemon does not.

It also logs what decides about the flows of each service, at the start and after each change: of
the file, of the position, and of the room for tables.

Lives here: ``CarrierSwitch``.
Rules: does not block; the position changes after the host helper has succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from paraglider.config.deciding import carried_by_workers, deciders
from paraglider.config.model import Config, Service
from paraglider.config.service import Method
from paraglider.daemon import log
from paraglider.daemon.conditions.table import Condition
from paraglider.daemon.messages import CarrierDevices, CarrierReading, Message, SetCarrier
from paraglider.errors import OperatorError, ParagliderError, PlatformError

#: called with the interfaces that have the programs now, or with the error
Switched = Callable[[CarrierDevices | ParagliderError], object]
#: requests the host helper to attach or detach the program
Attach = Callable[[bool, Switched], object]
#: sends a message to all processes that carry flows, and calls back when they have applied it
Send = Callable[[Message, Callable[[], object]], object]


class CarrierSwitch:
    """The position (``on``), and the last reading of the program's counters (``read``);
    ``lacking`` is the reason why BPF cannot carry on this host, empty if it can; ``xdp``: the
    program for XDP was loaded too; ``lacks`` has the forward methods that BPF cannot carry on this
    kernel, and why; ``unplaced`` are the names of services for whose tables the
    kernel has no room, as a worker reported them.
    """

    def __init__(
        self,
        lacking: str = "no program was loaded at the start",
        *,
        xdp: bool = False,
        lacks: Mapping[Method, str] | None = None,
    ) -> None:
        self.lacking = lacking
        self.xdp = xdp
        self.lacks = lacks or {}
        self.on = not lacking
        self.read = CarrierReading()
        self.unplaced: frozenset[str] = frozenset()
        self._deciders: dict[str, str] = {}  # as logged: why a worker decides, by service
        self._attach: Attach = lambda _, then: then(PlatformError("the daemon is being started"))
        self._send: Send = lambda _, then: then()
        self._log: Any = log.logger()

    @property
    def able(self) -> bool:
        """Whether BPF can carry here."""
        return not self.lacking

    @property
    def carries(self) -> Literal["worker", "bpf", "xdp"]:
        """What carries flows that may be carried by all three."""
        if not self.on or self.unattached:
            return "worker"
        return "xdp" if self.read.xdp else "bpf"

    def carries_for(self, service: Service) -> Literal["worker", "bpf", "xdp"] | None:
        """What carries the flows of ``service``; None if its method has one carrier only."""
        if "carrier" not in service.method.options:
            return None
        if not service.wants_bpf or service.method in self.lacks or carried_by_workers(service):
            return "worker"
        carries = self.carries
        return carries if service.wants_xdp or carries == "worker" else "bpf"

    def why_worker(self, config: Config) -> str:
        """Why workers carry all flows of ``config``; empty if BPF carries some."""
        wanting = [service for service in config.services if service.wants_bpf]
        if not wanting:
            return "no service has `carrier: auto`, `bpf` or `xdp`"
        if self.lacking or not self.on:
            return self.lacking or "switched off by the operator"
        if all(service.method in self.lacks for service in wanting):
            return self.lacks[wanting[0].method]
        return self.unattached

    @property
    def unattached(self) -> str:
        """Why no interface has a program though the switch is on; empty if one has, or is to get
        it.
        """
        read = self.read
        if not self.on or read.devices or read.xdp or not read.failed:
            return ""
        why = "; ".join(f"{name}: {reason}" for name, reason in read.failed.items())
        return f"no interface has the program: {why}"

    def assess(self) -> dict[str, Condition]:
        """The conditions of the interfaces at which the kernel refuses the program."""
        return {
            f"interface {name}": Condition(
                "degraded",
                f"the BPF program is not attached, so {_instead(name, self.read)} what comes in"
                f" there: {why}",
            )
            for name, why in self.read.failed.items()
            if self.on
        }

    def connect(self, attach: Attach, send: Send) -> None:
        """Set the functions that reach the host helper (``attach``) and the workers (``send``)."""
        self._attach, self._send = attach, send

    def log_deciders(self, services: Iterable[Service]) -> None:
        """Log what decides about the flows of those ``services`` for which that has changed."""
        known = tuple(services)
        found = deciders(known, bpf=self.on, unplaced=self.unplaced, lacks=self.lacks)
        for why, names in found.items():
            changed = [name for name in names if self._deciders.get(name) != why]
            if changed:
                by = "python" if why else "kernel"
                self._log.info("flows decided", by=by, why=why, services=", ".join(changed))
        # A worker still decides about flows of the others if it did before.
        before = ((one.name, self._deciders.get(one.name)) for one in known)
        self._deciders = {name: why for name, why in before if why}
        self._deciders |= {name: why for why, names in found.items() for name in names}

    def switch(self, on: bool, then: Callable[[ParagliderError | None], object]) -> None:
        """Switch; ``then`` is called when the workers have done so too, or with the error. Raises
        ``OperatorError`` if BPF cannot carry on this host.
        """
        if not self.able:
            what = f"BPF carries no flow here: {self.lacking}"
            raise OperatorError(what, "`paraglider check --host` and docs/carrier.md have more")

        def switched(result: CarrierDevices | ParagliderError) -> None:
            if isinstance(result, ParagliderError):
                then(result)
                return
            self.on = on
            self.read = self.read.model_copy(update={"devices": result.devices, "xdp": result.xdp})
            self._log.info("carrier switched by the operator", state="on" if on else "off")
            self._send(SetCarrier(on=on), lambda: then(None))

        self._attach(on, switched)


def _instead(interface: str, read: CarrierReading) -> str:
    return "XDP and workers carry" if interface in read.xdp else "workers carry"
