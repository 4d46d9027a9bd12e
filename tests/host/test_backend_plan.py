"""The changes of a backend's host: on a fake host, and their acceptance by the kernel."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError, PlatformError
from paraglider.host import apply, backend_plan
from paraglider.host.changes.base import Host
from paraglider.host.state import StateFile
from paraglider.lab.namespace import Namespace
from paraglider.netfilter.nft import Nft

GOLDEN = Path(__file__).parents[1] / "forward" / "golden" / "backend"
TABLES = sorted(GOLDEN.glob("*.nft"))
NETWORK = {"private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]}}


def config(*services: dict[str, Any], network: Any = NETWORK) -> Config:
    """A file with these services, of two backends each."""
    least = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1", "10.0.0.2"]}
    made = [{"name": f"s{n}", "ports": 80 + n, **least, **s} for n, s in enumerate(services)]
    return Config.model_validate({"network": network, "services": made})


SIX = {"vip": "2001:db8::11/64", "backends": ["fd00:10::1", "fd00:10::2"]}


@pytest.fixture
def backend(air: Any) -> Any:
    """A host that is the first backend, by its address on eth0."""
    air.netlink.held["eth0"] += map(ipaddress.ip_interface, ("10.0.0.1/8", "fd00:10::1/64"))
    for interface in ("all", "lo", "eth0", "eth1"):
        for key in ("arp_ignore", "arp_announce", "rp_filter"):
            put(air, interface, key, "0")
    air.nft.refuse = ""
    return air


def put(air: Any, interface: str, key: str, value: str) -> None:
    """Give a parameter of an IPv4 interface a value."""
    place = air.sysctl._root / "net/ipv4/conf" / interface / key
    place.write_text(f"{value}\n")


class Run:
    """Services of ``config`` set up on and taken back from ``air``, with the state in a file."""

    def __init__(self, air: Any, config: Config, directory: Path) -> None:
        self.air = air
        self.config = config
        self.state = StateFile(directory, 1, purpose="backend")

    def steps(self, name: str) -> Any:
        """The plan for a service."""
        (service,) = [service for service in self.config.services if service.name == name]
        role = backend_plan.find_backends(service, self.air.host, None)
        return backend_plan.make_plan(self.config, role, self.air.host, self.state.load())

    def apply(self, name: str) -> list[str]:
        """Apply the plan; returns the printed lines."""
        del self.air.said[:]
        apply.set_up(self.steps(name), self.air.host, self.state, self.air.say)
        return list(self.air.said)

    def undo(self, name: str) -> None:
        """Undo a service."""
        steps = backend_plan.undo_plan(name, self.state.load())
        apply.revert_steps(steps, self.air.host, self.state, self.air.say)


def snapshot(air: Any) -> Any:
    """Everything that may be changed, including routes."""
    return air.snapshot() | {"routes": {f: list(r) for f, r in air.netlink.routes.items()}}


SERVICES: list[dict[str, Any]] = [
    {"forward": "dsr"},
    {"forward": "dsr", **SIX},
    {"forward": "tunnel"},
    {"forward": "tunnel", **SIX, "encapsulation": {"type": "gue"}},
    {"return": "direct"},
    {"return": "direct", **SIX},
    {},
    {**SIX},
]


@pytest.mark.parametrize("lacking", ["ipip: Unknown device type", ""], ids=["bpf", "devices"])
@pytest.mark.parametrize("service", SERVICES)
def test_twice_changes_nothing_and_undone_it_is_as_it_was(
    backend: Any, tmp_path: Path, service: dict[str, Any], lacking: str
) -> None:
    """For any service, in both families."""
    backend.tunnel_devices.lacking = lacking
    before = snapshot(backend)
    run = Run(backend, config(service), tmp_path)
    assert all(line.startswith("done") for line in run.apply("s0"))
    after = snapshot(backend)
    assert after != before
    assert all(line.startswith("unchanged") for line in run.apply("s0"))
    assert snapshot(backend) == after
    run.undo("s0")
    assert snapshot(backend) == before
    assert run.state.load() == []


def test_silent_before_the_vip_is_there(backend: Any, tmp_path: Path) -> None:
    """No neighbour may get an ARP answer for the VIP in between; the undo
    has the opposite order.
    """
    done = Run(backend, config({"forward": "dsr"}), tmp_path).apply("s0")
    assert done == [
        "done this host serves `s0` as 10.0.0.1",
        "done sysctl net.ipv4.conf.all.arp_ignore 0 -> 1",
        "done sysctl net.ipv4.conf.lo.arp_ignore 0 -> 1",
        "done sysctl net.ipv4.conf.all.arp_announce 0 -> 2",
        "done sysctl net.ipv4.conf.lo.arp_announce 0 -> 2",
        "done address 192.168.0.11/32 on lo",
    ]


def test_the_end_of_a_tunnel(backend: Any, tmp_path: Path) -> None:
    """Packets are decapsulated last, when the VIP is there; another encapsulation is another end,
    and the one before goes.
    """
    done = Run(backend, config({"forward": "tunnel"}), tmp_path).apply("s0")
    assert done[-2:] == [
        "done address 192.168.0.11/32 on lo",
        "done eth0 decapsulates packets for 192.168.0.11 to 10.0.0.1 (IP in IP), by BPF",
    ]
    gue = {"forward": "tunnel", "encapsulation": {"type": "gue"}}
    Run(backend, config(gue), tmp_path).apply("s0")
    assert {end.port for end, _ in backend.decapsulation.ends} == {6080}


def test_a_kernel_that_gets_devices(backend: Any, tmp_path: Path) -> None:
    """They replace BPF at the next set-up, and the strictness of the interface comes back; services
    of one backend share a device, and the last one removes it.
    """
    put(backend, "eth0", "rp_filter", "1")
    before = snapshot(backend)
    wanted = config(*[{"forward": "tunnel", "encapsulation": {"type": k}} for k in ("ipip", "gue")])
    run = Run(backend, wanted, tmp_path)
    run.apply("s0")
    assert backend.sysctl.read("net/ipv4/conf/eth0/rp_filter") == "2"
    backend.tunnel_devices.lacking = ""
    assert run.apply("s0")[:2] == [
        "done eth0 no longer decapsulates packets for 192.168.0.11 to 10.0.0.1 (IP in IP), by BPF",
        "done sysctl net.ipv4.conf.eth0.rp_filter 2 -> 1",
    ]
    assert not backend.decapsulation.ends
    assert run.apply("s1")[-2:] == [
        "unchanged ipip-0a000001 decapsulates packets to 10.0.0.1 (IP in IP)",
        "done the kernel accepts GUE at UDP port 6080 of 10.0.0.1",
    ]
    run.undo("s0")
    assert len(backend.tunnel_devices.held) == 2
    run.undo("s1")
    assert snapshot(backend) == before


def test_the_reason_for_bpf_is_noted(backend: Any) -> None:
    """What the kernel lacks; nothing where it was chosen."""
    wanted = config({"forward": "tunnel"})
    role = backend_plan.find_backends(wanted.services[0], backend.host, None)
    (note,) = backend_plan.notes(wanted, role, backend.host)
    assert note.endswith("(ipip: Unknown device type)")
    assert backend_plan.notes(wanted, role, backend.host, "bpf") == []


def test_a_tunnel_ends_at_the_backend_itself(backend: Any, tmp_path: Path) -> None:
    """Without its address it is not known where packets arrive."""
    wanted = config({"forward": "tunnel"})
    role = backend_plan.find_backends(
        wanted.services[0], backend.host, wanted.services[0].backends[0].address
    )
    role = replace(role, interface=None)
    with pytest.raises(OperatorError, match="run this on the backend itself"):
        backend_plan.make_plan(wanted, role, backend.host, [])
    steps = backend_plan.make_plan(wanted, role, backend.host, [], "kernel")
    assert steps[-1].describe().startswith("ipip-0a000001")


def test_what_is_silent_already_stays(backend: Any, tmp_path: Path) -> None:
    """8 answers for no address; 3 of an interface answers for lo's addresses, whatever `all` is."""
    put(backend, "all", "arp_ignore", "8")
    put(backend, "eth1", "arp_ignore", "3")
    before = snapshot(backend)
    run = Run(backend, config({"forward": "dsr"}), tmp_path)
    for outcome in ("done", "unchanged"):
        told = run.apply("s0")
        assert f"{outcome} sysctl net.ipv4.conf.eth1.arp_ignore" in " ".join(told)
    assert backend.sysctl.read("net/ipv4/conf/all/arp_ignore") == "8"
    assert backend.sysctl.read("net/ipv4/conf/eth1/arp_ignore") == "1"
    run.undo("s0")
    assert snapshot(backend) == before


