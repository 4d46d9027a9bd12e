"""The views of the control socket: sums, states with their times, processes, conditions."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from paraglider.config.model import Config
from paraglider.config.service import METHODS
from paraglider.core.pool import Event
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.health import of_all
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.controller import views
from paraglider.daemon.controller.views import Instant
from paraglider.daemon.messages import CarrierReading
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter, Sample
from paraglider.daemon.stats.traffic import TrafficCounters
from paraglider.daemon.store.backends import AgentFact, BackendTable, Checked
from paraglider.daemon.store.node import Node
from paraglider.daemon.store.store import Store
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.health.codes import Code
from paraglider.netfilter.queue.proc import QueueStatus

CONFIG = Config.model_validate(
    {
        "services": [
            {
                "name": "web",
                "vip": "2001:db8::11/64",
                "protocol": "tcp",
                "ports": [80, "8000-8010"],
                "carrier": "worker",
                "backends": [{"address": "fd00::1", "weight": 3}, "fd00::2"],
            },
            {
                "name": "all",
                "vip": "192.0.2.1/24",
                "protocol": "udp",
                "forward": "offload",
                "backends": ["10.0.0.1"],
            },
        ]
    }
)
BPF = Config.model_validate(
    {
        "services": [
            {
                "name": name,
                "vip": "192.0.2.1/24",
                "protocol": "tcp",
                "ports": port,
                "carrier": carrier,
                "decide": decide,
                "backends": ["10.0.0.1"],
            }
            for name, port, carrier, decide in (
                ("fast", 80, "auto", "auto"),
                ("slow", 81, "worker", "auto"),
                ("own", 82, "bpf", "python"),
            )
        ]
    }
)
AT = Instant(now=1000.0, wall=1_700_000_000.0)


def config(*services: dict[str, Any]) -> Config:
    """A file with these services."""
    base = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}
    whole = [{**base, "backends": ["10.0.0.1"], **service} for service in services]
    return Config.model_validate({"services": whole})


class Api(Spec):
    """A process that carries nothing."""

    role: ClassVar[str] = "api"


class Counted:
    """The counters of a worker: some numbers, and packets of backends of `web`."""

    def __init__(self, figures: dict[str, int], packets: dict[str, int]) -> None:
        self._figures = figures
        self._packets = packets

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        return self._figures

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """See ``counters.CounterSource``."""
        for backend, packets in self._packets.items():
            yield "web", backend, {"flows": 1, "conns": 2, "packets_out": packets}


def sample(figures: dict[str, int], **packets: int) -> Sample:
    """The counters of a worker; backends of `web` by the last byte of their addresses."""
    counters = Counters()
    named = {f"fd00::{end[1:]}": count for end, count in packets.items()}
    CounterWriter(counters, Counted(figures, named)).tick()
    return counters.read()


@pytest.fixture
def pools() -> BackendTable:
    """All backends, ready for a minute."""
    return BackendTable(CONFIG, AT.now - 60)


def test_traffic_is_the_sum_over_the_workers(pools: BackendTable) -> None:
    """From the client's side: ``in`` goes to the backend; an unknown count is None, not 0."""
    traffic = TrafficCounters({0: sample({}, b1=10), 1: sample({}, b1=5, b2=1)})
    rows = views.backends(CONFIG, pools, traffic, AT)
    assert [(row["packets_in"], row["packets_out"]) for row in rows] == [
        (15, None),
        (1, None),
        (None, None),
    ]
    web, every = views.services(CONFIG, pools, traffic, CarrierSwitch())
    assert (web["packets_in"], web["flows"], web["conns"]) == (16, 3, 6)
    assert (every["packets_in"], every["flows"]) == (None, None)


def test_a_service_is_shown_as_in_the_file(pools: BackendTable) -> None:
    """Ports as one text, all of them as that word."""
    pools.set_weight(pools.find("web", "fd00::2"), 0)
    web, every = views.services(CONFIG, pools, TrafficCounters({}), CarrierSwitch())
    assert (web["vip"], web["ports"], web["ready"], web["backends"]) == (
        "2001:db8::11",
        "80,8000-8010",
        1,
        2,
    )
    assert (every["ports"], every["forward"], every["ready"]) == ("all", "offload", 1)


