"""Tests of ``paraglider.config.importers.iptables`` and what it reads rules with."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.importers.iptables import convert
from paraglider.config.load import ConfigError
from paraglider.config.model import Config, Service
from tests.config.importers import importing

LAST = "-A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 80"
NTH = LAST + " -m statistic --mode nth --every {} --packet 0"


def config(*rules: str) -> Config:
    """The configuration that ``rules`` become."""
    return importing.config(convert("\n".join(rules)))


def notes(*rules: str) -> list[str]:
    """What is said about ``rules``, without that they have to be removed."""
    said = importing.notes(convert("\n".join(rules)))
    return [note for note in said if "balance in the kernel" not in note]


def turns(*every: int) -> list[str]:
    """Rules by turns, `--every` of each; 0 is the last one without."""
    return [
        (NTH.format(number) if number else LAST) + f" -j DNAT --to-destination 10.0.0.{index}:80"
        for index, number in enumerate(every, 1)
    ]


def weights(service: Service) -> dict[str, int]:
    """The weight of each backend, by its name."""
    return {backend.name: backend.weight for backend in service.backends}


def test_rules_by_turns() -> None:
    """Every third, every second of the rest, and the rest: three equal shares."""
    (service,) = config(*turns(3, 2, 0)).services
    assert (service.name, str(service.vip.ip), service.protocol) == (
        "tcp-192.0.2.1-80",
        "192.0.2.1",
        "tcp",
    )
    assert (service.forward, service.strategy, service.snat) == ("offload", "rr", None)
    assert list(weights(service).values()) == [1, 1, 1]
    said = importing.notes(convert("\n".join(turns(3, 2, 0))))
    assert said[0].startswith(
        "1: the rules that balance in the kernel begin here (3 of them); remove"
    )


@pytest.mark.parametrize(
    ("every", "strategy", "found"),
    [
        ([4, 3, 2, 0], "rr", [1, 1, 1, 1]),
        ([2, 2, 0], "wrr", [2, 1, 1]),
        ([4, 0], "wrr", [1, 3]),
        ([1, 0], "wrr", [1, 0]),
        ([3, 3, 3], "rr", [1, 1, 1]),
        ([2, 3], "wrr", [3, 1]),
    ],
)
def test_shares(every: list[int], strategy: str, found: list[int]) -> None:
    """A rule counts what those above it left."""
    (service,) = config(*turns(*every)).services
    assert (service.strategy, list(weights(service).values())) == (strategy, found)


@pytest.mark.parametrize(
    ("every", "said"),
    [
        (
            [3, 3, 3],
            "1: each rule counts what the rules above it left, so the servers get 33 %",
        ),
        ([2, 3], "1: 33 % of the new connections match none of these rules; here all of them are"),
        ([1, 0], "2: the rules above this one leave it no connection; its server gets weight 0"),
    ],
)
def test_shares_that_were_not_meant(every: list[int], said: str) -> None:
    """Rules that leave connections over, or take none, are named."""
    (note,) = notes(*turns(*every))
    assert note.startswith(said)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_shares_are_those_of_the_kernel(every: list[int]) -> None:
    """Weights are in proportion to what rules with these counters give each server."""
    counters = [0] * len(every)
    seen: Counter[int] = Counter()
    for _ in range(3600):
        for index, number in enumerate(every):
            taken = counters[index] % number == 0
            counters[index] += 1
            if taken:
                seen[index] += 1
                break
        else:
            seen[len(every)] += 1
    (service,) = config(*turns(*every, 0)).services
    found = [backend.weight for backend in service.backends]
    total = sum(found)
    for index, weight in enumerate(found):
        assert abs(weight / total - seen[index] / 3600) < 0.02


@pytest.mark.parametrize(
    ("chances", "found"),
    [
        (["0.33333333349", "0.50000000000", ""], [1, 1, 1]),
        (["0.75", ""], [3, 1]),
        (["0.1", ""], [1, 9]),
        (["0.00001", ""], [1, 100]),
    ],
)
def test_rules_by_chance(chances: list[str], found: list[int]) -> None:
    """`--probability` likewise."""
    rules = [
        LAST
        + (f" -m statistic --mode random --probability {chance}" if chance else "")
        + f" -j DNAT --to-destination 10.0.0.{index}"
        for index, chance in enumerate(chances, 1)
    ]
    (service,) = config(*rules).services
    assert list(weights(service).values()) == found


@pytest.mark.parametrize(
    ("conditions", "protocol", "vip", "ports"),
    [
        ("-d 192.0.2.1 -p tcp --dport 80", "tcp", "192.0.2.1", "80"),
        ("-d 192.0.2.1/255.255.255.255 -p 17 --dport domain", "udp", "192.0.2.1", "53"),
        (
            "--dst 192.0.2.1 --protocol tcp --destination-port 80:89",
            "tcp",
            "192.0.2.1",
            "80-89",
        ),
        ("-p tcp -m multiport --dports 80,443,8000:8010", "tcp", "192.0.2.1", "80 443 8000-8010"),
        ("-m addrtype --dst-type LOCAL -p tcp --dport 80", "tcp", "192.0.2.1", "80"),
        ("-m conntrack --ctstate NEW,RELATED -p tcp --dport 80", "tcp", "192.0.2.1", "80"),
        ("-d 192.0.2.9", "any", "192.0.2.9", "1-65535"),
    ],
)
def test_match(conditions: str, protocol: str, vip: str, ports: str) -> None:
    """What a rule matches is the service; any address gets one to be filled in."""
    rules = [
        f"-A PREROUTING {conditions} -m statistic --mode nth --every 2 -j DNAT --to 10.0.0.1",
        f'-A PREROUTING {conditions} -m comment --comment "a b" -j DNAT --to-destination=10.0.0.2',
    ]
    (service,) = config(*rules).services
    assert (service.protocol, str(service.vip.ip)) == (protocol, vip)
    assert " ".join(map(str, service.ports)) == ports


def test_both_families() -> None:
    """Saved rules of both are two services, also where neither names a VIP."""
    lines: list[str] = []
    for reals in (("10.0.0.1:80", "10.0.0.2:80"), ("[fd00::1]:80", "[fd00::2]:80")):
        lines += ["*nat", ":PREROUTING ACCEPT [0:0]"]
        match = "-A PREROUTING -p tcp -m tcp --dport 80"
        lines += [f"[5:300] {match} -m statistic --mode nth --every 2 -j DNAT --to-dest {reals[0]}"]
        lines += [f"[5:300] {match} -j DNAT --to-destination {reals[1]}", "COMMIT"]
    found = config(*lines).services
    assert [(service.family, len(service.backends)) for service in found] == [(4, 2), (6, 2)]
    commands = [line.replace("[5:300] ", "iptables -t nat ") for line in lines if "[5:300]" in line]
    commands[2:] = [line.replace("iptables", "ip6tables") for line in commands[2:]]
    assert config(*commands) == config(*lines)


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("10.0.0.1-10.0.0.3:80", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("10.0.0.9-10.0.0.10:8080", ["10.0.0.9:8080", "10.0.0.10:8080"]),
    ],
)
def test_ranges(to: str, found: list[str]) -> None:
    """The kernel takes one of a range by the client's address."""
    (service,) = config(f"{LAST} -j DNAT --to-destination {to}").services
    assert (service.strategy, list(weights(service))) == ("source", found)