def test_what_two_services_need_stays_for_the_second(backend: Any, tmp_path: Path) -> None:
    """The first to come may be the first to go."""
    before = snapshot(backend)
    run = Run(backend, config({"forward": "dsr"}, {"forward": "dsr"}), tmp_path)
    run.apply("s0")
    run.apply("s1")
    both = snapshot(backend)
    run.undo("s0")
    assert snapshot(backend) == both
    run.undo("s1")
    assert snapshot(backend) == before


def test_a_changed_file_moves_the_host_to_it(backend: Any, tmp_path: Path) -> None:
    """Changes that the service no longer needs are reverted to the recorded values."""
    before = snapshot(backend)
    Run(backend, config({"forward": "dsr"}), tmp_path).apply("s0")
    run = Run(backend, config({"return": "direct"}), tmp_path)
    run.apply("s0")
    assert backend.netlink.held["lo"] == []
    assert backend.sysctl.read("net/ipv4/conf/all/arp_ignore") == "0"
    other = Run(backend, config({"return": "direct", "ports": 443}), tmp_path)
    assert "done table ip paraglider-backend-s0: answers leave as the VIP in place of another" in (
        other.apply("s0")
    )
    Run(backend, config({"forward": "proxy"}), tmp_path).apply("s0")
    assert snapshot(backend) == before