def test_times_are_of_the_monotonic_clock(pools: BackendTable) -> None:
    """State and last check with how long ago by the one clock, and when by the other."""
    member = pools.find("web", "fd00::1")
    pools.apply(member, Event.CHECK_FAILED, "connection refused", 990.0)
    member.check = Checked(
        995.5, passed=False, code=Code.L4CON, detail="connection refused", took=0.25
    )
    (row, *_) = views.backends(CONFIG, pools, TrafficCounters({}), AT)
    assert (row["state"], row["why"], row["weight"]) == ("down", "connection refused", 3)
    assert (row["seconds"], row["since"]) == (10.0, "2023-11-14T22:13:10+00:00")
    assert row["check"] == {
        "passed": False,
        "code": "L4CON",
        "detail": "connection refused",
        "took": 0.25,
        "warning": "",
        "at": "2023-11-14T22:13:15+00:00",
        "seconds": 4.5,
    }


def test_what_an_agent_said(pools: BackendTable) -> None:
    """Its last answer, and whether its weight is used; None without one."""
    member = pools.find("web", "fd00::1")
    pools.set_agent(member, AgentFact(50, None, True, Code.L7OK, "50%", 995.5))
    rows = views.backends(CONFIG, pools, TrafficCounters({}), AT)
    assert (rows[0]["weight"], rows[0]["weight_by"], rows[0]["configured_weight"]) == (
        2,
        "agent",
        3,
    )
    assert rows[0]["agent"] == {
        "weight": 50,
        "mode": None,
        "answered": True,
        "code": "L7OK",
        "detail": "50%",
        "at": "2023-11-14T22:13:15+00:00",
    }
    assert (rows[1]["agent"], rows[1]["weight_by"]) == (None, "file")


def worker(**changes: Any) -> Child:
    """A worker that serves since half a minute ago."""
    return Child(WorkerSpec(3, 1, CONFIG, 1, 1), pid=77, started=970.0, **changes)


def test_a_worker_is_shown_with_what_it_counted() -> None:
    """Its own numbers, its queue, and counts without those that are 0."""
    head = {"flows": 5, "bound": 100, "packets": 9, "expired": 2}
    queues = {
        1: QueueStatus(1, 77, waiting=6, copy_range=0, queue_dropped=3, user_dropped=4),
        8193: QueueStatus(8193, 77, waiting=2, copy_range=0, queue_dropped=0, user_dropped=0),
        4097: QueueStatus(4097, 77, waiting=1, copy_range=0, queue_dropped=8, user_dropped=0),
        12289: QueueStatus(12289, 77, waiting=5, copy_range=0, queue_dropped=0, user_dropped=0),
    }
    (row,) = views.processes([worker()], {3: sample(head)}, queues, AT)
    assert (row["role"], row["core"], row["pid"], row["up"]) == ("worker", 1, 77, True)
    assert (row["seconds"], row["flows"], row["bound"], row["packets"]) == (30.0, 5, 100, 9)
    assert row["counts"] == {"expired": 2}
    assert row["filter"] is None
    length = CONFIG.queue.length
    assert row["queue"] == {"waiting": 6, "length": length, "overflows": 3, "overruns": 4}
    most = CONFIG.queue.openings
    assert row["openings"] == {"waiting": 1, "length": most, "overflows": 8, "overruns": 0}
    assert row["offloaded"] == {"waiting": 2, "length": most, "overflows": 0, "overruns": 0}
    assert row["tunnels"] == {"waiting": 5, "length": length, "overflows": 0, "overruns": 0}
    (row,) = views.processes([worker(confined=True)], {}, {}, AT)
    assert row["filter"] == "worker"
    assert row["queue"] is row["openings"] is row["offloaded"] is row["tunnels"] is None


def carried(switch: CarrierSwitch, config: Config = BPF, **figures: int) -> dict[str, Any]:
    """The view of the carrier of ``config``, if each of two workers has counted ``figures``."""
    counts = {0: sample(figures), 1: sample(figures)}
    return views.carrier(
        cast(views.Viewable, SimpleNamespace(carrier=switch, store=SimpleNamespace(config=config))),
        counts,
    )


def test_what_carries_and_why() -> None:
    """BPF if the host can, a service wants it and it is on; else the worker, with the reason."""
    switch = CarrierSwitch("")
    found = carried(switch)
    assert (found["carrier"], found["reason"], found["able"], found["on"]) == (
        "bpf",
        "",
        True,
        True,
    )
    found = carried(switch, CONFIG)
    assert (found["carrier"], found["reason"]) == (
        "worker",
        "no service has `carrier: auto`, `bpf` or `xdp`",
    )
    switch.on = False
    assert carried(switch)["reason"] == "switched off by the operator"
    found = carried(CarrierSwitch("no libbpf"))
    assert (found["carrier"], found["reason"], found["able"]) == ("worker", "no libbpf", False)


