"""Tests of ``paraglider.config.importers.ipvsadm``; whole listings are in ``test_formats``."""

from __future__ import annotations

import pytest

from paraglider.config.importers.ipvsadm import convert
from paraglider.config.load import ConfigError, accepted
from paraglider.config.model import Config

ADD = "-A -t 192.0.2.1:80 -s rr"
SERVER = "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1"


def config(*lines: str) -> Config:
    """The configuration that a listing becomes."""
    return accepted(convert("\n".join(lines)), "f").config


def notes(*lines: str) -> list[str]:
    """`LINE: what; remedy` of everything in a listing that has no counterpart."""
    draft = convert("\n".join(lines))
    return [f"{draft.marks.of(n).line}: {n.what}; {n.remedy}" for n in draft.notes]


@pytest.mark.parametrize(
    ("way", "forward", "return_", "port"),
    [("-m", "nat", "via", 8080), ("-g", "dsr", "via", None), ("-i", "tunnel", "via", None)],
)
def test_way_of_forwarding(way: str, forward: str, return_: str, port: int | None) -> None:
    """Masquerading is nat, gatewaying dsr, a tunnel tunnel.

    Only masquerading has a port of the server's own, as in the kernel.
    """
    (service,) = config(ADD, f"-a -t 192.0.2.1:80 -r 10.0.0.1:8080 {way} -w 1").services
    (backend,) = service.backends
    assert (service.forward, service.return_, backend.port) == (forward, return_, port)


def test_gatewaying_beside_masquerading_on_one_vip() -> None:
    """A VIP is an address of this host or it is not: there gatewaying becomes nat, and is noted."""
    lines = [
        ADD,
        SERVER,
        "-A -t 192.0.2.1:443 -s rr",
        "-a -t 192.0.2.1:443 -r 10.0.0.1:443 -g",
    ]
    assert [service.forward for service in config(*lines).services] == ["nat", "nat"]
    assert notes(*lines)[0].startswith("4: the VIP is also forwarded otherwise")
    assert config(*lines).network.public is None


@pytest.mark.parametrize(
    ("options", "outer", "noted"),
    [
        ("", ("ipip", None), ()),
        ("--tun-type gue --tun-port 6081 --tun-nocsum", ("gue", 6081), ()),
        ("--tun-type=gue", ("gue", 6080), ()),
        ("--tun-type gre", ("ipip", None), ("2: tunnels of type 'gre' have no counterpart",)),
    ],
)
def test_encapsulation(options: str, outer: tuple[str, int | None], noted: tuple[str, ...]) -> None:
    """A tunnel's type and port are those of the service; GRE becomes IP in IP, with a note."""
    lines = [ADD, f"-a -t 192.0.2.1:80 -r 10.0.0.1:80 -i {options} -w 1"]
    made = config(*lines)
    encapsulation = made.services[0].encapsulation
    assert (encapsulation.type, encapsulation.udp_port or None) == outer
    said = [note for note in notes(*lines) if not note.startswith("1: the names of the interfaces")]
    assert len(said) == len(noted)
    assert all(note.startswith(start) for note, start in zip(said, noted, strict=True))
    assert (made.network.public is not None, made.network.private) == (True, None)


def test_servers_with_another_encapsulation() -> None:
    """The first server's counts, and the others are noted."""
    lines = [
        ADD,
        "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -i --tun-type gue --tun-port 6080",
        "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -i",
    ]
    assert config(*lines).services[0].encapsulation.type == "gue"
    assert any(
        note.startswith("3: this server has another encapsulation") for note in notes(*lines)
    )


def test_a_tunnel_beside_masquerading_on_one_vip() -> None:
    """It becomes nat with direct responses, which pass routers too, and is noted."""
    lines = [ADD, SERVER, "-A -t 192.0.2.1:443 -s rr", "-a -t 192.0.2.1:443 -r 10.0.0.1:443 -i"]
    found = [(service.forward, service.return_) for service in config(*lines).services]
    assert found == [("nat", "via"), ("nat", "direct")]
    assert notes(*lines)[0].startswith("4: the VIP is also forwarded otherwise")


def test_gatewaying_needs_interfaces() -> None:
    """Their names are placeholders, with a note."""
    lines = [ADD, "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g"]
    private = config(*lines).network.private
    assert private is not None
    assert private.interface == "eth1"
    assert notes(*lines)[0].startswith("1: the names of the interfaces, needed for dsr")


@pytest.mark.parametrize(
    ("scheduler", "strategy", "noted"),
    [
        ("rr", "rr", False),
        ("wrr", "wrr", False),
        ("lc", "weighted", False),
        ("wlc", "weighted", False),
        ("sh", "source", False),
        ("mh", "maglev", False),
        ("dh", "source", True),
        ("nq", "weighted", True),
        ("lblcr", "weighted", True),
        ("new-one", "weighted", True),
    ],
)
def test_scheduler(scheduler: str, strategy: str, noted: bool) -> None:
    """A scheduler has its strategy, or the nearest one with a note."""
    lines = (f"-A -t 192.0.2.1:80 -s {scheduler}", SERVER)
    assert config(*lines).services[0].strategy == strategy
    assert len(notes(*lines)) == noted