def test_a_changed_table_is_replaced(backend: Any, tmp_path: Path) -> None:
    """The text is the same, the kernel's table is not."""
    run = Run(backend, config({"return": "direct"}), tmp_path)
    run.apply("s0")
    after = snapshot(backend)
    backend.nft.tables.clear()
    run.apply("s0")
    assert snapshot(backend) == after


@pytest.mark.parametrize("service", SERVICES[:4:2])
def test_a_strict_reverse_path_check_is_loosened(
    backend: Any, tmp_path: Path, service: dict[str, Any]
) -> None:
    """Packets come from clients to whom answers go by another interface; and back again."""
    put(backend, "all", "rp_filter", "1")
    before = snapshot(backend)
    run = Run(backend, config(service), tmp_path)
    assert "done sysctl net.ipv4.conf.eth0.rp_filter 0 -> 2" in run.apply("s0")
    assert "unchanged sysctl net.ipv4.conf.eth0.rp_filter = 2" in run.apply("s0")
    run.undo("s0")
    assert snapshot(backend) == before


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ([], ["default via 10.0.0.254 dev eth0"]),
        (
            ["default via 10.0.0.9 dev eth0 proto dhcp metric 100"],
            [
                "default via 10.0.0.9 dev eth0 proto dhcp metric 100",
                "default via 10.0.0.254 dev eth0",
            ],
        ),
        (["default via 10.0.0.9 dev eth0 onlink"], ["default via 10.0.0.254 dev eth0"]),
        (["default via 10.0.0.254 dev eth0 proto static"], None),
    ],
)
def test_the_default_route(
    backend: Any, tmp_path: Path, present: list[str], wanted: list[str] | None
) -> None:
    """Beside another, in its place, or there already; afterwards as it was."""
    backend.netlink.routes[4] = list(present)
    run = Run(backend, config({}), tmp_path)
    run.apply("s0")
    assert backend.netlink.routes[4] == (present if wanted is None else wanted)
    run.apply("s0")
    moved = Run(
        backend,
        config({}, network={"private": {"interface": "e", "gateway": ["10.9.9.9/8"]}}),
        tmp_path,
    )
    moved.apply("s0")
    assert "default via 10.9.9.9 dev eth0" in backend.netlink.routes[4]
    moved.undo("s0")
    assert backend.netlink.routes[4] == present