def test_what_bpf_carries_is_shown() -> None:
    """The interfaces and packets as they were read, and the flows of all workers."""
    switch = CarrierSwitch("")
    switch.read = CarrierReading(devices=("eth0",), reasons={"carried": 9, "syn": 0})
    found = carried(switch, carried=7, carrier_refused=2)
    assert (found["devices"], found["packets"]) == (["eth0"], {"carried": 9, "syn": 0})
    assert (found["flows"], found["refused"]) == (14, 4)
    switch.on = False  # the workers have not counted since
    assert carried(switch, carried=7, carrier_refused=2)["flows"] == 0


def test_interfaces_that_the_kernel_refuses() -> None:
    """BPF carries while one interface has a program, at either hook; else the workers do, with the
    reasons, and decide. While nothing was read, nothing is refused.
    """
    for devices, xdp, carrier in (
        (("eth1",), (), "bpf"),
        ((), ("eth0",), "xdp"),
        ((), (), "worker"),
    ):
        switch = CarrierSwitch("", xdp=True)
        switch.read = CarrierReading(devices=devices, xdp=xdp, failed={"eth0": "busy"})
        fast = config({"carrier": "xdp", "decide": "auto"})
        found = carried(switch, fast, carried=3)
        assert (found["carrier"], found["failed"]) == (carrier, {"eth0": "busy"})
        why = "no interface has the program: eth0: busy" if carrier == "worker" else ""
        assert (found["reason"], found["flows"]) == (why, 0 if why else 6)
        (row,) = views.services(fast, BackendTable(fast, 0.0), TrafficCounters({}), switch)
        by = "python" if why else "kernel"
        assert (row["carrier"], row["decided_by"]) == (carrier, by)


def test_tunnels_are_not_carried_at_xdp() -> None:
    """Beside a service that is: `carrier` of a service, and of the worker, has what carries it."""
    switch = CarrierSwitch("", xdp=True)
    switch.read = CarrierReading(devices=("eth0",), xdp=("eth0",))
    tunnel = {"name": "far", "ports": 81, "forward": "tunnel", "carrier": "xdp"}
    mixed, alone = config({"carrier": "xdp"}, tunnel), config(tunnel)
    assert (carried(switch, mixed)["carrier"], carried(switch, alone)["carrier"]) == ("xdp", "bpf")
    rows = views.services(mixed, BackendTable(mixed, 0.0), TrafficCounters({}), switch)
    assert [row["carrier"] for row in rows] == ["xdp", "bpf"]


@pytest.mark.parametrize(
    ("protocol", "decide", "carrier", "why"),
    [
        ("udp", "python", "worker", "`decide"),
        ("udp", "auto", "worker", "`udp_reply`"),
        ("any", "auto", "bpf", "`udp_reply`"),
    ],
)
def test_queries_are_carried_by_workers(protocol: str, decide: str, carrier: str, why: str) -> None:
    """The service of DNS over UDP has no flow in BPF; with TCP it has some."""
    switch = CarrierSwitch("")
    dns = config({"name": "dns", "protocol": protocol, "ports": 53, "decide": decide})
    (row,) = views.services(dns, BackendTable(dns, 0.0), TrafficCounters({}), switch)
    assert (row["carrier"], row["decided_by"]) == (carrier, "python")
    assert row["why_python"].partition(":")[0] == why


def test_a_method_that_the_kernel_cannot_carry() -> None:
    """Workers carry its services and decide there, with the reason; all, if there are no others."""
    switch, why = (
        CarrierSwitch("", lacks={METHODS["tunnel"]: "no source of a route"}),
        "no source of a route",
    )
    tunnel = {"forward": "tunnel", "decide": "auto"}
    mixed = config({"name": "web"}, {"name": "far", "ports": 81, **tunnel})
    found = carried(switch, mixed)
    assert (found["carrier"], found["reason"], found["lacks"]) == ("bpf", "", {"far": why})
    assert found["services"][0]["why_python"] == "the workers carry its flows"
    rows = views.services(mixed, BackendTable(mixed, 0.0), TrafficCounters({}), switch)
    assert [row["carrier"] for row in rows] == ["bpf", "worker"]
    alone = carried(switch, config({"name": "far", **tunnel}), carried=3)
    assert (alone["carrier"], alone["reason"], alone["flows"]) == ("worker", why, 0)
    assert carried(CarrierSwitch("no libbpf", lacks=switch.lacks), mixed)["lacks"] == {}


