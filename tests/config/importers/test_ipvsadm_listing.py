"""Tests of ``paraglider.config.importers.ipvsadm_listing``: what `ipvsadm -L` prints, as pasted."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.importers.ipvsadm import convert
from paraglider.config.load import ConfigError
from paraglider.config.model import Config
from tests.config.importers import importing

TITLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
"""


def config(rows: str) -> Config:
    """The configuration that a listing with ``rows`` becomes."""
    return importing.config(convert(TITLE + rows))


def notes(rows: str) -> list[str]:
    """What is said about a listing with ``rows``; its first row is in line 4."""
    return importing.notes(convert(TITLE + rows))


@pytest.mark.parametrize(
    ("row", "protocol", "vip", "ports", "strategy", "affinity"),
    [
        ("TCP  192.0.2.1:80 wlc", "tcp", "192.0.2.1", "80", "weighted", "flow"),
        ("UDP  192.0.2.1:domain rr ops", "udp", "192.0.2.1", "53", "rr", "flow"),
        ("TCP  192.0.2.1:https wrr persistent 90", "tcp", "192.0.2.1", "443", "wrr", "client"),
        (
            "TCP  192.0.2.1:0 rr persistent 9 mask 255.255.255.255",
            "tcp",
            "192.0.2.1",
            "1-65535",
            "rr",
            "client",
        ),
        ("TCP  lvs.example.com:http sh (sh-port)", "tcp", "192.0.2.1", "80", "maglev", "flow"),
        ("TCP  192.0.2.1:80 mh (mh-fallback,mh-port)", "tcp", "192.0.2.1", "80", "maglev", "flow"),
        ("FWM  7 rr", "tcp", "192.0.2.1", "1-65535", "rr", "flow"),
    ],
)
def test_service(
    row: str, protocol: str, vip: str, ports: str, strategy: str, affinity: str
) -> None:
    """A row of a service has its protocol, VIP, port, scheduler and flags."""
    (service,) = config(f"{row}\n  -> 10.0.0.1:0   Masq    1      0          0         \n").services
    assert (service.protocol, str(service.vip.ip)) == (protocol, vip)
    assert " ".join(map(str, service.ports)) == ports
    assert (service.strategy, service.affinity) == (strategy, affinity)


@pytest.mark.parametrize(
    ("forward", "method"), [("Masq", "nat"), ("Route", "dsr"), ("Tunnel", "tunnel")]
)
def test_server(forward: str, method: str) -> None:
    """A row of a server has its way and its weight; 0 drains."""
    rows = f"TCP  [2001:db8::1]:80 wlc\n  -> [fd00::1]:8080   {forward}   3      5          9\n"
    (service,) = config(rows + f"  -> [fd00::2]:8080   {forward}   0      0          0").services
    assert (service.forward, [each.weight for each in service.backends]) == (method, [3, 0])
    assert service.backends[0].port == (8080 if forward == "Masq" else None)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("  -> 10.0.0.2:80 Local 1 0 0", "6: the server '10.0.0.2:80' is the balancer itself"),
        (
            "  -> web:odd Masq 1 0 0",
            "6: the port 'odd' is not known by its name, so it is left out",
        ),
        ("SCTP 192.0.2.1:9 rr\n  -> 10.0.0.1:9 Masq 1 0 0", "6: the service of SCTP '192.0.2.1:9'"),
        ("UDP  192.0.2.1:odd rr\n  -> 10.0.0.1:9 Masq 1 0 0", "6: the port 'odd' is not known by"),
        ("UDP  192.0.2.1:9 rr", "6: the service 'udp-192.0.2.1-9' has no server that takes"),
        ("UDP  192.0.2.1:9 rr ops\n  -> 10.0.0.1:9 Masq 1 0 0", "6: 'ops', a flag of the service,"),
        ("UDP  192.0.2.1:9 rr pe sip\n  -> 10.0.0.1:9 Masq 1 0 0", "6: 'pe sip', a flag of the"),
        (
            "UDP  192.0.2.1:9 rr persistent 9 mask 255.255.0.0\n  -> 10.0.0.1:9 Masq 1 0 0",
            "6: clients are kept one by one, not by the mask '255.255.0.0'",
        ),
    ],
)
def test_what_has_no_counterpart(rows: str, said: str) -> None:
    """It is named with its line, and the rest is taken over."""
    all_rows = f"TCP  192.0.2.1:80 rr\n  -> 10.0.0.1:80 Masq 1 0 0\n{rows}"
    (note,) = notes(all_rows)
    assert note.startswith(said)
    assert config(all_rows).services[0].name == "tcp-192.0.2.1-80"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "  -> RemoteAddress:Port   Conns   InPkts  OutPkts  InBytes\nTCP 192.0.2.1:80 1 2",
            "f:1:3: this lists counters, not the servers; print it with `ipvsadm -L -n`",
        ),
        (
            "IPVS connection entries\npro expire state\nTCP 01:00 NONE 1.1.1.1:1",
            "f:1:1: this lists connections, not the servers; print it",
        ),
        (
            "  -> RemoteAddress:Port  Uthreshold Lthreshold ActiveConn InActConn",
            "f:1:3: this lists thresholds, not the servers; print it",
        ),
        (
            "TCP  192.0.2.1:80 rr\n  -> 10.0.0.1:80",
            "f:2:3: the row of '10.0.0.1:80' has no",
        ),
        ("TCP  192.0.2.1:80", "f:1:1: the service '192.0.2.1:80' has no scheduler in this row"),
        ("  -> 10.0.0.1:80 Masq 1 0 0", "f:1:3: this server is below no service; start at a line"),
    ],
)
def test_other_listings(text: str, error: str) -> None:
    """A listing that does not have what is needed is refused with the command that prints it."""
    with pytest.raises(ConfigError) as caught:
        importing.config(convert(text))
    assert str(caught.value).startswith(error)


