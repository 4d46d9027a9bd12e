"""TCP flows of `forward: offload` that stay open when the first of a pair of balancers goes: the
other one adopts them, or conntrackd has told it of them. Both families at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import forging
import pytest
from fleet import CLIENTS, PORT, Fleet, Lasting, back_address, front_address
from waiting import wait_until

pytestmark = pytest.mark.root

ECHOES, DOWNS = 45, 15  # of each family
FLOWS = 2 * (ECHOES + DOWNS)
PATIENCE = 20.0  # a download begins again with a timeout of TCP's, which doubles
EXAMPLE = Path(__file__).parents[2] / "conf" / "conntrackd.conf"
SNAT, WIDTH = {4: "10.0.0.254", 6: "fd00:10::fe"}, {4: 24, 6: 64}
LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal=1"


@contextmanager
def pair(
    directory: Path, *, narrow: bool = False, **changes: Any
) -> Iterator[tuple[Fleet, Lasting]]:
    """Two balancers, the first of which has all packets, and its flows; ``narrow``: a download of
    each client address, over a narrow path beyond the router.
    """
    with closing(Fleet(directory, 2, through=True, mtu=1300 if narrow else 1500)) as fleet:
        move(fleet, 1)
        fleet.balance(**{"forward": "offload", **changes})
        fleet.serve()
        for host in fleet.hosts:
            host.sysctl(LIBERAL)
        kinds = (0, 1) if narrow else (ECHOES, DOWNS)
        flows = Lasting(fleet.client, *kinds, spread=narrow)
        assert flows.broken(PATIENCE) == 0
        yield fleet, flows


def move(fleet: Fleet, number: int) -> None:
    """All packets come to balancer ``number``, as if the other one had lost its power; it has the
    address ``SNAT``.
    """
    fleet.route([number])
    fleet.gateway(number)
    for family, host in product((4, 6), (fleet.hosts[2 - number], fleet.hosts[number - 1])):
        address = f"{SNAT[family]}/{WIDTH[family]} dev eth1"
        if host is fleet.hosts[number - 1]:
            host.ip(f"address replace {address}{' nodad' if family == 6 else ''}")
        elif SNAT[family] in host.run(["ip", "address", "show", "dev", "eth1"]).stdout:
            host.batch(f"address del {address}")
    for backend in fleet.backends:
        backend.batch("neigh flush dev eth0")


def connections(fleet: Fleet, number: int) -> int:
    """Those of the service in the table of balancer ``number``, both of whose ends have sent."""
    table = fleet.hosts[number - 1].run(["cat", "/proc/net/nf_conntrack"]).stdout
    return sum(f"port={PORT} " in line and "ASSURED" in line for line in table.splitlines())


def test_they_are_adopted(tmp_path: Path) -> None:
    """No flow breaks, and all are adopted: those of which the client sends first by one of two
    workers, the downloads by the kernel, and are counted in their direction. None breaks when they
    return.
    """
    with pair(tmp_path, workers=2) as (fleet, flows):
        move(fleet, 2)
        assert flows.broken(PATIENCE) == 0
        assert fleet.adopted(2, least=FLOWS) >= FLOWS
        wait_until(lambda: connections(fleet, 2) == FLOWS)
        wait_until(lambda: fleet.carried(2)[1] > 10 * fleet.carried(2)[0] > 0)
        move(fleet, 1)
        assert flows.broken(PATIENCE) == 0


def test_without_adoption(tmp_path: Path) -> None:
    """`adopt: never`: all break."""
    with pair(tmp_path, adopt="never") as (fleet, flows):
        move(fleet, 2)
        assert flows.broken(5.0) == FLOWS
        assert fleet.adopted(2) == 0


def test_a_narrow_path_beyond_the_router(tmp_path: Path) -> None:
    """No download hangs, neither at the balancer that has its beginning nor at the other one, which
    has adopted it: backends forget the path with their gateway, and hear of it again.
    """
    with pair(tmp_path, narrow=True) as (fleet, flows):
        move(fleet, 2)
        assert flows.broken(PATIENCE) == 0
        wait_until(lambda: narrow_paths(fleet) == sum(map(len, CLIENTS.values())))


def narrow_paths(fleet: Fleet) -> int:
    """How many paths to the client's addresses the backends know to be narrow."""
    addresses = (each for family in CLIENTS.values() for each in family)
    questions = "".join(f"route get {address}\n" for address in addresses)
    answers = [each.run(["ip", "-batch", "-"], text=questions).stdout for each in fleet.backends]
    return sum(answer.count(" mtu 1300") for answer in answers)


@contextmanager
def synchronized(fleet: Fleet, directory: Path) -> Iterator[None]:
    """conntrackd runs on both balancers meanwhile, by the example that the package has."""
    with ExitStack() as stack:
        for number, host in enumerate(fleet.hosts, 1):
            file = directory / f"conntrackd{number}.conf"
            file.write_text(example(directory, number), encoding="utf-8")
            stack.callback(host.popen(["conntrackd", "-C", str(file)]).wait)
            stack.callback(lambda one=host, at=file: one.run(["conntrackd", "-C", str(at), "-k"]))
            asking = ["conntrackd", "-C", str(file), "-s"]
            wait_until(lambda one=host, ask=asking: one.run(ask, check=False).returncode == 0)
        yield


