"""The reference balances in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.network import BACKENDS
from bench.peers import PEERS, kernel
from bench.peers.kernel import Dnat, Ipvs, dnat_rules, ipvs_services
from bench.staging import staged
from paraglider.lab.interrupts import Interrupts


def test_dnat_rules_share_equally() -> None:
    """Of three backends the first takes every third, the second every second of the rest."""
    rules = [line for line in dnat_rules().splitlines() if "--dport 80" in line]
    assert [rule.partition("--every ")[2][:1] for rule in rules] == ["3", "2", ""]
    assert [rule.split()[-1] for rule in rules] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_one_backend_needs_no_turns() -> None:
    """Over one backend every connection goes to it, and the row says that it is one."""
    one = Dnat("dnat-1", backends=1)
    assert one.title == f"{Dnat().title}, one backend"
    assert (one.backends, Dnat().backends) == (1, 3)
    rules = [line for line in dnat_rules(BACKENDS[:1]).splitlines() if "--dport 80" in line]
    assert [rule.split()[-1] for rule in rules] == ["10.0.0.1"]
    assert "statistic" not in rules[0]


@pytest.mark.root
def test_the_network_of_direct_return_has_rows_without_paraglider() -> None:
    """DNAT, whose answers pass the balancer there too, or the client would refuse them, and plain
    routing, whose answers do not.
    """
    with staged(PEERS["dnat-switched"], Interrupts()) as stage:
        assert stage.direct
    peer = PEERS["routed-direct"]
    with staged(peer, Interrupts()) as stage:
        rule = ["iptables", "-A", "FORWARD", "-s", peer.address, "-j", "DROP"]
        stage.topology.balancer.run(rule)
        stage.await_answers(peer.address, peer.backends)


def test_ipvs_has_the_same_backends() -> None:
    """HTTP over all three, iperf3 in both protocols to the first one, all by NAT."""
    lines = ipvs_services().splitlines()
    assert [line for line in lines if line.startswith("-A")] == [
        "-A -t 192.168.0.11:80 -s rr",
        "-A -t 192.168.0.11:5201 -s rr",
        "-A -u 192.168.0.11:5201 -s rr",
    ]
    servers = [line.split() for line in lines if line.startswith("-a")]
    assert [(s[2], s[4]) for s in servers] == [
        *(("192.168.0.11:80", f"10.0.0.{number}:80") for number in (1, 2, 3)),
        *[("192.168.0.11:5201", "10.0.0.1:5201")] * 2,
    ]
    assert {s[-1] for s in servers} == {"-m"}


def test_ipvs_says_why_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is named first, then the program."""
    monkeypatch.setattr(kernel, "IPVS", tmp_path / "ip_vs")
    monkeypatch.setattr(kernel, "attempt", lambda _argv: None)
    assert Ipvs().missing() == "this kernel has no IPVS (ip_vs)"
    (tmp_path / "ip_vs").write_text("")
    monkeypatch.setattr("shutil.which", lambda *_arguments, **_options: None)
    assert Ipvs().missing() == "the program ipvsadm is missing"
    monkeypatch.setattr("shutil.which", lambda *_arguments, **_options: "/sbin/ipvsadm")
    assert Ipvs().missing() is None


@pytest.mark.root
def test_equal_paths_reach_every_backend() -> None:
    """The row of ECMP is answered by all three, else it would compare with one."""
    peer = PEERS["routed-3"]
    with Interrupts() as interrupts, staged(peer, interrupts) as stage:
        assert stage.meter.read().bed > 0


def test_dnat_rules_carry_iperf3_in_both_protocols() -> None:
    """iperf3 goes to the first backend, which has the server."""
    rules = [line for line in dnat_rules().splitlines() if "--dport 5201" in line]
    assert [rule.split()[5] for rule in rules] == ["tcp", "udp"]
    assert all(rule.endswith("10.0.0.1") for rule in rules)
