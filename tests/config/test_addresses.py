"""Tests of ``paraglider.config.addresses``: the addresses of a host for a file that names none."""

from __future__ import annotations

from ipaddress import ip_interface

from paraglider.config.addresses import Filled, fill_addresses, own_addresses
from paraglider.config.load import parse
from paraglider.config.types import IPInterface

FILE = """\
network: {private: {interface: eth1, gateway: [{interface: eth1}, 10.0.0.254/8]}}
services:
  - {name: a, vip: 192.0.2.1/24, protocol: tcp, ports: 80, forward: offload,
     snat: {interface: eth1}, backends: [10.0.0.1]}
  - {name: b, vip: "2001:db8::1/64", protocol: tcp, ports: 80, forward: offload,
     snat: {interface: eth1}, backends: ["fd00::1"]}
"""


def host(*eth1: str, **more: str) -> dict[str, tuple[IPInterface, ...]]:
    """The addresses of a host."""
    found = {name: (ip_interface(address),) for name, address in more.items()}
    return {"lo": (), "eth1": tuple(map(ip_interface, eth1)), **found}


def filled(*eth1: str, families: tuple[int, ...] = (4, 6), text: str = FILE) -> Filled:
    """What the file has on a host with these addresses."""
    return fill_addresses(parse(text, "f").config, families, host(*eth1))


def sources(found: Filled) -> list[str]:
    """What the backends of each service see."""
    return [str(service.snat_address) for service in found.config.services]


def gateways(found: Filled) -> list[str]:
    """The gateways."""
    private = found.config.network.private
    assert private is not None
    return list(map(str, private.gateways))


def test_each_host_has_its_own() -> None:
    """One a family, of the same file; what the set-up adds is still what the file has."""
    for number in (2, 3):
        found = filled(f"10.0.0.{number}/8", f"fd00::{number}/64")
        assert sources(found) == [f"10.0.0.{number}", f"fd00::{number}"]
        assert gateways(found) == [f"10.0.0.{number}/8", f"fd00::{number}/64", "10.0.0.254/8"]
        assert (found.problems, found.notes) == ((), ())
        private = found.config.network.private
        assert private is not None
        assert private.complete
        assert list(map(str, private.added)) == ["10.0.0.254/8"]


def test_it_is_found_anew_every_time() -> None:
    """Whatever was filled in before; an address that is gone stays, as an error tells."""
    before = filled("10.0.0.2/8", "fd00::2/64")
    after = fill_addresses(before.config, (4, 6), host("10.0.0.3/8", "fd00::3/64"))
    assert after == filled("10.0.0.3/8", "fd00::3/64")
    gone = fill_addresses(before.config, (4, 6), host("10.0.0.3/8"))
    assert sources(gone) == ["10.0.0.3", "fd00::2"]
    assert [problem.path for problem in gone.problems] == [("services", 1, "snat", "interface")]
    assert gateways(gone) == ["10.0.0.3/8", "10.0.0.254/8"]


def test_an_interface_without_an_address_of_the_family() -> None:
    """It is an error of that service only; a gateway needs one of any family."""
    loaded = parse(FILE, "f")
    found = filled("10.0.0.2/8")
    (line,) = loaded.lines(found.problems)
    assert line.startswith("f:6:24: `snat`: eth1 has no IPv6 address of this host's own; give it ")
    assert filled("10.0.0.2/8", families=(4,)).problems == ()
    only = filled("192.0.2.1/32", "10.0.0.254/8", "2001:db8::1/128").problems
    assert [problem.what.partition(" address of this host's own, ")[::2] for problem in only] == [
        (f"{key}: eth1 has no {family}", "only VIPs and gateways of this file")
        for key, family in (
            ("`snat`", "IPv4"),
            ("`snat`", "IPv6"),
            ("`gateway`", "IPv4 or IPv6"),
        )
    ]


def test_an_interface_that_is_not_there() -> None:
    """The error names those that are."""
    config = parse(FILE.replace("snat: {interface: eth1", "snat: {interface: eth7"), "f").config
    found = fill_addresses(config, (4, 6), host("10.0.0.2/8", eth0="192.0.2.9/24"))
    assert {problem.what for problem in found.problems} == {
        "`snat`: there is no interface `eth7` on this host"
    }
    assert {problem.remedy for problem in found.problems} == {"the interfaces here are: eth0, eth1"}


def test_of_several_the_first_is_taken_and_said() -> None:
    """With the remedy."""
    loaded = parse(FILE, "f")
    found = filled("10.0.0.2/8", "172.16.0.2/12", "10.0.0.1/32", "fd00::2/64")
    assert sources(found) == ["10.0.0.2", "fd00::2"]
    assert loaded.lines(found.notes) == [
        f"f:{at}: `{key}`: eth1 has several IPv4 addresses (10.0.0.2, 172.16.0.2), and 10.0.0.2 is"
        " taken; write `network: 10.0.0.0/8` beside `interface`, or another"
        for key, at in (("gateway", "1:60"), ("snat", "4:24"))
    ]
    chosen = FILE.replace("eth1}", "eth1, network: 172.16.0.0/12}", 2)
    found = filled("10.0.0.2/8", "172.16.0.2/12", "fd00::2/64", text=chosen)
    assert sources(found) == ["172.16.0.2", "fd00::2"]
    assert gateways(found) == ["172.16.0.2/12", "10.0.0.254/8"]
    assert found.notes == ()


def test_where_an_interface_stands_for_an_address() -> None:
    """The paths in the file; most files have none."""
    places = [path for path, _ in own_addresses(parse(FILE, "f").config)]
    snat = [("services", number, "snat") for number in (0, 1)]
    assert places == [("network", "private", "gateway", 0), *snat]
    fixed = FILE.replace("[{interface: eth1}, ", "[").replace("snat: {interface: eth1}, ", "")
    assert list(own_addresses(parse(fixed, "f").config)) == []


def test_the_next_hop_of_announced_vips() -> None:
    """One of each family whose VIPs are announced."""
    text = FILE.replace("2001:db8::1/64", "2001:db8::1/128")
    text += "announce: {next_hop: {interface: eth1}}\n"
    assert ("announce", "next_hop") in [path for path, _ in own_addresses(parse(text, "f").config)]
    announce = filled("10.0.0.2/8", "fd00::2/64", text=text).config.announce
    assert announce is not None
    assert str(announce.next_hop) == "fd00::2 (eth1)"
    (*_, problem) = filled("10.0.0.2/8", text=text).problems
    assert problem.what == "`next_hop`: eth1 has no IPv6 address of this host's own"
