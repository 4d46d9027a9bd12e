"""The programs that announce or move VIPs, run from the examples in ``conf/``, for a ``Fleet``.

An example is used as it is, but for its paths and for what differs between balancers: so the file
itself is tested. The programs run in the namespaces of the fleet, with all files in the test's
directory, and end with it.

Lives here: ``BirdRouter``, and the functions that start a program of one balancer.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from examples import CONF
from fleet import VIP, Fleet, front_address
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.bird import gateways, own_addresses, section, start
from paraglider.lab.namespace import Namespace

#: ExaBGP of Debian, which is 4.2, and of the test extra, which is 5
EXABGP: Final = {4: "/usr/sbin/exabgp", 5: str(Path(sys.executable).parent / "exabgp")}
_OURS: Final = "/usr/bin/paraglider"
_FILE: Final = "/etc/paraglider/paraglider.conf"
_LOG: Final = "log syslog all;"
_TIME: Final = re.compile(r"\b(\d\d):(\d\d):(\d\d\.\d{3})\b")
#: a route that routers are not to prefer, as BIRD shows it
WORSE: Final = "BGP.med: 1000"
#: runs a program as another user
_AS_USER: Final = str(Path(__file__).parent / "as_user.py")


def example(name: str, changes: dict[str, str]) -> str:
    """The example ``name``, with other text in place of the keys of ``changes``."""
    text = (CONF / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class BirdRouter:
    """BIRD in the router of ``fleet``, which follows the routes of the balancers."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self._host = fleet.router
        self._place = directory / "router"
        self._place.mkdir()
        self._numbers: dict[str, int] = {}
        for number, host in enumerate(fleet.hosts, 1):
            self._numbers |= dict.fromkeys(own_addresses(host), number)
        for family in VIP:
            fleet.lead(family, ())
        _bird(self._host, self._place, "bird-router.conf", {})
        self.birdc("debug", "all", "{ events }")

    def birdc(self, *words: str) -> str:
        """The output of BIRD's command."""
        return birdc(self._place, *words)

    def routes(self, vip: str) -> str:
        """All that BIRD has of the routes to ``vip``, with the time since when it has each."""
        return self.birdc("show", "route", "all", "for", vip)

    def ages(self, vip: str) -> tuple[str, list[float]]:
        """The same without the times, and these, in seconds of the day."""
        text = self.routes(vip)
        times = [float(h) * 3600 + float(m) * 60 + float(s) for h, m, s in _TIME.findall(text)]
        return _TIME.sub("", text), times

    def protocol(self, number: int, family: int) -> str:
        """The state of the session with balancer ``number``, and since when."""
        return self.birdc("show", "protocols", "all", f"lb{number}v{family}")

    def await_hops(self, *numbers: int) -> None:
        """Wait until the kernel leads the VIPs of both families to the balancers ``numbers``."""
        wanted = [set(numbers)] * len(VIP)
        wait_until(lambda: self._hops() == wanted, lambda: (numbers, self._hops(), self.log()))

    def log(self) -> str:
        """BIRD's log, with the events of sessions, and the state of all."""
        return (self._place / "bird.log").read_text() + self.birdc("show", "protocols")

    def _hops(self) -> list[set[int]]:
        return [set(map(self._numbers.__getitem__, gateways(self._host, each))) for each in VIP]


