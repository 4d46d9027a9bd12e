"""The examples for BGP: a router leads packets to the balancers that can serve them, as `paraglider
announce` tells ExaBGP (4.2 and 5) or BIRD.

Three balancers behind a router with the example for BIRD; both families at once.
"""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from engines import (
    WORSE,
    BirdRouter,
    announced,
    announced_by_bird,
    announcer,
    announcers,
    bird,
    birdc,
    control,
    exabgp,
    place_of,
)
from fleet import PORT, VIP, Fleet, back_address
from waiting import TIMEOUT, wait_until

from paraglider.lab.flows import OpenFlows

pytestmark = pytest.mark.root

ECHOES, DOWNS = 20, 10  # of each family
RATE = 5.0  # new connections a second, of each family
PATIENCE = 15.0
ALL = (1, 2, 3)
OTHER = "203.0.113.12"  # another VIP
ROUTERS = ["192.168.0.254", "2001:db8::254"]
DRAIN, READY = {"state": "drain"}, {"state": "ready"}


class Served:
    """Flows of the client; ``whole`` after each event."""

    def __init__(self, fleet: Fleet) -> None:
        fleet.serve()
        self._flows = OpenFlows(fleet.client, PORT, VIP.values(), ECHOES, DOWNS, rate=RATE)
        self.whole()

    def whole(self) -> None:
        """All flows go on, and no connection that began since the last time has failed."""
        assert self._flows.broken(PATIENCE) == 0
        assert self._flows.new_connections(PATIENCE).failed == 0
        self._flows.count_from_now()


def by_exabgp(number: int, document: dict[str, Any]) -> None:
    """The file for ExaBGP, with a service of another VIP."""
    announced(document, via="exabgp", neighbors=ROUTERS)
    first = document["services"][0]
    backends = [back_address(4, 1)]
    other = {"name": "other", "vip": f"{OTHER}/32", "backends": backends}
    document["services"].append({**first, **other})


def test_exabgp(tmp_path: Path) -> None:
    """No flow breaks and no new connection fails when a daemon is killed and returns, another one
    is restarted, a session is reset, a balancer is drained while its ExaBGP stands still, or an
    ExaBGP is killed. A route goes with the daemon, not with the session. The dead pool of another
    VIP changes no route of this one.
    """
    with closing(Fleet(tmp_path, 3)) as fleet:
        router = BirdRouter(fleet, tmp_path)
        fleet.balance(edit=by_exabgp, forward="dsr", carrier="worker")
        engines = {number: exabgp(fleet, number, 5 if number == 3 else 4) for number in ALL}
        router.await_hops(*ALL)
        served = Served(fleet)

        before = [router.ages(vip) for vip in VIP.values()]
        for number in ALL:
            control(fleet, number).set_backend("other", back_address(4, 1), state="maint")
        wait_until(lambda: router.routes(OTHER).count(WORSE) == len(ALL))
        for vip, (routes, since) in zip(VIP.values(), before, strict=True):
            # BIRD makes the times anew from its own clock, and rounds them.
            assert router.ages(vip) == (routes, pytest.approx(since, abs=0.05))
            assert len(since) == len(ALL)

        # With either version of ExaBGP: the one dies, the other is restarted as by its unit.
        for number, how in ((2, signal.SIGKILL), (3, signal.SIGTERM)):
            if how is signal.SIGTERM:
                control(fleet, number).post("node", {**DRAIN, "until_restart": True})
            fleet.balancers[number - 1].stop(how)
            router.await_hops(*(each for each in ALL if each != number))
            assert "Established" in router.protocol(number, 4)
            fleet.balancers[number - 1].start()
            router.await_hops(*ALL)
        served.whole()

        for number in (2, 3):
            since = router.protocol(number, 4)
            for family in VIP:
                router.birdc("restart", f"lb{number}v{family}")
            wait_until(lambda number=number, since=since: router.protocol(number, 4) != since)
            router.await_hops(*ALL)
        served.whole()

        engines[1].send_signal(signal.SIGSTOP)
        control(fleet, 1).post("node", DRAIN)
        engines[1].send_signal(signal.SIGCONT)
        router.await_hops(2, 3)
        assert WORSE in router.routes(VIP[4])
        served.whole()
        control(fleet, 1).post("node", READY)
        router.await_hops(*ALL)

        for number in (1, 3):
            engines[number].kill()
            router.await_hops(*(each for each in ALL if each != number))
            wait_until(lambda number=number: not announcers(fleet, number))
            exabgp(fleet, number, 5 if number == 3 else 4)
            router.await_hops(*ALL)
        served.whole()


def by_bird(number: int, document: dict[str, Any]) -> None:
    """The file for BIRD."""
    announced_by_bird(document)


def test_bird(tmp_path: Path) -> None:
    """No flow breaks and no new connection fails when a balancer loses its power, which BFD
    notices, and returns; when it is drained while its BIRD stands still; when BIRD reads its file
    again; and when the announcer is stopped, which withdraws, or ends though BIRD stands still.
    """
    with closing(Fleet(tmp_path, 3)) as fleet:
        router = BirdRouter(fleet, tmp_path)
        fleet.balance(edit=by_bird, carrier="worker", **{"forward": "nat", "return": "direct"})
        engines = {number: bird(fleet, number) for number in ALL}
        running = {number: announcer(fleet, number) for number in ALL}
        router.await_hops(*ALL)
        served = Served(fleet)

        fleet.plug(2, into=False)
        router.await_hops(1, 3)
        for family in VIP:
            assert f"lb2v{family}: BFD session down" in router.log()
        served.whole()
        fleet.plug(2, into=True)
        router.await_hops(*ALL)

        engines[1].send_signal(signal.SIGSTOP)
        control(fleet, 1).post("node", DRAIN)
        router.await_hops(2, 3)
        engines[1].send_signal(signal.SIGCONT)
        wait_until(lambda: all(WORSE in router.routes(vip) for vip in VIP.values()))
        router.await_hops(2, 3)
        control(fleet, 1).post("node", READY)
        router.await_hops(*ALL)
        served.whole()

        birdc(place_of(fleet, 3), "configure")
        wait_until(lambda: enabled(fleet, 3) == 4)
        router.await_hops(*ALL)

        running[2].terminate()
        assert running[2].wait(TIMEOUT) == 0
        router.await_hops(1, 3)
        served.whole()
        engines[3].send_signal(signal.SIGSTOP)
        running[3].terminate()
        assert running[3].wait(TIMEOUT) == 0


def enabled(fleet: Fleet, number: int) -> int:
    """How many of BIRD's protocols that `paraglider announce` enables are up."""
    lines = birdc(place_of(fleet, number), "show", "protocols").splitlines()
    return sum(line.startswith(("paraglider", "worse")) and " up " in line for line in lines)