@pytest.mark.parametrize(
    ("rule", "snat"),
    [
        ("-s 10.0.0.0/8 -o eth0 -j MASQUERADE", "None"),
        ("-d 10.0.0.0/24 -p tcp --dport 80 -j SNAT --to-source 10.0.0.254", "10.0.0.254"),
        ("-d 10.0.0.0/24 -p tcp --dport 81 -j SNAT --to-source 10.0.0.254", "None"),
        ("-o eth1 -j MASQUERADE", "address on eth1"),
        ("-d 10.0.0.0/24 -j MASQUERADE", "address on eth0"),
        ("-j SNAT --to-source 10.0.0.7-10.0.0.9", "10.0.0.7"),
    ],
)
def test_source(rule: str, snat: str) -> None:
    """A rule that changes the source for the servers is `snat`."""
    (service,) = config(*turns(2, 0), f"-A POSTROUTING {rule}").services
    assert str(service.snat) == snat


def test_chains_and_clients_that_are_kept() -> None:
    """Jumps are followed; `-m recent` keeps a client at its server."""
    rules = [
        "-A PREROUTING -j SERVICES",
        "-A SERVICES -d 192.0.2.1/32 -p tcp -m tcp --dport 443 -j SVC",
        "-A SVC -m recent --rcheck --seconds 10800 --reap --name A --rsource -j SEP-A",
        "-A SVC -m statistic --mode random --probability 0.5 -j SEP-A",
        "-A SVC -g SEP-B",
        "-A SEP-A -p tcp -m recent --set --name A --rsource -m tcp -j DNAT --to 10.0.0.1:6443",
        "-A SEP-B -p tcp -m tcp -j DNAT --to-destination 10.0.0.2:6443",
    ]
    made = config(*rules)
    (service,) = made.services
    assert weights(service) == {"10.0.0.1:6443": 1, "10.0.0.2:6443": 1}
    assert (service.affinity, made.timeouts.affinity) == ("client", 10800)
    assert notes(*rules) == []


