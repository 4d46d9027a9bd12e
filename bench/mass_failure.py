"""Measures how long the daemon takes to detect that many backends have failed at once, or returned.

``python -m bench.mass_failure [--backends 500,1000,2000] [--services 500]`` (as root) creates one
network namespace with a balancer and its backends: one process that listens on every address of a
network that is local there. Killing it fails all backends at once (their addresses refuse), and
starting it again returns them. Checks run every second, one result is enough (``fall: 1``, ``rise:
1``). The seconds are those from the kill until ``paraglider show --json`` has all of them down, and
from the listening until it has all of them up. With ``--services`` it does the same for that many
services of 4 backends, and reloads the file with a change while checks run.

Rules: the real set-up and the real daemon; everything is removed at the end. If a process of the
daemon was killed or replaced meanwhile it is printed, and the exit code is 1.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import yaml

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import PlatformError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace

PORT: Final = 8080
#: the backends are in this network, which is local in the namespace
NETWORK: Final = "10.64.0.0/12"
#: timeout in seconds, far above the measured times
TIMEOUT: Final = 60.0
#: seconds between two polls of the backends
LOOK: Final = 0.05
#: seconds after which every backend has been checked again
SETTLED: Final = 3.0
_LISTENER: Final = f"""
import socket, sys
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("0.0.0.0", {PORT}))
sock.listen(4096)
print("listening", flush=True)
while True:
    sock.accept()[0].close()
"""


def configuration(services: int, backends: int, **more: Any) -> dict[str, Any]:
    """``services`` services with ``backends`` checked backends each."""
    check = {"type": "tcp", "interval": 1, "rise": 1, "fall": 1}
    address = (f"10.{64 + n // 62500}.{n // 250 % 250}.{1 + n % 250}" for n in range(1 << 18))
    return {
        "network": {"public": {"interface": "pub0"}, "private": {"interface": "prv0"}},
        "services": [
            {
                "name": f"s{n}",
                "vip": f"192.168.{n // 250}.{1 + n % 250}/16",
                "protocol": "tcp",
                "ports": PORT,
                "check": check,
                "backends": [next(address) for _ in range(backends)],
                **more,
            }
            for n in range(services)
        ],
    }


class World:
    """The namespace, the balancer and its backends."""

    def __init__(self, name: str, directory: Path, config: dict[str, Any]) -> None:
        self.namespace = Namespace(name)
        self.namespace.ip(
            "link add pub0 type veth peer name pub1",
            "link add prv0 type veth peer name prv1",
            *(f"link set {name} up" for name in ("pub0", "pub1", "prv0", "prv1")),
            f"route add local {NETWORK} dev lo",
        )
        control = directory / "control.sock"
        config = {**config, "control": {"socket": str(control)}}
        self.balancer = LabBalancer(self.namespace, directory, yaml.safe_dump(config))
        self.control = ControlClient(str(control))
        self._listener: Any = None

    def listen(self) -> float:
        """Start the backends; returns when they listen (monotonic seconds)."""
        self._listener = self.namespace.popen([sys.executable, "-c", _LISTENER], stdout=-1)
        self._listener.stdout.readline()
        return time.monotonic()

    def fail(self) -> float:
        """Kill all backends at once; returns when (monotonic seconds)."""
        self._listener.send_signal(signal.SIGKILL)
        self._listener.wait()
        return time.monotonic()

    def until(self, ready: int, begun: float) -> float:
        """Seconds from ``begun`` until ``ready`` backends take flows, by ``show services``."""
        while (asked := time.monotonic()) < begun + TIMEOUT:
            if sum(row["ready"] for row in self.control.get("services")) == ready:
                return asked - begun
            time.sleep(LOOK)
        raise PlatformError(f"not {ready} backends take flows after {TIMEOUT:g} s")

    def starts(self) -> int:
        """How often the daemon has started processes."""
        return sum(row["starts"] for row in self.control.get("workers"))

    def close(self) -> None:
        """Stop the balancer and remove everything."""
        try:
            self.balancer.close()
        finally:
            self.namespace.close()


@contextmanager
def world(services: int, backends: int) -> Iterator[World]:
    """A running balancer with all backends up."""
    with tempfile.TemporaryDirectory(prefix="mass-failure-") as directory:
        made = World(f"pg{os.getpid()}-lb", Path(directory), configuration(services, backends))
        try:
            made.listen()
            made.balancer.set_up()
            made.balancer.start()
            made.until(services * backends, time.monotonic())
            time.sleep(SETTLED)  # every backend has been checked
            yield made
        finally:
            made.close()


def measure(services: int, backends: int) -> bool:
    """Fail all backends and return them; returns whether no process was replaced meanwhile."""
    count = services * backends
    with world(services, backends) as made:
        begun = made.starts()
        down = made.until(0, made.fail())
        time.sleep(SETTLED)
        up = made.until(count, made.listen())
        words = (
            f"{services} x {backends} backends: all down after {down:.2f} s, up after {up:.2f} s"
        )
        if services > 1:
            words += f"; a reload answered after {reload(made):.2f} s"
        calm = made.starts() == begun and not made.balancer.trouble()
    click.echo(words + ("" if calm else "; PROCESSES WERE REPLACED"))
    return calm


def reload(made: World) -> float:
    """Seconds of a reload that changes the weight of one backend of each service."""
    config = yaml.safe_load(made.balancer.config.read_text())
    for service in config["services"]:
        service["backends"][0] = {"address": service["backends"][0], "weight": 3}
    made.balancer.config.write_text(yaml.safe_dump(config))
    begun = time.monotonic()
    changed = made.control.reload({})["changed"]
    if len(changed) != len(config["services"]):
        raise PlatformError(f"the reload changed {len(changed)} things")
    return time.monotonic() - begun


@click.command()
@click.option("--backends", default="500,1000,2000", help="Of one service, by turns.")
@click.option("--services", default=500, help="Of 4 backends each; 0 leaves them out.")
def main(backends: str, services: int) -> None:
    """Measure how long mass failures take to be detected."""
    kinds = [(1, int(count)) for count in backends.split(",") if count]
    if services:
        kinds.append((services, 4))
    calm = [measure(*kind) for kind in kinds]
    sys.exit(0 if all(calm) else 1)


if __name__ == "__main__":
    main()