@pytest.mark.parametrize(
    ("route", "gateway", "what"),
    [
        ("default proto static nexthop via 10.0.0.8 dev eth0", "10.0.0.254/8", "cannot be put"),
        (None, "10.255.0.254/16", "no IPv4 address in the network of 10.0.0.1"),
        (None, "fd00:10::fe/64", "no IPv4 address in the network of 10.0.0.1"),
        (None, {"interface": "eth1"}, "an interface of the balancer.*; write the address into"),
    ],
)
def test_a_route_that_cannot_be(
    backend: Any, tmp_path: Path, route: str | None, gateway: Any, what: str
) -> None:
    """It is refused before the first change."""
    backend.netlink.routes[4] = [route] if route else []
    network = {"private": {"interface": "eth1", "gateway": [gateway]}}
    with pytest.raises(OperatorError, match=what):
        Run(backend, config({}, network=network), tmp_path).steps("s0")


def test_a_vip_that_the_host_announces(backend: Any, tmp_path: Path) -> None:
    """On an ordinary interface its neighbours would take the host for the balancer."""
    backend.netlink.held["eth1"].append(ipaddress.ip_interface("192.168.0.11/24"))
    with pytest.raises(OperatorError, match="VIP 192.168.0.11 is on eth1 of this host"):
        Run(backend, config({"forward": "dsr"}), tmp_path).steps("s0")


@pytest.mark.parametrize("service", [SERVICES[0], SERVICES[2]])
def test_a_failure_leaves_the_host_as_it_was(
    backend: Any, tmp_path: Path, service: dict[str, Any]
) -> None:
    """The last step is refused; everything before it is rolled back."""
    backend.netlink.refuse = "192.168.0.11/32"
    backend.nft.refuse = "load"
    before = snapshot(backend)
    run = Run(backend, config(service), tmp_path)
    with pytest.raises(PlatformError, match="rolled back"):
        run.apply("s0")
    assert snapshot(backend) == before
    assert run.state.load() == []


def find(air: Any, service: dict[str, Any], named: str | None = None) -> Any:
    """The backends of a service that the host is."""
    address = None if named is None else ipaddress.ip_address(named)
    (only,) = config(service).services
    return backend_plan.find_backends(only, air.host, address)


def test_which_backend_the_host_is(backend: Any) -> None:
    """By its addresses (all of the service's that it has), or by name."""
    ends = ["10.0.0.2", {"address": "10.0.0.1", "port": 1}, {"address": "10.0.0.1", "port": 2}]
    role = find(backend, {"backends": ends})
    assert [backend.port for backend in role.backends] == [1, 2]
    assert (role.interface, str(role.own)) == ("eth0", "10.0.0.1/8")
    role = find(backend, {"backends": ends}, "10.0.0.2")
    assert [str(backend.address) for backend in role.backends] == ["10.0.0.2"]
    assert (role.interface, role.own) == (None, None)
    role = find(backend, {"backends": {"dns": "web.example.com"}}, "10.0.0.7")
    assert [str(backend.address) for backend in role.backends] == ["10.0.0.7"]