def test_order_of_commands() -> None:
    """`-I` puts a rule before the others, or at its number; `-F` empties a chain."""
    first, second, last = ("iptables -t nat " + rule for rule in turns(3, 2, 0))
    commands = [
        "iptables -t nat -A PREROUTING -p tcp -j DNAT --to 10.0.0.99",
        "iptables -t nat -F PREROUTING",
        last,
        first.replace("-A PREROUTING", "-I PREROUTING"),
        second.replace("-A PREROUTING", "-I PREROUTING 2"),
    ]
    assert config(*commands) == config(*turns(3, 2, 0))
    rule = NTH.format("$i") + " -j DNAT --to 10.0.0.$s:80"
    loop = f"i=3; for s in 1 2; do iptables -t nat {rule}; i=$((i-1)); done"
    assert config(loop, last) == config(*turns(3, 2, 0))
    variable = [line.replace("192.0.2.1/32", "$VIP") for line in (first, second, last)]
    assert config("VIP=192.0.2.1", *variable) == config(*turns(3, 2, 0))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            "iptables -t nat -A PREROUTING -d $VIP -j DNAT --to 10.0.0.1",
            "3: '$VIP' is for a",
        ),
        (
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "3: 1 other command is not taken over, from",
        ),
        (
            "-A PREROUTING -d 192.0.2.2/32 -p tcp --dport 22 -j DNAT --to 10.0.0.1",
            "3: the rule sends tcp to 192.0.2.2 port 22 to one server; it balances nothing",
        ),
        (
            "-A PREROUTING -d 192.0.2.0/24 -p tcp -j DNAT --to 10.0.0.1-10.0.0.2",
            "3: the rule is for the whole network '192.0.2.0/24', and a service has one VIP; write",
        ),
        (
            "-A PREROUTING ! -d 192.0.2.2 -p tcp -j DNAT --to 10.0.0.1-10.0.0.2",
            "3: the condition '! -d 192.0.2.2' has no counterpart; the rule is left out",
        ),
        (
            "-A PREROUTING -p sctp -j DNAT --to 10.0.0.1-10.0.0.2",
            "3: the protocol 'sctp' has",
        ),
        (
            "-A PREROUTING -p tcp -j DNAT --to 10.0.0.1:80-90",
            "3: the port is one of the",
        ),
        ("-A PREROUTING -p tcp -j DNAT --to :80", "3: ':80' names no server; the rule is left out"),
        ("-A PREROUTING -p tcp -j DNAT", "3: DNAT without --to-destination; add it"),
        (
            "-A PREROUTING -p tcp -j DNAT --to 10.0.0.1-10.9.0.1",
            "3: the range '10.0.0.1-10",
        ),
        (
            "-A PREROUTING -m statistic --mode nth --every 0 -j DNAT --to 10.0.0.1",
            "3: --every '0' is no count; write a number from 1",
        ),
        (
            "-A PREROUTING -m statistic --mode random --probability 2 -j DNAT --to 10.0.0.1",
            "3: --probability '2' is none; write a number from 0 to 1",
        ),
        (
            "-A PREROUTING -m statistic --mode nth --every 2 -j MARK --set-mark 1",
            "3: the target 'MARK' chooses no server; the rule is left out",
        ),
        (
            "-A OUTPUT -p tcp -j DNAT --to 10.0.0.1",
            "3: `nat/OUTPUT`: 1 rule is not taken over",
        ),
        (
            "-A PREROUTING -s 10.0.0.0/8 -p udp -j DNAT --to 10.0.0.1-10.0.0.2",
            "3: '-s 10.0.0.0/8' has no counterpart; limit who may connect",
        ),
    ],
)
def test_what_has_no_counterpart(rule: str, said: str) -> None:
    """It is named with its line, and the rest is taken over."""
    lines = [*turns(2, 0), rule]
    assert [note for note in notes(*lines) if note.startswith(said)]
    assert str(config(*lines).services[0].vip.ip) == "192.0.2.1"


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (
            ["*filter", "-A INPUT -j ACCEPT"],
            "f:1:1: no rule chooses between servers by",
        ),
        (turns(0), "f:1:1: no rule chooses between servers"),
        (
            [*turns(2, 0), '-A INPUT -m comment --comment "open -j X'],
            "f:3:1: a quote in this",
        ),
    ],
)
def test_mistake_has_its_place(lines: list[str], error: str) -> None:
    """A mistake is reported with its line."""
    with pytest.raises(ConfigError) as caught:
        config(*lines)
    assert str(caught.value).startswith(error)


def test_chains_that_multiply_end() -> None:
    """Twelve chains that jump eight times to the next would be billions of ways."""
    rules = ["-A PREROUTING -p tcp -j C0"]
    rules += [f"-A C{n} -j C{n + 1}" for n, _ in itertools.product(range(12), range(8))]
    rules += ["-A C12 -j DNAT --to 10.0.0.1-10.0.0.2", "-A LOOP -j LOOP", "-A PREROUTING -j LOOP"]
    assert any(
        "the chains lead to too many servers, or to each other" in note for note in notes(*rules)
    )