def test_the_carrier_has_the_services_that_want_the_kernel_to_decide() -> None:
    """With what decides, and why."""
    fast, slow = carried(CarrierSwitch(""))["services"]
    assert fast == {"service": "fast", "decide": "auto", "decided_by": "kernel", "why_python": ""}
    assert (slow["service"], slow["why_python"]) == ("slow", "the workers carry its flows")
    assert carried(CarrierSwitch(""), CONFIG)["services"] == []


def test_the_carrier_of_services_and_workers(pools: BackendTable) -> None:
    """Of each service whose method has several; of a worker those of its services."""
    table, none = BackendTable(BPF, 0.0), TrafficCounters({})
    rows = views.services(BPF, table, none, CarrierSwitch(""))
    assert [row["carrier"] for row in rows] == ["bpf", "worker", "bpf"]
    rows = views.services(CONFIG, pools, none, CarrierSwitch())
    assert [row["carrier"] for row in rows] == ["worker", None]
    child = Child(WorkerSpec(3, 1, BPF, 1, 1), pid=77)
    for lacking, text in (("", "bpf, worker"), ("no libbpf", "worker")):
        switch = CarrierSwitch(lacking)
        (row,) = views.processes([child], {3: sample({"carried": 5})}, {}, AT, switch=switch)
        assert (row["carrier"], row["carried"]) == (text, 5)
        assert "carried" not in row["counts"]


def test_who_decides_about_the_flows_of_a_service(pools: BackendTable) -> None:
    """The kernel where BPF carries, unless the service needs a worker; with the reason."""

    able = CarrierSwitch("")

    def deciding(
        config: Config, table: BackendTable, switch: CarrierSwitch = able
    ) -> list[tuple[str, str]]:
        rows = views.services(config, table, TrafficCounters({}), switch)
        return [(row["decided_by"], row["why_python"]) for row in rows]

    carried = "the workers carry its flows"
    table = BackendTable(BPF, 0.0)
    found = deciding(BPF, table)
    assert found == [("kernel", ""), ("python", carried), ("python", "`decide: python`")]
    assert deciding(BPF, table, CarrierSwitch("no libbpf")) == [("python", carried)] * 3
    assert deciding(CONFIG, pools) == [("python", carried), (None, None)]
    able.unplaced = frozenset(service.name for service in BPF.services)
    assert deciding(BPF, table) == [
        ("python", "the kernel has no room for its table or its ports"),
        *found[1:],
    ]


def test_a_dead_process_has_no_flows() -> None:
    """Its counters stay, its gauges are gone; a process without counters has no numbers."""
    gone = Child(WorkerSpec(3, 1, CONFIG, 1, 1))
    row, other = views.processes(
        [gone, Child(Api(4))], {3: sample({"flows": 5, "packets": 9})}, {}, AT
    )
    assert (row["pid"], row["up"], row["seconds"]) == (None, False, None)
    assert (row["flows"], row["busy"], row["packets"]) == (None, None, 9)
    assert "flows" not in other
    assert "queue" not in other


def test_health_has_all_conditions() -> None:
    """The worst severity, and every condition as a line and in parts."""
    conditions = Conditions(lambda: 990.0)
    store = Store(CONFIG, 0.0)
    assert views.health(of_all(conditions, store), AT) == {
        "healthy": True,
        "status": "healthy",
        "announce": True,
        "draining": False,
        "problems": [],
        "conditions": [],
    }
    conditions.report("host", {"eth0": Condition("degraded", "is down; plug it in")})
    found = views.health(of_all(conditions, store), AT)
    assert (found["healthy"], found["status"]) == (False, "degraded")
    assert found["problems"] == ["eth0: is down; plug it in"]
    assert found["conditions"] == [
        {
            "source": "host",
            "object": "eth0",
            "severity": "degraded",
            "text": "is down; plug it in",
            "since": "2023-11-14T22:13:10+00:00",
        }
    ]


def test_whether_it_is_drained() -> None:
    """Since when, as a date and in seconds; a clock that was set back makes it no negative time."""
    node = Node(clock=lambda: AT.wall - 90.0)
    node.drain(keep=False)
    assert views.node(node, AT) == {
        "state": "drain",
        "since": "2023-11-14T22:11:50+00:00",
        "seconds": 90.0,
        "kept": False,
    }
    assert views.node(Node(clock=lambda: AT.wall + 5.0), AT)["seconds"] == 0.0