def birdc(place: Path, *words: str) -> str:
    """The output of a command of the BIRD whose files are in ``place``."""
    command = ["birdc", "-s", str(place / "bird.ctl"), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout


def bird(fleet: Fleet, number: int) -> subprocess.Popen[bytes]:
    """Start BIRD in balancer ``number``, and return it once it answers."""
    own = {"router id 192.168.0.1;": f"router id {front_address(4, number)};"}
    return _bird(fleet.hosts[number - 1], place_of(fleet, number), "bird.conf", own)


def _bird(
    host: Namespace, place: Path, name: str, changes: dict[str, str]
) -> subprocess.Popen[bytes]:
    return start(host, place, example(name, {**changes, _LOG: f'log "{place}/bird.log" all;'}))


def exabgp(
    fleet: Fleet, number: int, version: int, *, user: str = "root"
) -> subprocess.Popen[bytes]:
    """Start ExaBGP in balancer ``number``, which starts `paraglider announce`; as ``user`` with the
    capability that Debian's unit gives it.
    """
    place = place_of(fleet, number)
    file = place / "exabgp.conf"
    changes = {
        _OURS: f"{sys.executable} -m paraglider",
        _FILE: str(fleet.balancers[number - 1].config),
        **{f"{front_address(family, 1)};": f"{front_address(family, number)};" for family in VIP},
    }
    file.write_text(example("exabgp.conf", changes), encoding="utf-8")
    # Started as root it becomes that user. The pipes of its own commands would be in /run.
    environment = {"exabgp_daemon_user": user, "exabgp_api_cli": "false"}
    command = [EXABGP[version], str(file)]
    if user != "root":
        command = [sys.executable, _AS_USER, user, "net_admin", *command]
    with (place / "exabgp.log").open("ab") as log:
        return fleet.hosts[number - 1].popen(command, stdout=log, stderr=log, env=environment)


def announcers(fleet: Fleet, number: int) -> list[int]:
    """The processes of `paraglider announce` in balancer ``number``."""

    def announces(pid: int) -> bool:
        try:
            return b"\0announce\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it has ended
            return False

    return [pid for pid in fleet.hosts[number - 1].pids() if announces(pid)]


def announcer(fleet: Fleet, number: int) -> subprocess.Popen[bytes]:
    """Start `paraglider announce` in balancer ``number``, as paraglider-announce.service does."""
    config = fleet.balancers[number - 1].config
    command = [sys.executable, "-m", "paraglider", "announce", "-c", str(config)]
    with (place_of(fleet, number) / "announce.log").open("ab") as log:
        return fleet.hosts[number - 1].popen(command, stdout=log, stderr=log)


def keepalived(
    fleet: Fleet, number: int, name: str, changes: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start keepalived in balancer ``number`` of a pair, with the example ``name``."""
    place = place_of(fleet, number)
    file = place / "keepalived.conf"
    # By env: keepalived follows links to a program, and a virtual environment's Python is one.
    config = fleet.balancers[number - 1].config
    program = f"/usr/bin/env {sys.executable} -m paraglider -c {config}"
    other = {"priority 150": "priority 100"} if number == 2 else {}
    text = example(name, {_OURS: program, **other, **changes})
    file.write_text(text, encoding="utf-8")
    command = ["keepalived", "--dont-fork", "--vrrp", "--log-console", "--no-syslog"]
    files = {"--use-file": file, "--pid": place / "k.pid", "--vrrp_pid": place / "vrrp.pid"}
    files["--bfd_pid"] = place / "bfd.pid"  # from 2.3 on it is looked at, though nothing uses it
    with (place / "keepalived.log").open("ab") as log:
        return fleet.hosts[number - 1].popen(
            [*command, *(f"{option}={path}" for option, path in files.items())],
            stdout=log,
            stderr=log,
        )


def place_of(fleet: Fleet, number: int) -> Path:
    """The directory of balancer ``number``."""
    return fleet.balancers[number - 1].config.parent


def control(fleet: Fleet, number: int) -> ControlClient:
    """The control socket of balancer ``number``."""
    return ControlClient(str(place_of(fleet, number) / "control.sock"))


def announced(document: dict[str, Any], **section: Any) -> None:
    """Have the file announce its VIPs, at once when they are well, by a process of root, who may
    read the test's files.
    """
    document["control"]["announcer"] = "root"
    document["announce"] = {"rise": 0, **section}


def announced_by_bird(document: dict[str, Any], **changes: Any) -> None:
    """The same by the protocols of the example for BIRD."""
    announced(document, **section(Path(document["control"]["socket"]).parent), **changes)
