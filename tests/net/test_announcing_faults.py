"""What routers hear when something is wrong: a backend that flaps, an ExaBGP that does not read, an
announcer of little rights, and balancers without a daemon.

Real BGP sessions: ExaBGP 4.2 and BIRD by the examples, and a router with the example for BIRD.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from engines import (
    WORSE,
    BirdRouter,
    announced,
    announced_by_bird,
    announcer,
    announcers,
    bird,
    control,
    exabgp,
    place_of,
)
from fleet import PORT, VIP, Fleet, back_address
from waiting import wait_until

from paraglider.lab.fleet_topology import ROUTER
from paraglider.lab.flows import OpenFlows

pytestmark = pytest.mark.root

FLAPS = 20
RISE = 0.05  # seconds; with 0 flaps would not be counted
FLAPPING = "2001:db8:f::12"
CLOCKS = {f"clock{number}": f"203.0.113.{number}" for number in range(12, 12 + FLAPS - 1)}
USER = "exabgp"  # of Debian's package
OFFLOAD: dict[str, Any] = {"forward": "offload", "snat": {"interface": "eth1"}}
FULL = mmap.PAGESIZE - 150  # a pipe with as much has no room for a line
ALL = (1, 2, 3)


class Single:
    """One balancer, whose ExaBGP runs as Debian's unit runs it, with many VIPs."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.router = BirdRouter(fleet, directory)
        fleet.balance(edit=many_vips, **OFFLOAD)
        self.balancer = fleet.balancers[0]
        self.control = control(fleet, 1)
        self.vips = [str(each["vip"]).partition("/")[0] for each in self.file()["services"]]
        self.let(0o640)
        self._log = place_of(fleet, 1) / "exabgp.log"
        self.engine: subprocess.Popen[bytes] = exabgp(fleet, 1, 4, user=USER)
        first = "BGP.med: 100\n"
        wait_until(lambda: all(first in self.router.routes(vip) for vip in self.vips), self.log)
        (self.announcer,) = announcers(fleet, 1)

    def file(self) -> dict[str, Any]:
        """The balancer's file."""
        found: dict[str, Any] = yaml.safe_load(self.balancer.config.read_text())
        return found

    def let(self, mode: int) -> None:
        """Have the file be root's and of the announcer's group, with ``mode``."""
        os.chown(self.balancer.config, 0, pwd.getpwnam(USER).pw_gid)
        self.balancer.config.chmod(mode)

    def reload(self, **announce: Any) -> None:
        """Reload the file with another `announce`."""
        document = self.file()
        document["announce"] |= announce
        self.balancer.config.write_text(yaml.safe_dump(document))
        self.control.reload({})

    def set_state(self, service: str, vip: str, state: str) -> None:
        """Set the state of the only backend of ``service``."""
        self.control.set_backend(service, back_address(6 if ":" in vip else 4, 1), state=state)

    def set_node(self, state: str) -> None:
        """Drain the balancer, or end that, and wait until the announcer has heard it."""
        route = {"drain": "not-preferred", "ready": "announced"}[state]
        last, before = self.vips[-1], self.said(self.vips[-1], route)
        self.control.post("node", {"state": state})
        wait_until(lambda: self.said(last, route) > before, self.log)

    def said(self, vip: str, route: str = "") -> int:
        """How often the announcer has said, by its log, that ``vip`` has a route, or ``route``."""
        return len(re.findall(rf" vip={vip} route={route}", self.log()))

    def log(self) -> str:
        """That of ExaBGP, and of the announcer."""
        return self._log.read_text()

    def worse(self, vip: str) -> bool:
        """Whether the router has ``vip``, and is not to prefer this balancer."""
        return WORSE in self.router.routes(vip)

    def updates(self, kind: str) -> int:
        """How many "updates" or "withdraws" of VIPs of IPv6 the router has got."""
        found = re.search(rf"Import {kind}: +(\d+)", self.router.protocol(1, 6))
        assert found is not None
        return int(found[1])


def many_vips(_number: int, document: dict[str, Any]) -> None:
    """The file for ExaBGP as another user, with more VIPs than those of the fleet, before these."""
    announced(document, via="exabgp", neighbors=list(ROUTER.values()), rise=RISE)
    own_addresses(document)
    document["control"]["announcer"] = USER
    four, six = document["services"]
    others = [
        {**four, "name": name, "vip": f"{vip}/32", "backends": [back_address(4, 1)]}
        for name, vip in CLOCKS.items()
    ]
    flapping = {"name": "flapping", "vip": f"{FLAPPING}/128", "backends": [back_address(6, 1)]}
    document["services"][:0] = [*others, {**six, **flapping}]


@pytest.fixture(scope="module")
def single() -> Iterator[Single]:
    """In a directory that all may enter."""
    directory = Path(tempfile.mkdtemp())  # pytest's own is root's alone
    directory.chmod(0o755)
    try:
        with closing(Fleet(directory, 1)) as fleet:
            yield Single(fleet, directory)
    finally:
        shutil.rmtree(directory)