def test_commands_with_their_listing() -> None:
    """Pasted together they are the same services, not twice as many."""
    text = (
        "# ipvsadm -C\n[root@lb ~]# ipvsadm -A -t 192.0.2.1:80 -s rr\n"
        "[root@lb ~]# ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1:80 -m\n[root@lb ~]# ipvsadm -Ln\n"
        + TITLE
        + "TCP  192.0.2.1:80 rr\n  -> 10.0.0.1:80 Masq 1 0 0\n  -> 10.0.0.2:80 Masq 1 0 0\n"
    )
    (service,) = importing.config(convert(text)).services
    assert len(service.backends) == 2


WAYS = {
    "Masq": ("-m", "--masquerading"),
    "Route": ("-g", "--gatewaying"),
    "Tunnel": ("-i", "--ipip"),
}
SERVICES = st.lists(
    st.tuples(
        st.sampled_from(["TCP", "UDP"]),
        st.sampled_from(["rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq", "dh"]),
        st.none() | st.integers(1, 9999),
        st.sampled_from(sorted(WAYS)),
        st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    ),
    min_size=1,
    max_size=4,
)


@given(SERVICES, st.booleans(), st.randoms(use_true_random=False))
def test_all_spellings_mean_the_same(services, names, rng) -> None:  # type: ignore[no-untyped-def]
    """What `ipvsadm -L` prints, what `ipvsadm-save` prints, and a script: one configuration."""
    listing, saved, script = TITLE, "", "#!/bin/sh\nVIP=192.0.2.1\n"
    for index, (protocol, scheduler, persistent, way, weights) in enumerate(services):
        vip = ipaddress.ip_address("192.0.2.1") + index
        port = "http" if names else "80"
        flag, long_flag = ("-t", "--tcp-service") if protocol == "TCP" else ("-u", "--udp-service")
        listing += f"{protocol}  {vip}:{port} {scheduler}"
        listing += f" persistent {persistent}\n" if persistent else "\n"
        kept = f" -p {persistent}" if persistent else ""
        saved += f"-A {flag} {vip}:80 -s {scheduler}{kept}\n"
        place = "$VIP" if index == 0 else str(vip)
        joined = kept.replace(" ", rng.choice(["", " "])) and f" {kept.strip()}"
        script += rng.choice(
            [
                f"ipvsadm -A{flag[1]} {place}:{port} -s {scheduler}{joined}\n",
                f"/sbin/ipvsadm --add-service {long_flag}={place}:80 --scheduler={scheduler}"
                + (f" --persistent={persistent}\n" if persistent else "\n"),
            ]
        )
        for number, weight in enumerate(weights):
            real = f"10.0.0.{number + 1}"
            listing += f"  -> {real}:{port}   {way:7} {weight}      0          0         \n"
            saved += f"-a {flag} {vip}:80 -r {real}:80 {WAYS[way][0]} -w {weight}\n"
            script += rng.choice(
                [
                    f"ipvsadm -a {flag} {place}:80 -r {real}:{port} {WAYS[way][0]}w{weight}\n",
                    (
                        f"ipvsadm --add-server {long_flag} {place}:80 --real-server {real} "
                        f"{WAYS[way][1]} --weight {weight} # number {number}\n"
                    ),
                ]
            )
    first, second, third = (importing.config(convert(text)) for text in (listing, saved, script))
    assert first == second == third
