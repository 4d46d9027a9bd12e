"""The examples for keepalived: a pair of balancers, of which one has the addresses that VRRP moves.

Both families at once, with keepalived as it is installed.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines import keepalived
from fleet import VIP, Fleet, Lasting
from waiting import wait_until

from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root

ECHOES, DOWNS = 30, 10  # of each family
PATIENCE = 20.0  # a download begins again with a timeout of TCP's, which doubles
FRONT = {4: "192.168.0.250", 6: "2001:db8::250"}
BACK = {4: "10.0.0.254", 6: "fd00:10::fe"}
ROUTED, MOVED = "keepalived-routed.conf", "keepalived.conf"
FIRST, SECOND = [True, False], [False, True]


@contextmanager
def pair(
    directory: Path, name: str, **changes: Any
) -> Iterator[tuple[Fleet, Lasting, subprocess.Popen[bytes]]]:
    """Two balancers with the example ``name``, flows through the first, and its keepalived."""
    vips = {"192.168.0.11/24": f"{VIP[4]}/32", "2001:db8::11/64": f"{VIP[6]}/128"}
    with closing(Fleet(directory, 2)) as fleet:
        if name == ROUTED:
            fleet.lead_via(FRONT)
        else:  # the VIPs as in the router's own network
            fleet.router.batch(*(f"route replace {vip} dev eth0" for vip in VIP.values()))
        fleet.balance(edit=None if name == ROUTED else unplaced, **changes)
        started = [keepalived(fleet, n, name, {} if name == ROUTED else vips) for n in (1, 2)]
        await_holders(fleet, FIRST)
        if changes["forward"] == "nat":
            fleet.answer_by(BACK)
        fleet.serve()
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        yield fleet, flows, started[0]


def unplaced(number: int, document: dict[str, Any]) -> None:
    """The file without addresses, which keepalived sets."""
    del document["network"]


def await_holders(fleet: Fleet, wanted: list[bool]) -> None:
    """Wait until the balancers that have all moved addresses are the ``wanted`` ones, and no other
    has any.
    """

    def holds(host: Namespace) -> int:
        shown = host.run(["ip", "-oneline", "address"]).stdout
        return sum(f" {address}/" in shown for address in BACK.values())

    expected = [len(BACK) if each else 0 for each in wanted]

    def logs() -> list[str]:
        files = (one.config.parent / "keepalived.log" for one in fleet.balancers)
        return [file.read_text() for file in files]

    wait_until(lambda: [holds(host) for host in fleet.hosts] == expected, logs)


@pytest.mark.parametrize("method", ["nat", "dsr"])
def test_routed_vips(tmp_path: Path, method: str) -> None:
    """No flow breaks when the first loses its power, has it again, and its daemon is killed."""
    with pair(tmp_path, ROUTED, forward=method, carrier="worker") as (fleet, flows, _):
        without_power(fleet, flows)
        fleet.balancers[0].stop(signal.SIGKILL)
        await_holders(fleet, SECOND)
        assert flows.broken(PATIENCE) == 0


def without_power(fleet: Fleet, flows: Lasting) -> None:
    """The first has none for a while, and no flow breaks."""
    for into, holders in ((False, SECOND), (True, FIRST)):
        fleet.plug(1, into=into)
        await_holders(fleet, holders)
        assert flows.broken(PATIENCE) == 0


def test_vips_that_move(tmp_path: Path) -> None:
    """No flow breaks when the first loses its power, has it again, and its keepalived is stopped:
    the second takes over at once.
    """
    with pair(tmp_path, MOVED, forward="nat", carrier="worker") as (fleet, flows, first):
        without_power(fleet, flows)
        first.terminate()
        await_holders(fleet, SECOND)
        assert flows.broken(PATIENCE) == 0


def test_a_pair_that_does_not_hear_each_other(tmp_path: Path) -> None:
    """Both have the addresses, and packets of a flow come to either of them, now to this one and
    now to the other: no flow breaks, then and when they hear each other again.
    """
    with pair(tmp_path, ROUTED, forward="nat", carrier="worker") as (fleet, flows, _):
        front = Namespace(f"{fleet.prefix}-front", attach=True)
        for way, holders in (("on", [True, True]), ("off", FIRST)):
            for number in (1, 2):
                front.run(["bridge", "link", "set", "dev", f"lb{number}", "isolated", way])
            await_holders(fleet, holders)
            for _ in range(3):  # whoever answers first is the neighbour
                for host in (fleet.router, *fleet.backends):
                    host.batch("neigh flush dev eth0")
                assert flows.broken(PATIENCE) == 0
