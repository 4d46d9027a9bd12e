"""One of several balancers of the lab, with what happens to it.

Lives here: ``Member``.
Rules: only the operator's commands are used, signals, and cables. A command whose effect is timed
is sent over the control socket, without the start of a program.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.fleet_topology import FleetTopology

#: seconds that the unit's stop waits for the last packets (conf/paraglider.service)
_SILENCE: Final = "5"


class Member:
    """Balancer ``number`` of ``net``, with the configuration ``document`` and the files in
    ``directory``, which may be read by a daemon without privileges.
    """

    def __init__(
        self, net: FleetTopology, number: int, directory: Path, document: dict[str, Any]
    ) -> None:
        self.number = number
        self.directory = directory
        self.host = net.hosts[number - 1]
        self._net = net
        (directory / "empty").mkdir(parents=True)
        text = yaml.safe_dump(document, sort_keys=False)
        self.balancer = LabBalancer(self.host, directory, text)
        self.control = ControlClient(str(directory / "control.sock"))

    @property
    def command(self) -> list[str]:
        """`paraglider` with this balancer's file."""
        return [sys.executable, "-m", "paraglider", "-c", str(self.balancer.config)]

    def start(self) -> None:
        """Start the daemon and wait until it is ready; raises ``PlatformError``."""
        self.balancer.start()

    def kill(self) -> None:
        """Kill the daemon."""
        self.balancer.stop(signal.SIGKILL)

    def unplug(self) -> None:
        """Pull both cables: as its neighbours see it, the balancer has lost its power."""
        self._net.plug(self.number, into=False)

    def plug(self) -> None:
        """Plug both cables in."""
        self._net.plug(self.number, into=True)

    def drain(self, *, until_restart: bool = False) -> None:
        """As `paraglider node drain`."""
        self.control.post("node", {"state": "drain", "until_restart": until_restart})

    def ready(self) -> None:
        """As `paraglider node ready`."""
        self.control.post("node", {"state": "ready"})

    def await_silence(self) -> None:
        """Wait for the last packets, as the unit does before the daemon's end."""
        wait = ["node", "drain", "--until-restart", "--wait", _SILENCE]
        self.host.run([*self.command, *wait])

    def restart(self) -> None:
        """Stop the daemon and start it again, as for an upgrade; raises ``PlatformError``."""
        self.balancer.stop()
        self.balancer.start()
