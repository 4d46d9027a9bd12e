"""Paraglider's own rows say what they measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.peers import PEERS
from bench.peers.paraglider import CARRIERS, Paraglider, Proxied, carrier_summary
from bench.staging import staged
from paraglider.config.load import load
from paraglider.config.service import METHODS
from paraglider.forward.static.checks import unserved
from paraglider.lab.interrupts import Interrupts


def peer(**changes: str | int) -> Paraglider:
    """A peer, with what a test wants of it."""
    return Paraglider("x", **{"build": "compiled", **changes})  # type: ignore[arg-type]


def test_every_method_has_a_carrier() -> None:
    """A row of any method says what carried."""
    assert set(CARRIERS) == {*METHODS, "static"}


def test_titles_distinguish_rows() -> None:
    """Forward, queue I/O, build and more than one worker are in the title."""
    assert peer().title == "nat, compiled"
    assert peer(io="netlink", build="interpreted").title == "nat, netlink, interpreted"
    assert peer(direct=True).title == "nat, direct, compiled"
    assert peer(forward="dsr", direct=True).title == "dsr, compiled"
    assert peer(forward="tunnel", direct=True).title == "tunnel, compiled"
    assert peer(forward="offload", workers=2).title == "offload, compiled, 2 workers"


def test_rows_of_nat_name_their_carrier(tmp_path: Path) -> None:
    """Rows of nat name their carrier, whatever the default is; rows of other methods have none."""
    for changes, title, carrier in (
        ({}, "nat, compiled", "worker"),
        ({"bpf": True, "decide": "python"}, "nat, bpf, compiled", "bpf"),
        ({"bpf": True}, "nat, bpf, kernel decides, compiled", "bpf"),
        (
            {"bpf": True, "direct": True, "decide": "python"},
            "nat, direct, bpf, compiled",
            "bpf",
        ),
        (
            {"forward": "tunnel", "direct": True, "bpf": True, "decide": "hash"},
            "tunnel, bpf, hash only, compiled",
            "bpf",
        ),
        ({"forward": "offload"}, "offload, compiled", None),
    ):
        made = peer(**changes)
        assert made.title == title
        services = yaml.safe_load(made.configuration(tmp_path))["services"]
        assert {service.get("carrier") for service in services} == {carrier}
    assert peer().carrier() == "workers"
    assert peer(forward="offload").carrier() == "conntrack"


def test_the_carrier_in_words() -> None:
    """The share is of packets that a carrier could carry; what BPF does not carry has a reason."""
    packets = {
        "carried": 970,
        "opened": 10,
        "syn": 15,
        "no_flow": 5,
        "not_ip": 700,
        "other_host": 3,
    }
    shown = {"carrier": "bpf", "reason": "", "packets": packets}
    assert carrier_summary(shown) == "BPF, 98.0 % of packets"
    assert carrier_summary(shown | {"packets": {}}) == "BPF"
    off = {"carrier": "worker", "reason": "the kernel has no tcx", "packets": {}}
    assert carrier_summary(off) == "workers (the kernel has no tcx)"


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """What the daemon is given is a good file with what the row says."""
    file = tmp_path / "paraglider.conf"
    file.write_text(peer(io="netfilterqueue").configuration(tmp_path))
    config = load(file)
    assert config.queue.io == "netfilterqueue"
    assert {service.forward for service in config.services} == {"nat"}
    web = config.services[0]
    assert [str(backend.address) for backend in web.backends] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]


def test_the_kernel_alone(tmp_path: Path) -> None:
    """`static` is no forward of the file; what it starts is a file that `start` takes."""
    static = peer(forward="static")
    assert static.title == "static, the kernel alone"
    file = tmp_path / "paraglider.conf"
    file.write_text(static.configuration(tmp_path))
    assert unserved(load(file)) == []


@pytest.mark.parametrize(
    ("adopt", "title"),
    [("auto", "nat, maglev, compiled"), ("never", "nat, maglev, adopt never, compiled")],
)
def test_what_adoption_costs(tmp_path: Path, adopt: str, title: str) -> None:
    """Both rows have the same strategy, by which flows can be adopted."""
    made = peer(adopt=adopt)
    assert made.title == title
    file = tmp_path / "paraglider.conf"
    file.write_text(made.configuration(tmp_path))
    found = {(service.strategy, service.adopt) for service in load(file).services}
    assert found == {("maglev", adopt)}


def test_direct_answers_go_past_the_balancer(tmp_path: Path) -> None:
    """Every service of that row has it, and the row asks for a stage on which it can be."""
    services = yaml.safe_load(peer(direct=True).configuration(tmp_path))["services"]
    assert {service["return"] for service in services} == {"direct"}
    assert peer(direct=True).direct
    assert not peer().direct


def test_tunnels_have_a_router_before_the_backends(tmp_path: Path) -> None:
    """The row asks for that stage, and its file, which has no private network, is valid."""
    made = peer(forward="tunnel", direct=True, bpf=True, decide="hash")
    assert made.far
    assert not peer(forward="dsr", direct=True).far
    file = tmp_path / "paraglider.conf"
    file.write_text(made.configuration(tmp_path))
    config = load(file)
    assert config.network.private is None
    assert {service.forward for service in config.services} == {"tunnel"}
    assert {service.decide for service in config.services} == {"hash"}


@pytest.mark.root
@pytest.mark.parametrize("name", ["tunnel", "tunnel-bpf"])
def test_a_tunnel_is_answered_on_its_stage(name: str) -> None:
    """By all backends, through the router, with either carrier; the stage goes with all in it."""
    peer = PEERS[name]
    with Interrupts() as interrupts, staged(peer, interrupts):
        assert peer.carrier()


def test_one_worker_is_one_core(tmp_path: Path) -> None:
    """The configuration never takes every core by default."""
    workers = yaml.safe_load(peer().configuration(tmp_path))["workers"]
    assert workers["first_core"] == workers["last_core"]


def test_missing_when_there_are_too_few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that needs more cores than there are says so, instead of measuring another thing."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    why = peer(workers=2, build="interpreted").missing()
    assert why is not None
    assert "neighbouring cores" in why


def test_the_proxy_carries_no_datagrams(tmp_path: Path) -> None:
    """It is asked for none, and its configuration is valid without them."""
    assert "udp" in Proxied("x").cannot
    assert (Proxied("x").title, Proxied("x", workers=2).title) == ("proxy", "proxy, 2 workers")
    file = tmp_path / "paraglider.conf"
    file.write_text(Proxied("x").configuration(tmp_path))
    config = load(file)
    assert {(s.forward, s.protocol) for s in config.services} == {("proxy", "tcp")}