def example(directory: Path, number: int) -> str:
    """The example, which is that of the first balancer, for balancer ``number``."""
    text = EXAMPLE.read_text(encoding="utf-8")
    found = dict(zip(addresses(1), addresses(number), strict=True))
    found[back_address(4, 202)] = back_address(4, 203 - number)
    text, count = re.subn(
        r"(?<=address )\S+|(?<=Address )\d\S+",
        lambda match: found.get(match[0], match[0]),
        text,
    )
    assert count == 8
    for place in ("/run/lock/", "/run/"):
        assert place in text
        text = text.replace(place, f"{directory}/{number}")
    return text


def addresses(number: int) -> list[str]:
    """Those of balancer ``number``, but the VIPs."""
    ends = (front_address, number), (back_address, 200 + number)
    return [address(family, n) for family in (4, 6) for address, n in ends]


@pytest.mark.parametrize("snat", [None, SNAT], ids=["", "snat"])
def test_conntrackd_knows_them(tmp_path: Path, snat: dict[int, str] | None) -> None:
    """No flow breaks, though no backend is found by a hash and nothing is adopted; nor when they
    return. Those that began before it and since are known.
    """
    changes = {"strategy": "rr", "seed": None, "snat": snat}
    with pair(tmp_path, **changes) as (fleet, flows), synchronized(fleet, tmp_path):
        wait_until(lambda: connections(fleet, 2) == FLOWS)
        more = Lasting(fleet.client, ECHOES, DOWNS)
        assert more.broken(PATIENCE) == 0
        wait_until(lambda: connections(fleet, 2) == 2 * FLOWS)
        move(fleet, 2)
        assert flows.broken(PATIENCE) + more.broken(PATIENCE) == 0
        move(fleet, 1)
        assert flows.broken(PATIENCE) + more.broken(PATIENCE) == 0
        assert fleet.adopted(1, 2) == 0


def test_what_is_no_answer_passes(tmp_path: Path) -> None:
    """A backend's own connections, from the service's port too, and, from any other, after a change
    of the balancer; and one of which another router has the requests. An answer of no connection
    does not pass.
    """
    with closing(Fleet(tmp_path, 2, through=True)) as fleet:
        fleet.balance(forward="offload", strategy="rr", seed=None)
        one, two, three = fleet.backends
        for family in (4, 6):  # to the first backend past the balancer, to the others through it
            past = f"{back_address(family, 1)} via {front_address(family, 51)}"
            fleet.router.ip(f"route add {past}")
        to_backends(fleet, 1)
        fleet.serve(fleet.client, one)
        own = Lasting(two, 3, 3, to=[addresses[0] for addresses in CLIENTS.values()])
        direct = Lasting(fleet.client, 3, 3, to=[back_address(family, 1) for family in (4, 6)])
        for backend, addresses in zip((two, three), CLIENTS.values(), strict=True):
            said = backend.run(["nc", "-N", "-p", str(PORT), addresses[0], str(PORT)], text=HELLO)
            assert said.stdout == "line\n"
        assert own.broken(PATIENCE) + direct.broken(PATIENCE) == 0
        assert strays(fleet, 1) == 0
        direct.end()
        ended = ["ss", "-Htn", "state", "connected", f"sport = :{PORT}"]
        wait_until(lambda: not one.run(ended).stdout)
        move(fleet, 2)
        to_backends(fleet, 2)
        assert own.broken(PATIENCE) == 0
        assert strays(fleet, 2) == 0
        answer_of_nothing(fleet)


HELLO = "echo\nline\n"


def to_backends(fleet: Fleet, number: int) -> None:
    """The router reaches the second and third backend through balancer ``number``."""
    for family, backend in product((4, 6), (2, 3)):
        end, via = back_address(family, backend), front_address(family, number)
        fleet.router.batch(f"route replace {end} via {via}")


def answer_of_nothing(fleet: Fleet) -> None:
    """A segment from the service's port in mid-stream gets as far as the second balancer."""
    backend, balancer = fleet.backends[2], fleet.hosts[1]
    mac = balancer.run(["cat", "/sys/class/net/eth1/address"]).stdout.strip()
    for family, addresses in CLIENTS.items():
        ends = back_address(family, 3), PORT, addresses[0], 40_000
        forging.send(backend, mac, ends, (1000, 2000), "A PA")
    wait_until(lambda: strays(fleet, 2) == 4)
    assert "dport=40000" not in balancer.run(["cat", "/proc/net/nf_conntrack"]).stdout


def strays(fleet: Fleet, number: int) -> int:
    """The answers of no connection that balancer ``number`` has dropped."""
    listing = ["nft", "list", "counters"]
    found = re.findall(
        r"counter stray \{\s+packets (\d+)", fleet.hosts[number - 1].run(listing).stdout
    )
    assert len(found) == 2
    return sum(map(int, found))
