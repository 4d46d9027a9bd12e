"""Several balancers of one VIP behind a router, for tests of what happens when one goes.

Lives here: ``Fleet``, the lab's network with balancers, and ``Lasting``, a client's flows.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from inside import InsideBalancer
from waiting import wait_until

from paraglider.lab.direct import set_up as set_up_backends
from paraglider.lab.direct import undo as undo_backend
from paraglider.lab.fleet_configuration import PORT, fleet_document
from paraglider.lab.fleet_topology import (
    CLIENTS,
    ROUTER,
    VIP,
    FleetTopology,
    back_address,
    front_address,
)
from paraglider.lab.flows import OpenFlows, serve
from paraglider.lab.namespace import Namespace
from paraglider.lab.scenario import neighbouring_cores

__all__ = ["CLIENTS", "PORT", "VIP", "Fleet", "Lasting", "back_address", "front_address"]


class Fleet(FleetTopology):
    """``count`` balancers and three backends, which answer through the first balancer if it is
    ``through``; ``directory`` gets the files.
    """

    def __init__(
        self, directory: Path, count: int, *, through: bool = False, mtu: int = 1500
    ) -> None:
        self._directory = directory
        self.balancers: list[InsideBalancer] = []
        super().__init__(count, mtu=mtu)
        try:
            self.route(range(1, count + 1))
            self.gateway(1 if through else 0)
        except BaseException:
            self.close()
            raise

    def route(self, active: Iterable[int]) -> None:
        """Have the router send packets to the VIPs to the balancers ``active``."""
        numbers = tuple(active)
        for family in VIP:
            self.lead(family, numbers)

    def gateway(self, number: int) -> None:
        """Have the backends answer through balancer ``number``; 0: directly to the router."""
        by = {family: back_address(family, 200 + number) for family in VIP}
        self.answer_by(by if number else ROUTER)

    def balance(
        self,
        workers: int = 1,
        openings_rate: int = 30_000,
        *,
        edit: Callable[[int, dict[str, Any]], None] | None = None,
        **changes: Any,
    ) -> list[InsideBalancer]:
        """Start a daemon in each host, with one file but for the gateway. ``changes`` are of both
        services; a value may be a dictionary by family, and None leaves a key out. ``edit`` gets
        the number of each balancer and its file, which it may change.
        """
        first, last = neighbouring_cores(workers, frozenset(os.sched_getaffinity(0)))
        routed = changes.get("forward") in ("dsr", "tunnel")
        for number, host in enumerate(self.hosts, 1):
            directory = self._directory / f"lb{number}"
            (directory / "empty").mkdir(parents=True)
            document = fleet_document(number, directory, (first, last), **changes)
            document["flows"] = {"max": 10_000}
            document["queue"] = {"openings_rate": openings_rate}
            if edit is not None:
                edit(number, document)
            text = yaml.safe_dump(document, sort_keys=False)
            balancer = InsideBalancer(host, directory, text)
            self.balancers.append(balancer)
            balancer.set_up()
            balancer.start()
        if routed or changes.get("return") == "direct":
            config = self.balancers[0].config
            set_up_backends(self.backends, config, [f"web{family}" for family in (4, 6)])
        return self.balancers

    def serve(self, *hosts: Namespace) -> None:
        """Start the server of lasting flows in each backend, or in other ``hosts``, and wait until
        it listens.
        """
        serve(hosts or self.backends, PORT)

    def set_state(self, number: int, backend: int, state: str) -> None:
        """Set the state of a backend at balancer ``number``."""
        for family in (4, 6):
            name = f"web{family}/{back_address(family, backend)}"
            self._run(number, "set", "backend", name, "state", state)

    def adopted(self, *numbers: int, least: int = 0) -> int:
        """The flows that the balancers ``numbers`` have adopted, when they have counted ``least``:
        the workers write their counters some times a second.
        """

        def count() -> int:
            shown = (json.loads(self._run(number, "show", "--json")) for number in numbers)
            return sum(row["adopted"] for rows in shown for row in rows)

        wait_until(lambda: count() >= least)
        return count()

    def carried(self, number: int) -> tuple[int, int]:
        """The bytes to the backends, and to the clients, that balancer ``number`` has counted."""
        rows = json.loads(self._run(number, "show", "--json"))
        into, out = (sum(row[f"bytes_{way}"] or 0 for row in rows) for way in ("in", "out"))
        return into, out

    def counted(self, number: int, what: str) -> int:
        """What the workers of balancer ``number`` have counted: packets that were dropped for a
        reason, flows by their end.
        """
        rows = json.loads(self._run(number, "show", "workers", "--json"))
        return sum(row.get("counts", {}).get(what, 0) for row in rows)

    def _run(self, number: int, *arguments: str) -> str:
        """The output of a command of balancer ``number``."""
        one = self.balancers[number - 1]
        command = [sys.executable, "-m", "paraglider", "-c", str(one.config), *arguments]
        return one.namespace.run(command).stdout

    def close(self) -> None:
        """Stop and undo everything, and remove the network."""
        for backend in self.backends if self.balancers else ():
            undo_backend(backend, self.balancers[0].config)
        for balancer in self.balancers:
            balancer.stop()
        for balancer in self.balancers:
            balancer.undo()
        self.balancers.clear()
        super().close()


class Lasting(OpenFlows):
    """Open flows of the client to the VIPs, or ``to`` other addresses: ``echoes`` and ``downs`` of
    each family, or of each of its addresses if they are ``spread``; of TCP or UDP.
    """

    def __init__(
        self,
        client: Namespace,
        echoes: int,
        downs: int,
        *,
        spread: bool = False,
        protocol: str = "tcp",
        to: Iterable[str] = VIP.values(),
    ) -> None:
        ends = [f"{VIP[family]}@{each}" for family in (4, 6) for each in CLIENTS[family]]
        super().__init__(client, PORT, ends if spread else to, echoes, downs, protocol=protocol)
