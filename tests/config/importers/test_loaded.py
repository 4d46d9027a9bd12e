"""Tests of ``paraglider.config.importers.loaded``; whole files are in ``test_formats``."""

from __future__ import annotations

import pytest

from paraglider.config.importers.loaded import convert
from paraglider.config.load import ConfigError, accepted
from paraglider.config.model import Config

LEAST = "VIP4=192.0.2.1\nserver4=10.0.0.1\n"
BOTH = "iptables -A X -p tcp -d $VIP4 -j NFQUEUE\niptables -A X -p udp -d $VIP4 -j NFQUEUE\n"


def config(text: str) -> Config:
    """The configuration that a script becomes."""
    return accepted(convert(text), "f").config


def notes(text: str) -> list[str]:
    """`LINE: what; remedy` of everything in a script that has no counterpart."""
    draft = convert(text)
    return [f"{draft.marks.of(n).line}: {n.what}; {n.remedy}" for n in draft.notes]


def mistakes(text: str) -> str:
    """The error that a script ends in."""
    with pytest.raises(ConfigError) as caught:
        config(text)
    return str(caught.value)


def test_all_ports_and_protocols_and_a_client_keeps_its_backend() -> None:
    """loaded balances all packets to the VIP, by the client's address."""
    (service,) = config(LEAST).services
    assert (service.protocol, service.all_ports, service.affinity) == ("any", True, "client")
    assert (service.strategy, str(service.vip)) == ("rr", "192.0.2.1/32")


@pytest.mark.parametrize(
    ("rules", "protocol"),
    [
        ("iptables -t mangle -A PREROUTING -d $VIP4 -j NFQUEUE\n", "any"),
        ("iptables -t mangle -A PREROUTING -d ${VIP4} -p udp -j NFQUEUE\n", "udp"),
        ("iptables -t mangle -A PREROUTING -p tcp -d $VIP4 -j NFQUEUE\n", "tcp"),
        (BOTH, "any"),
        ("iptables -t mangle -A PREROUTING -p sctp -d $VIP4 -j NFQUEUE\n", "any"),
        ("ip6tables -t mangle -A PREROUTING -p tcp -d $VIP6 -j NFQUEUE\n", "any"),
    ],
)
def test_protocol_is_that_of_the_rule(rules: str, protocol: str) -> None:
    """The delivered script for IPv6 queues TCP only, and so does the service."""
    assert config(LEAST + rules).services[0].protocol == protocol


def test_both_families_in_one_file() -> None:
    """A VIP of each family makes two services."""
    text = LEAST + "VIP6=2001:db8::1\nVIP6net=64\nserver6=fd00::1\n"
    assert [(s.name, str(s.vip)) for s in config(text).services] == [
        ("loaded", "192.0.2.1/32"),
        ("loaded6", "2001:db8::1/64"),
    ]


def test_values_are_read_as_loaded_reads_them() -> None:
    """A value ends at a blank or `#`; the last assignment counts, every server does."""
    text = "VIP4=192.0.2.9\n  VIP4=192.0.2.1# x\nserver4=10.0.0.1 # a\nserver4=10.0.0.2\t\r\n"
    (service,) = config(text).services
    assert str(service.vip.ip) == "192.0.2.1"
    assert [str(backend.address) for backend in service.backends] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("nfq_len=100000", "3: `nfq_len` 100000 is more than the kernel ever holds; 65536"),
        ("strategy=fastest", "3: `strategy` 'fastest' is none of loaded's; it is rr here"),
        ("colour=red", "3: `colour` is none of loaded's keys; leave it out"),
        ("server6=fd00::1", "3: server6 without a VIP6; add VIP6=ADDRESS"),
        ("RIP4=10.9.0.0/16", "3: no route to `RIP4` '10.9.0.0/16' comes with the gateway's"),
        ("RIP4=anything", "3: no route to `RIP4` 'anything' comes with"),
        ("iptables -t nat -A POSTROUTING -s $RIP4 -j MASQUERADE", "3: the backends' own connect"),
        ("iptables -A INPUT -p tcp --dport 22 -j ACCEPT", "3: 'iptables -A INPUT -p tcp --dport"),
        ("touch /tmp/x", "3: 'touch /tmp/x' is a command of your own; keep it in a script"),
        ("echo 1 > /proc/sys/net/ipv4/ip_forward && reboot", None),
        ("modprobe nfnetlink_queue || true", None),
        ("ip -6 neigh add fd00::1 lladdr 02:00:00:00:00:01 dev eth1 nud permanent", None),
        ("# failover", None),
    ],
)
def test_what_has_no_counterpart(line: str, note: str | None) -> None:
    """Settings without a counterpart are noted with their line; the delivered commands need no
    note.
    """
    found = notes(LEAST + line + "\n")
    assert found == [] if note is None else len(found) == 1 and found[0].startswith(note)


def test_route_that_comes_with_the_gateway() -> None:
    """The network of the real servers is on the link of the gateway's address: nothing to note."""
    text = LEAST + "RIP4=10.1.0.0/16\nprivate_GW=10.0.0.254/8\nprivate_NIC=eth1\n"
    assert notes(text) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("server4=10.0.0.1\n", "f:1:1: there is no VIP4 and no VIP6; write VIP4=ADDRESS"),
        ("VIP4=192.0.2.1\n", "f:1:6: there is no server4; add server4=ADDRESS"),
        ("VIP4 = 192.0.2.1\n", "f:1:1: blanks around the `=` of `VIP4`; write VIP4=VALUE"),
        (LEAST + "private_GW=$GW\n", "f:3:12: `private_GW`: '$GW' is for a shell to work out;"),
        ("VIP4=nowhere\nserver4=10.0.0.1\n", "f:1:6: `vip`: 'nowhere' is no address"),
        (LEAST + "server4=10.0.0.300\n", "f:3:9: `address`: '10.0.0.300' is no IP address"),
        (LEAST + "FIRST_CORE=two\n", "f:3:12: `first_core`: 'two' is no whole number"),
        (LEAST + "server4=10.0.0.1\n", "f:3:9: backend 10.0.0.1 appears twice"),
        (LEAST + "private_GW=10.0.0.254/8\n", "f:3:12: `private` has no `interface`"),
    ],
)
def test_mistake_has_its_place(text: str, error: str) -> None:
    """A mistake is reported with the line and column of loaded's file."""
    assert error in mistakes(text)