@pytest.mark.parametrize(
    ("service", "named", "what"),
    [
        ({"backends": ["10.0.0.8", "10.0.0.9"]}, None, "none of 10.0.0.8, 10.0.0.9; run this on"),
        ({}, "10.0.0.7", "`s0` has no backend 10.0.0.7; its backends are: 10.0.0.1, 10.0.0.2"),
        ({"backends": {"dns": "web.example.com"}}, None, "does not list the backends of `s0`"),
        ({"backends": {"dns": "web.example.com"}}, "fd00::1", "is no IPv4 address"),
    ],
)
def test_a_host_that_is_no_backend(
    backend: Any, service: dict[str, Any], named: str | None, what: str
) -> None:
    """It is refused, with the list of backends."""
    with pytest.raises(OperatorError, match=what):
        find(backend, service, named)


@pytest.mark.parametrize(
    ("service", "route", "network", "wanted"),
    [
        (
            {"return": "direct"},
            "default via 10.0.0.254 dev eth0",
            NETWORK,
            "give this host another",
        ),
        ({"forward": "dsr"}, "default via 10.0.0.254 dev eth0", NETWORK, "give this host another"),
        ({"return": "direct"}, "default via 10.0.0.9 dev eth0", NETWORK, ""),
        ({}, "default via 10.0.0.254 dev eth0", NETWORK, ""),
        ({"return": "direct", "vip": "10.0.0.11/8"}, "", {}, "list their addresses"),
    ],
)
def test_what_no_change_mends(
    backend: Any, service: dict[str, Any], route: str, network: Any, wanted: str
) -> None:
    """A route back that bypasses the balancer, and a balancer that looks like a client."""
    backend.netlink.routes[4] = [route] if route else []
    whole = config(service, network=network)
    role = backend_plan.find_backends(whole.services[0], backend.host, None)
    found = backend_plan.notes(whole, role, backend.host)
    assert len(found) == bool(wanted)
    assert wanted in "".join(found)


def test_a_host_without_nft(backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If answers must be rewritten it is refused before the first change; otherwise nft is not
    needed.
    """

    def missing(name: str) -> str:
        raise OperatorError(f"the program {name} is missing")

    monkeypatch.setattr(backend_plan, "find_program", missing)
    steps = Run(backend, config({"return": "direct"}), tmp_path).steps("s0")
    with pytest.raises(OperatorError, match="nft is missing"):
        backend_plan.require(steps, backend.host)
    steps = Run(backend, config({"forward": "dsr"}), tmp_path).steps("s0")
    backend_plan.require(steps, backend.host)


def test_a_host_whose_parameters_are_read_only(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parameters to be set are named before the first change."""
    steps = Run(backend, config({"forward": "dsr"}), tmp_path).steps("s0")
    monkeypatch.setattr(backend.sysctl, "writable", lambda key: "all" not in key)
    with pytest.raises(PlatformError, match=r"docker run --sysctl net.ipv4.conf.all.arp_ignore=1"):
        backend_plan.require(steps, backend.host)


@pytest.mark.root
@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.name)
def test_nft_takes_every_table_twice_alike(inside: Namespace, file: Path) -> None:
    """The kernel holds the same after the second time."""
    _, _, family, table = file.read_text(encoding="utf-8").split(maxsplit=4)[:4]
    nft, number = Nft(), 6 if family == "ip6" else 4
    held = []
    for _ in range(2):
        nft.load(file.read_text(encoding="utf-8"))
        held.append(nft.held(number, table))
    assert '"mangle"' in held[0]
    assert held[1] == held[0]


@pytest.mark.root
def test_tc_knows_every_word_of_its_form(inside: Namespace) -> None:
    """A kernel without the nat action or u32 refuses those, and nothing else."""
    lines = (GOLDEN / "mail.tc").read_text(encoding="utf-8").splitlines()
    missing = ("Failed to load TC action module", "TC classifier not found")
    for line in lines[1:]:
        done = inside.run(line.replace("$DEV", "eth1").split(), check=False)
        assert done.returncode == 0 or any(word in done.stderr for word in missing), done.stderr


@pytest.mark.root
def test_the_local_port_range(inside: Namespace) -> None:
    """The kernel's local port range."""
    inside.sysctl("net.ipv4.ip_local_port_range=20000 30000")
    found = backend_plan.local_ports(Host())
    assert (found.first, found.last) == (20000, 30000)