def test_the_user_of_debian(single: Single) -> None:
    """The announcer is ExaBGP's user, and has no capability, though ExaBGP has one. It reads the
    file by its group when the daemon has; one that it may not read changes nothing.
    """
    status = Path(f"/proc/{single.announcer}/status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert found["Uid"].split() == [str(pwd.getpwnam(USER).pw_uid)] * 4
    assert {found[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    single.reload(med=50)
    wait_until(lambda: "BGP.med: 50\n" in single.router.routes(VIP[4]), single.log)
    single.let(0o600)
    single.reload(med=60)
    wait_until(lambda: "the file cannot be read, as it was before" in single.log())
    single.let(0o640)
    single.reload(med=70)
    wait_until(lambda: "BGP.med: 70\n" in single.router.routes(VIP[4]), single.log)
    assert "BGP.med: 60\n" not in single.router.routes(VIP[4])
    assert single.engine.poll() is None


@contextmanager
def small_pipe(pid: int) -> Iterator[int]:
    """The pipe that the process ``pid`` writes to, which has room for some forty lines."""
    pipe = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
        yield pipe
    finally:
        os.close(pipe)


def waiting(pipe: int) -> int:
    """How many bytes are in ``pipe``."""
    found = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, "little")


def test_an_exabgp_that_does_not_read(single: Single) -> None:
    """Its pipe fills; the announcer goes on hearing the daemon, and the router gets what holds of
    each VIP when ExaBGP reads again.
    """
    with small_pipe(single.announcer) as pipe:
        single.engine.send_signal(signal.SIGSTOP)
        rounds = 0
        while waiting(pipe) < FULL:
            single.set_node("drain" if rounds % 2 == 0 else "ready")
            rounds += 1
            assert rounds < 10
        for state in ("ready", "drain") if rounds % 2 else ("drain",):
            single.set_node(state)
        assert waiting(pipe) >= FULL
        single.engine.send_signal(signal.SIGCONT)
    wait_until(lambda: all(map(single.worse, single.vips)), single.log)
    single.control.post("node", {"state": "ready"})
    wait_until(lambda: not any(map(single.worse, single.vips)), single.log)


def test_a_backend_that_flaps(single: Single) -> None:
    """Twenty times within a minute, and each time it is well for longer than `rise`: the router
    gets three changes of its VIP. Another VIP falls with it each time but the first; when that is
    announced again, `rise` is over for both.
    """
    before = single.updates("updates")
    for state, worse in (("maint", True), ("ready", False)):
        single.set_state("flapping", FLAPPING, state)
        wait_until(lambda worse=worse: single.worse(FLAPPING) is worse, single.log)
    for name, clock in CLOCKS.items():
        for state, route in (("maint", "not-preferred"), ("ready", "announced")):
            said = single.said(clock, route)
            single.set_state("flapping", FLAPPING, state)
            single.set_state(name, clock, state)
            wait_until(
                lambda clock=clock, route=route, said=said: single.said(clock, route) > said,
                single.log,
            )
    assert single.worse(FLAPPING)
    # The last word of the same session, behind all others.
    single.reload(worse_med=2000)
    wait_until(lambda: "BGP.med: 2000" in single.router.routes(FLAPPING), single.log)
    assert single.updates("updates") - before == 3 + 1, single.log()
    assert single.updates("withdraws") == 0


def by_bird(_number: int, document: dict[str, Any]) -> None:
    """The file for BIRD and balancers whose kernel goes on without a daemon."""
    announced_by_bird(document, gone="prefer_not")
    own_addresses(document)


def own_addresses(document: dict[str, Any]) -> None:
    """Those of the private interface are the host's own: `snat` takes no gateway of the file."""
    del document["network"]["private"]["gateway"]


def test_offload_without_any_daemon(tmp_path: Path) -> None:
    """All are killed: routers prefer none of the balancers, and so use all. No route is withdrawn,
    and no connection that begins then fails: the kernel chooses its backend.
    """
    with closing(Fleet(tmp_path, len(ALL))) as fleet:
        router = BirdRouter(fleet, tmp_path)
        fleet.balance(edit=by_bird, **OFFLOAD)
        for number in ALL:
            bird(fleet, number)
            announcer(fleet, number)
        router.await_hops(*ALL)
        fleet.serve()
        flows = OpenFlows(fleet.client, PORT, VIP.values(), 0, 0, rate=20.0)
        wait_until(lambda: flows.new_connections(0.0).opened > 0)
        for balancer in fleet.balancers:
            balancer.stop(signal.SIGKILL)
        for vip in VIP.values():
            wait_until(lambda vip=vip: router.routes(vip).count(WORSE) == len(ALL), router.log)
        router.await_hops(*ALL)
        # Those under way may have begun at a balancer that the router has left meanwhile.
        flows.new_connections(60.0)
        flows.count_from_now()
        wait_until(lambda: flows.new_connections(60.0).opened > 60)
        assert flows.new_connections(60.0).failed == 0
        for number in ALL:
            for family in VIP:
                assert re.search(r"Import withdraws: +0 ", router.protocol(number, family))