@pytest.mark.parametrize(("scheduler", "weights"), [("rr", [1, 0]), ("wrr", [5, 0])])
def test_weights(scheduler: str, weights: list[int]) -> None:
    """A weight counts where the scheduler counts it; 0, no new connections, always."""
    (service,) = config(
        f"-A -t 192.0.2.1:80 -s {scheduler}",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 5",
        "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 0",
    ).services
    assert [backend.weight for backend in service.backends] == weights


def test_persistence_is_affinity() -> None:
    """`-p` is affinity, with the longest of the timeouts, 300 s by default."""
    lines = [
        "-A -t 192.0.2.1:80 -s rr -p",
        SERVER,
        "-A -u 192.0.2.1:53 -s rr -p 900",
        "-a -u 192.0.2.1:53 -r 10.0.0.1:53 -m",
    ]
    made = config(*lines)
    assert [service.affinity for service in made.services] == ["client", "client"]
    assert made.timeouts.affinity == 900
    assert notes(*lines)[0].startswith("3: a client is kept for one time in all services; 900 s")
    assert config(*lines[:2]).timeouts.affinity == 300


def test_all_ports() -> None:
    """Port 0 is every port."""
    (service,) = config(
        "-A -t 192.0.2.1:0 -s rr -p 60", "-a -t 192.0.2.1:0 -r 10.0.0.1:0 -g -w 1"
    ).services
    assert service.all_ports


def test_ipv6_and_udp() -> None:
    """An IPv6 service is written with brackets."""
    (service,) = config(
        "-A -u [2001:db8::1]:53 -s mh -b mh-fallback,mh-port",
        "-a -u [2001:db8::1]:53 -r [fd00::1]:5353 -m -w 2",
    ).services
    assert (str(service.vip.ip), service.protocol) == ("2001:db8::1", "udp")
    assert (str(service.backends[0].address), service.backends[0].port) == ("fd00::1", 5353)


def test_commands_as_people_write_them() -> None:
    """Long options, `ipvsadm` before them, comments and -C are understood like the listing."""
    made = config(
        "# rules",
        "ipvsadm -C",
        "/sbin/ipvsadm --add-service --tcp-service=192.0.2.1:80 --scheduler wrr",
        "ipvsadm --add-server --tcp-service 192.0.2.1:80 --real-server 10.0.0.1:80"
        " --masquerading --weight=3",
    )
    (service,) = made.services
    assert (service.strategy, service.backends[0].weight) == ("wrr", 3)


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (["-A -f 1 -s rr"], "3: the service of a firewall mark '1' is left out"),
        (["-A --sctp-service 192.0.2.1:1 -s rr"], "3: the service of SCTP '192.0.2.1:1' is"),
        (["-A -t www:http -s rr"], "3: 'www:http' is no address and port, so it is left out; save"),
        (["-A -t 192.0.2.2:80 -s rr"], "3: the service '192.0.2.2:80' has no server that takes"),
        (
            ["-A -t 192.0.2.2:80 -s rr", "-a -t 192.0.2.2:80 -r 10.0.0.1:80 -m -w 0"],
            "3: the service '192.0.2.2:80' has no server that takes",
        ),
        (["-a -t 192.0.2.1:80 -r 10.0.0.2:80 -g"], "3: server '10.0.0.2:80' is forwarded by gate"),
        (["-a -t 192.0.2.1:80 -r web2:80 -m"], "3: 'web2:80' is no address and port"),
        (["-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -x 9"], "3: '-x 9', an upper threshold"),
        (["-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -x 0 -y 0"], None),
    ],
)
def test_what_has_no_counterpart(lines: list[str], note: str | None) -> None:
    """Settings without a counterpart are noted with their line, and the rest is converted."""
    found = notes(ADD, SERVER, *lines)
    assert found == [] if note is None else len(found) == 1 and found[0].startswith(note)
    assert len(config(ADD, SERVER, *lines).services) == 1


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["-A -f 1 -s rr"], "f:1:1: there is no service that could be taken over; save the rules"),
        ([ADD, SERVER, "hello"], "f:3:1: 'hello' is no option of ipvsadm-save; leave it out"),
        ([ADD, SERVER, "-t 192.0.2.1:80"], "f:3:1: this is no line of ipvsadm-save; write"),
        ([ADD, SERVER, " -A -t"], "f:3:2: '-t' has no value; add one"),
        ([SERVER], "f:1:1: the service '192.0.2.1:80' of this server is in no line above"),
        ([ADD, SERVER, ADD], "f:3:1: the service '192.0.2.1:80' is added twice; keep one"),
        ([ADD, SERVER, SERVER], "f:3:1: backend 10.0.0.1 port 80 appears twice"),
        ([ADD, "-a -t 192.0.2.1:80 -m"], "f:2:1: this server has no address; add -r IP:PORT"),
        ([ADD, SERVER + " -w x"], "f:2:1: `weight`: 'x' is no whole number"),
        ([ADD + " -p 0", SERVER], "f:1:1: `affinity`: 0 is out of range"),
        ([ADD + " --persistent=x", SERVER], "f:1:1: -p 'x'; write seconds"),
        (
            [ADD, SERVER.replace("10.0.0.1", "[fd00::1]")],
            "f:2:1: backend fd00::1 is IPv6, the VIP 192.0.2.1 is IPv4",
        ),
    ],
)
def test_mistake_has_its_place(lines: list[str], error: str) -> None:
    """A mistake is reported with the line of the listing."""
    with pytest.raises(ConfigError) as caught:
        config(*lines)
    assert str(caught.value).startswith(error)
