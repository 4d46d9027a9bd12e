"""BIRD in the router and in each balancer of a lab, with BGP and BFD.

Lives here: ``balancer_configuration``, ``router_configuration`` and ``section`` (pure),
``own_addresses`` and ``gateways``, ``start``, and ``Bird``, a ``RouteSource``.
Rules: the configuration is that of conf/bird.conf and conf/bird-router.conf, with the lab's
addresses and files. `paraglider announce --bird` runs beside BIRD in each balancer.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from paraglider.lab.fleet_router import POLL, TIMEOUT, not_led
from paraglider.lab.fleet_topology import BITS, ROUTER, VIP, FleetTopology, front_address
from paraglider.lab.member import Member
from paraglider.lab.namespace import Namespace, execute
from paraglider.lab.programs import start_and_await

PROGRAM: Final = "bird"
CONTROL: Final = "bird.ctl"  # its control socket
#: names of the protocols in a balancer, by family: announced, and not preferred
_PROTOCOLS: Final = {4: "paraglider4", 6: "paraglider6"}
_WORSE: Final = {4: "worse4", 6: "worse6"}

_BEGIN: Final = """\
router id {router};
log "{directory}/bird.log" all;
"""

_DEVICE: Final = """
protocol device {
}
"""

_BFD: Final = """
protocol bfd {
    interface "eth0" {
        interval 100 ms;
        multiplier 3;
    };
}
"""

_STATIC: Final = """
protocol static {name} {{
    disabled;
    ipv{family}{channel};
    route {vip} blackhole;
}}
"""

_UPSTREAM: Final = """
filter to_router {
    if proto ~ "paraglider*" then {
        bgp_med = 100;
        accept;
    }
    if proto ~ "worse*" then {
        bgp_med = 1000;
        bgp_community.add((65535, 0));
        accept;
    }
    reject;
}

template bgp upstream {
    local as 65001;
    hold time 9;
    bfd on;
    connect delay time 1;
    connect retry time 5;
    error wait time 1, 10;
}
"""

_TO_ROUTER: Final = """
protocol bgp router{family} from upstream {{
    neighbor {router} as 65000;
    ipv{family} {{
        import none;
        export filter to_router;
        next hop self;
    }};
}}
"""

_VIPS: Final = """
define VIPS4 = [203.0.113.0/24{32,32}];
define VIPS6 = [2001:db8:f::/64{128,128}];
"""

_KERNEL: Final = """
protocol kernel {{
    ipv{family} {{ export all; }};
    merge paths on;
}}
"""

_BALANCER: Final = """
template bgp balancer{family} {{
    local {router} as 65000;
    hold time 9;
    bfd on;
    connect delay time 1;
    connect retry time 5;
    error wait time 1, 10;
    ipv{family} {{
        import where net ~ VIPS{family};
        export none;
    }};
}}
"""

_TO_BALANCER: Final = (
    "protocol bgp lb{number}v{family} from balancer{family} {{ neighbor {address} as 65001; }}\n"
)


def balancer_configuration(number: int, directory: Path) -> str:
    """The file of balancer ``number``, whose log is in ``directory``."""
    begin = _BEGIN.format(router=front_address(4, number), directory=directory)
    vips = {family: f"{vip}/{BITS[family]}" for family, vip in VIP.items()}
    static = [
        _STATIC.format(name=names[family], family=family, channel=channel, vip=vip)
        for names, channel in ((_PROTOCOLS, ""), (_WORSE, " { preference 100; }"))
        for family, vip in vips.items()
    ]
    peers = [_TO_ROUTER.format(family=family, router=ROUTER[family]) for family in VIP]
    return "".join([begin, _DEVICE, _BFD, *static, _UPSTREAM, *peers])


def router_configuration(count: int, directory: Path) -> str:
    """The file of the router of ``count`` balancers, whose log is in ``directory``."""
    begin = _BEGIN.format(router=ROUTER[4], directory=directory)
    kernel = [_KERNEL.format(family=family) for family in VIP]
    templates = [_BALANCER.format(family=family, router=ROUTER[family]) for family in VIP]
    peers = [
        _TO_BALANCER.format(number=number, family=family, address=front_address(family, number))
        for number in range(1, count + 1)
        for family in VIP
    ]
    return "".join([begin, _VIPS, _DEVICE, *kernel, _BFD, *templates, "\n", *peers])


def section(directory: Path) -> dict[str, Any]:
    """The section `announce` of the balancer whose files are in ``directory``."""
    names = {"protocols": _PROTOCOLS, "worse": _WORSE}
    return {"via": "bird", "bird": {"socket": str(directory / CONTROL), **names}}


def own_addresses(host: Namespace) -> list[str]:
    """The addresses of a balancer that may be a router's next hop, the link-local one too."""
    shown = execute(["ip", "-n", host.name, "-json", "address", "show", "dev", "eth0"]).stdout
    return [each["local"] for link in json.loads(shown) for each in link["addr_info"]]


def gateways(router: Namespace, family: int) -> list[str]:
    """The next hops of the route to the VIP of ``family``; none without a route."""
    command = ["ip", "-n", router.name, "-json", f"-{family}", "route", "show", VIP[family]]
    routes = json.loads(execute(command).stdout or "[]")
    return [hop["gateway"] for route in routes for hop in route.get("nexthops", [route])]


class Bird:
    """BIRD in the router of ``net``, with its files in ``directory``, and in its balancers."""

    def __init__(self, net: FleetTopology, directory: Path) -> None:
        self._router = net.router
        self._numbers: dict[str, int] = {}
        self._programs: dict[int, list[subprocess.Popen[bytes]]] = {}
        directory.mkdir()
        start(net.router, directory, router_configuration(len(net.hosts), directory))

    def begin(self, member: Member) -> None:
        """See ``RouteSource``; raises ``PlatformError`` if BIRD does not start."""
        self._numbers |= dict.fromkeys(own_addresses(member.host), member.number)
        place = member.directory
        running = start(member.host, place, balancer_configuration(member.number, place))
        with (place / "announce.log").open("ab") as log:
            command = [*member.command, "announce", "--bird"]
            announcer = member.host.popen(command, stdout=log, stderr=log)
        self._programs[member.number] = [announcer, running]

    def cut(self, member: Member) -> None:
        """See ``RouteSource``."""
        for running in self._programs.pop(member.number):
            running.kill()
            running.wait()

    def await_hops(self, wanted: Collection[int], since: float) -> float:
        """See ``RouteSource``; within 20 ms."""
        expected = sorted(wanted)
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = {family: self._hops(family) for family in VIP}
            now = time.monotonic()
            if all(hops == expected for hops in found.values()):
                return now - since
            if now > deadline:
                raise not_led(found, expected)
            time.sleep(POLL)

    def close(self) -> None:
        """See ``RouteSource``: the programs end with their namespaces."""

    def _hops(self, family: int) -> list[int]:
        return sorted(self._numbers[each] for each in gateways(self._router, family))


def start(host: Namespace, directory: Path, text: str) -> subprocess.Popen[bytes]:
    """Start BIRD in ``host`` with the configuration ``text`` and its files in ``directory``, and
    wait until it answers; raises ``PlatformError``.
    """
    file, control = directory / "bird.conf", directory / CONTROL
    file.write_text(text, encoding="utf-8")
    command = [PROGRAM, "-f", "-c", str(file), "-s", str(control)]
    command += ["-P", str(directory / "bird.pid")]
    asking = ["birdc", "-s", str(control), "show", "status"]
    return start_and_await(host, command, asking, directory / "bird.out")
