"""Flows that stay open when their balancer goes: another balancer adopts them.

Both families at once. Without adoption flows break in each of these events, which the tests of
`adopt: never` show.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from carrying import mac
from fleet import CLIENTS, PORT, VIP, Fleet, Lasting, back_address, front_address
from unsent import unsent
from waiting import wait_until

from bench.syns import NETWORKS
from paraglider.lab.balancer import start_backend

pytestmark = pytest.mark.root

ECHOES, DOWNS = 45, 15  # of each family
PATIENCE = 10.0
TRIES = 5
TABLE = 300  # flows of a small table
STRAYS = 60_000
SYNS = Path(__file__).parents[2] / "bench" / "syns.py"

carriers = pytest.mark.parametrize("carrier", ["worker", "bpf"])
METHODS = {
    "direct": {"forward": "nat", "return": "direct"},
    "dsr": {"forward": "dsr"},
    "tunnel": {"forward": "tunnel"},
    "nat": {"forward": "nat"},
}


def three_active(
    directory: Path, patience: float, least: int = 0, **changes: Any
) -> tuple[int, int]:
    """How many flows break when one of three active balancers is killed and the router follows,
    and how many the others adopt, of which ``least`` are awaited.
    """
    with closing(Fleet(directory, 3)) as fleet:
        fleet.balance(**changes)
        fleet.serve()
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        fleet.balancers[1].stop(signal.SIGKILL)
        fleet.route([1, 3])
        return flows.broken(patience), fleet.adopted(1, 3, least=least)


def fail_over(fleet: Fleet) -> None:
    """The first of a pair is killed, and all packets come to the second."""
    fleet.balancers[0].stop(signal.SIGKILL)
    fleet.route([2])
    fleet.gateway(2)


def pair(directory: Path, patience: float, least: int = 0, **changes: Any) -> tuple[int, int]:
    """The same if the first of a pair is killed, through which the backends answer."""
    with closing(Fleet(directory, 2, through=True)) as fleet:
        fleet.route([1])
        fleet.balance(**changes)
        fleet.serve()
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        fail_over(fleet)
        return flows.broken(patience), fleet.adopted(2, least=least)


def broken_after_drain(
    directory: Path, echoes: int, downs: int, protocol: str = "tcp", **changes: Any
) -> int:
    """How many flows break if a backend drains, and then the first of a pair is killed."""
    with closing(Fleet(directory, 2, through=True)) as fleet:
        fleet.route([1])
        fleet.balance(protocol=protocol, **changes)
        fleet.serve()
        flows = Lasting(fleet.client, echoes, downs, protocol=protocol)
        assert flows.broken(PATIENCE) == 0
        for number in (1, 2):
            fleet.set_state(number, 1, "drain")
        fail_over(fleet)
        return flows.broken(PATIENCE)


@carriers
@pytest.mark.parametrize("method", ["direct", "dsr", "tunnel"])
def test_one_of_three_is_killed(tmp_path: Path, method: str, carrier: str) -> None:
    """No flow breaks, and the others have adopted those of the dead one."""
    some = 2 * (ECHOES + DOWNS) // 6
    broken, adopted = three_active(tmp_path, PATIENCE, some, carrier=carrier, **METHODS[method])
    assert broken == 0
    assert adopted >= some


@carriers
def test_the_first_of_a_pair_is_killed(tmp_path: Path, carrier: str) -> None:
    """No flow breaks; the other balancer adopts all, by whichever side speaks first, which comes to
    the same of its two workers.
    """
    every = 2 * (ECHOES + DOWNS)
    changes = {"carrier": carrier, "workers": 2, **METHODS["nat"]}
    assert pair(tmp_path, PATIENCE, every, **changes) == (0, every)


@pytest.mark.parametrize("method", ["direct", "nat"])
def test_the_killed_one_returns(tmp_path: Path, method: str) -> None:
    """No flow breaks when packets come to it again: one of three, and the first of a pair."""
    one_at_a_time = method == "nat"
    every = [1, 2] if one_at_a_time else [1, 2, 3]
    with closing(Fleet(tmp_path, len(every), through=one_at_a_time)) as fleet:
        fleet.route(every[:1] if one_at_a_time else every)
        fleet.balance(carrier="worker", **METHODS[method])
        fleet.serve()
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        if one_at_a_time:
            fail_over(fleet)
        else:
            fleet.balancers[0].stop(signal.SIGKILL)
            fleet.route(every[1:])
        assert flows.broken(PATIENCE) == 0
        fleet.balancers[0].start()
        fleet.route(every[:1] if one_at_a_time else every)
        if one_at_a_time:
            fleet.gateway(1)
        assert flows.broken(PATIENCE) == 0


@pytest.mark.parametrize("method", ["direct", "dsr", "tunnel", "nat"])
def test_without_adoption(tmp_path: Path, method: str) -> None:
    """`adopt: never`: the flows of the dead balancer break."""
    changes = {**METHODS[method], "carrier": "worker", "adopt": "never"}
    broken, adopted = (pair if method == "nat" else three_active)(tmp_path, 3.0, **changes)
    assert broken > 2 * (ECHOES + DOWNS) // 6
    assert adopted == 0


@pytest.mark.parametrize("adopt", ["auto", "never"])
@carriers
def test_datagrams_that_only_the_backends_send(tmp_path: Path, carrier: str, adopt: str) -> None:
    """After the first of a pair is gone, they reach the client from the VIP; without adoption none
    does.
    """
    with closing(Fleet(tmp_path, 2, through=True)) as fleet:
        fleet.route([1])
        fleet.balance(forward="nat", carrier=carrier, protocol="udp", adopt=adopt)
        fleet.serve()
        flows = Lasting(fleet.client, 0, DOWNS, protocol="udp")
        assert flows.broken(PATIENCE) == 0
        fail_over(fleet)
        if adopt == "auto":
            assert flows.broken(PATIENCE) == 0
            assert fleet.adopted(2, least=2 * DOWNS) == 2 * DOWNS
        else:
            assert flows.broken(3.0) == 2 * DOWNS
            wait_until(lambda: fleet.counted(2, "from_forgotten") > 2 * DOWNS)


def test_datagrams_of_a_backend_that_drains(tmp_path: Path) -> None:
    """The client goes on first, and the second of a pair leads it to another backend, which says
    nothing: the flow goes to the backend that has gone on sending.
    """
    assert broken_after_drain(tmp_path, DOWNS, 0, "udp", forward="nat", carrier="worker") == 0


@pytest.mark.parametrize("method", ["direct", "dsr"])
def test_datagrams_when_one_of_three_is_killed(tmp_path: Path, method: str) -> None:
    """They come to the backends of before, by whichever balancer."""
    with closing(Fleet(tmp_path, 3)) as fleet:
        fleet.balance(protocol="udp", carrier="worker", **METHODS[method])
        for number, backend in enumerate(fleet.backends, 1):
            start_backend(backend, f"backend{number}", http=(), udp=(PORT,))
        before = answers(fleet)
        assert {*before} == {"backend1", "backend2", "backend3"}
        fleet.balancers[1].stop(signal.SIGKILL)
        fleet.route([1, 3])
        assert answers(fleet) == before


def answers(fleet: Fleet) -> list[str]:
    """Which backends answer datagrams, each time from the same ports of the client."""
    count, seconds, pause, first = "20", "20", "0", "20000"
    found: list[str] = []
    for vip in VIP.values():
        asking = ["udp", vip, str(PORT), count, seconds, pause, first]
        said = fleet.client.run([sys.executable, "-m", "paraglider.lab.client", *asking]).stdout
        found += [json.loads(line)["answer"] for line in said.splitlines()]
    return found


@carriers
def test_downloads_from_a_service_on_all_ports(tmp_path: Path, carrier: str) -> None:
    """Only the backends send, and what they send might be of their own connections."""
    changes = {"carrier": carrier, "ports": None, **METHODS["nat"]}
    with closing(Fleet(tmp_path, 2, through=True)) as fleet:
        fleet.route([1])
        fleet.balance(**changes)
        fleet.serve()
        flows = Lasting(fleet.client, 0, DOWNS)
        assert flows.broken(PATIENCE) == 0
        fail_over(fleet)
        assert flows.broken(PATIENCE) == 0
        assert fleet.adopted(2, least=2 * DOWNS) == 2 * DOWNS


def test_a_backends_own_connections(tmp_path: Path) -> None:
    """To where a client is, through a balancer that has forgotten them: none ends, beside a service
    on all ports.
    """
    with closing(Fleet(tmp_path, 1, through=True)) as fleet:
        fleet.balance(forward="nat", carrier="worker", ports=None)
        for family in (4, 6):
            network = f"{back_address(family, 0)}/{24 if family == 4 else 64}"
            fleet.router.batch(f"route add {network} via {front_address(family, 1)}")
        fleet.serve(fleet.client)
        flows = Lasting(fleet.backends[0], 5, 5, to=[each[0] for each in CLIENTS.values()])
        assert flows.broken(PATIENCE) == 0
        fleet.balancers[0].stop()
        fleet.balancers[0].start()
        assert flows.broken(PATIENCE) == 0


def test_where_the_kernel_decides(tmp_path: Path) -> None:
    """Its table and adoption lead to the same backends: no flow breaks."""
    changes = {"carrier": "bpf", "decide": "auto", **METHODS["nat"]}
    every = 2 * (ECHOES + DOWNS)
    assert pair(tmp_path, PATIENCE, every, **changes) == (0, every)


def test_where_the_kernel_has_no_flows(tmp_path: Path) -> None:
    """Its hash leads every packet, and nothing is adopted: no flow breaks."""
    changes = {"carrier": "bpf", "decide": "hash", **METHODS["dsr"]}
    assert three_active(tmp_path, PATIENCE, **changes) == (0, 0)


def hanging(directory: Path, **changes: Any) -> int:
    """How many downloads hang over a path that is narrow beyond the router, whose ICMP errors come
    to any of three balancers. They are begun again, a few times, if a kernel could not send one.
    """
    count = 0
    for number in range(TRIES):
        before, place = unsent(), directory / str(number)
        place.mkdir()
        with closing(Fleet(place, 3, mtu=1300)) as fleet:
            fleet.balance(carrier="worker", **changes)
            fleet.serve()
            count = Lasting(fleet.client, 0, 1, spread=True).broken(4.0)
            if not count or unsent() == before:
                break
    return count


@pytest.mark.parametrize("method", ["direct", "dsr", "tunnel"])
def test_a_narrow_path_beyond_the_router(tmp_path: Path, method: str) -> None:
    """An error about a flow of another balancer goes to its backend (RFC 7690)."""
    assert hanging(tmp_path, **METHODS[method]) == 0


def test_a_narrow_path_without_adoption(tmp_path: Path) -> None:
    """Some of 48 downloads hang."""
    assert hanging(tmp_path, adopt="never", **METHODS["direct"]) > 10


def test_a_backend_drains_when_one_of_three_goes(tmp_path: Path) -> None:
    """Its flows stay: the others have some of it too."""
    with closing(Fleet(tmp_path, 3)) as fleet:
        fleet.balance(carrier="worker", **METHODS["dsr"])
        fleet.serve()
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        for number in (1, 2, 3):
            fleet.set_state(number, 1, "drain")
        fleet.balancers[1].stop(signal.SIGKILL)
        fleet.route([1, 3])
        assert flows.broken(PATIENCE) == 0


def test_a_backend_drains_when_the_first_of_a_pair_goes(tmp_path: Path) -> None:
    """Its flows stay, though the other one has none: the RSTs of other backends are dropped, and
    its own answers are adopted.
    """
    assert broken_after_drain(tmp_path, ECHOES, DOWNS, carrier="bpf", **METHODS["nat"]) == 0


@carriers
def test_backends_that_returned(tmp_path: Path, carrier: str) -> None:
    """Flows that began while a backend was drained are at the backends of the table before: the
    first answer of the present one, a RST, does not reach the client.
    """
    with closing(Fleet(tmp_path, 2, through=True)) as fleet:
        fleet.route([1])
        fleet.balance(forward="nat", carrier=carrier)
        fleet.serve()
        for number in (1, 2):
            fleet.set_state(number, 1, "drain")
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        for number in (1, 2):
            fleet.set_state(number, 1, "ready")
        fail_over(fleet)
        assert flows.broken(PATIENCE) == 0


@pytest.mark.parametrize("method", ["nat", "offload"])
def test_a_flood_of_stray_segments(tmp_path: Path, method: str) -> None:
    """From forged addresses, as fast as this machine can: no flow breaks, though those of the flood
    are many times what the table has room for; as many are adopted in a second as the file says,
    and the rest is counted.
    """
    limit = 1000
    with closing(Fleet(tmp_path, 1, through=True)) as fleet:
        carrier = {"carrier": "worker"} if method == "nat" else {}
        fleet.balance(forward=method, openings_rate=limit, edit=small_table, **carrier)
        fleet.serve()
        flows = Lasting(fleet.client, ECHOES, DOWNS)
        assert flows.broken(PATIENCE) == 0
        # Answers to the flood go no further.
        fleet.router.ip(f"route add blackhole {NETWORKS[4]}")
        begin = time.monotonic()
        fleet.router.run(strays_to(fleet))
        assert flows.broken(PATIENCE) == 0
        seconds = int(time.monotonic() - begin) + 2
        assert limit <= fleet.adopted(1, least=limit) <= limit * seconds
        wait_until(lambda: fleet.counted(1, "adoption_limit") > limit)
        if method == "nat":  # the worker has the flows
            wait_until(lambda: fleet.counted(1, "evicted") >= limit - TABLE)


def small_table(_number: int, document: dict[str, Any]) -> None:
    """The file with a table for the flows of a test and a few more."""
    document["flows"]["max"] = TABLE


def strays_to(fleet: Fleet) -> list[str]:
    """The command that sends strays from the router to the first balancer."""
    to = [mac(fleet.hosts[0], "eth0"), VIP[4], str(PORT), str(STRAYS), "0", "stray"]
    return [sys.executable, str(SYNS), "eth0", *to]
