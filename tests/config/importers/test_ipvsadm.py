"""Tests of ``paraglider.config.importers.ipvsadm``; whole listings are in ``test_formats``."""

from __future__ import annotations

import pytest

from paraglider.config.importers.ipvsadm import convert
from paraglider.config.load import ConfigError
from paraglider.config.model import Config
from tests.config.importers import importing

ADD = "-A -t 192.0.2.1:80 -s rr"
SERVER = "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1"


def config(*lines: str) -> Config:
    """The configuration that a listing becomes."""
    return importing.config(convert("\n".join(lines)))


def notes(*lines: str) -> list[str]:
    """`LINE: what; remedy` of everything in a listing that has no counterpart."""
    return importing.notes(convert("\n".join(lines)))


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
        ("mh", "source", False),
        ("mh -b mh-fallback,mh-port", "maglev", False),
        ("sh -b sh-port", "maglev", False),
        ("sh -b flag-3", "source", True),
        ("wlc -b sh-port", "weighted", True),
        ("fo", "weighted", True),
        ("dh", "source", True),
        ("nq", "weighted", True),
        ("lblcr", "weighted", True),
        ("new-one", "weighted", True),
    ],
)
def test_scheduler(scheduler: str, strategy: str, noted: bool) -> None:
    """A scheduler has its strategy, or the nearest one with a note.

    `sh` and `mh` hash the client's address, and its port too with a flag.
    """
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
        "-A -u [2001:db8::1]:53 -s wrr",
        "-a -u [2001:db8::1]:53 -r [fd00::1]:5353 -m -w 2",
    ).services
    assert (str(service.vip.ip), service.protocol) == ("2001:db8::1", "udp")
    assert (str(service.backends[0].address), service.backends[0].port) == ("fd00::1", 5353)


@pytest.mark.parametrize(
    "script",
    [
        "ipvsadm -At 192.0.2.1:80 -s wrr -p120\nipvsadm -at 192.0.2.1:80 -r 10.0.0.1:80 -mw3",
        (
            "VIP=192.0.2.1\nRIP='10.0.0.1'\nipvsadm -A -t $VIP:80 -s wrr -p 120\n"
            'ipvsadm -a -t ${VIP}:http -r "$RIP:80" -m -w 3'
        ),
        (
            "sudo ipvsadm -A -t 192.0.2.1:80 -s wrr -p=120; \\\n"
            " /sbin/ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 3 > /dev/null 2>&1 || exit 1"
        ),
        (
            "start)\n  for p in 80; do ipvsadm -A -t 192.0.2.1:$p -s wrr -p 120\n"
            "  for r in 10.0.0.{1..1}\n  do\n ipvsadm -a -t 192.0.2.1:$p -r $r -m -w 3; done\n"
            " done\n;;"
        ),
        (
            "[root@lvs ~]# ipvsadm -A -t 192.0.2.1:80 -s rr -p 120\n"
            "[root@lvs ~]# ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -m # the first\n"
            "me@lvs:~$ ipvsadm -E -t 192.0.2.1:80 -s wrr -p 120\n"
            "$ ipvsadm -e -t 192.0.2.1:80 -r 10.0.0.1 -m -w 3\n$ ipvsadm -Ln --stats"
        ),
        (
            "#!/bin/sh\nif [ -x /sbin/ipvsadm ]; then\n"
            "ipvsadm --add-service --tcp-service=192.0.2.1:80 --scheduler=wrr --persistent=120\n"
            "ipvsadm --add-server --tcp-service 192.0.2.1:80 --real-server 10.0.0.1:80 "
            "--masquerading --weight 3\nfi"
        ),
    ],
)
def test_spellings(script: str) -> None:
    """Whatever way people spell the commands: the same service."""
    if "http" in script:
        script = script.replace("$VIP:80", "$VIP:http")
    (service,) = config(script).services
    assert (str(service.vip.ip), service.ports[0].first) == ("192.0.2.1", 80)
    assert (service.strategy, service.affinity) == ("wrr", "client")
    (backend,) = service.backends
    assert (str(backend.address), backend.weight) == ("10.0.0.1", 3)
    assert config(script).timeouts.affinity == 120


def test_what_only_a_shell_knows() -> None:
    """A variable without a value gets an address to be filled in, the same at each place."""
    lines = [
        "ipvsadm -A -t $VIP:80 -s rr",
        "ipvsadm -a -t $VIP:80 -r $1:80 -m",
        "ipvsadm -a -t $VIP:80 -r `hostname -i`:80 -m",
        "ipvsadm -A -t $VIP:443 -s rr",
        "ipvsadm -a -t $VIP:443 -r $1:443 -m",
    ]
    first, second = config(*lines).services
    assert first.vip == second.vip
    assert first.backends[0] == second.backends[0] != first.backends[1]
    assert [note.split(";")[0] for note in notes(*lines)] == [
        "1: the address of '$VIP' is not in the file",
        "2: the address of '$1' is not in the file",
        "3: the address of '`hostname -i`' is not in the file",
    ]


@pytest.mark.parametrize(
    ("rule", "vip", "protocol", "ports"),
    [
        (
            (
                "-t mangle -A PREROUTING -d 192.0.2.9/32 -p tcp -m multiport --dports 80,443"
                " -j MARK --set-mark 0x7"
            ),
            "192.0.2.9",
            "tcp",
            "80 443",
        ),
        (
            (
                "-t mangle -I PREROUTING 1 -p udp -d 192.0.2.9 --dport 5000:5100"
                " -j MARK --set-xmark 7/0xffffffff"
            ),
            "192.0.2.9",
            "udp",
            "5000-5100",
        ),
    ],
)
def test_firewall_mark(rule: str, vip: str, protocol: str, ports: str) -> None:
    """The packets of a mark are those of the rule that sets it, if the script has it."""
    lines = ["ipvsadm -A -f 7 -s rr", "ipvsadm -a -f 7 -r 10.0.0.1 -m"]
    (service,) = config(f"iptables {rule}", *lines).services
    assert (str(service.vip.ip), service.protocol) == (vip, protocol)
    assert " ".join(map(str, service.ports)) == ports


def test_firewall_mark_without_its_rule() -> None:
    """Without it, the output says where to look."""
    lines = ["-A -f 7 -s rr", "-a -f 7 -r 10.0.0.1:0 -m"]
    assert config(*lines).services[0].all_ports
    assert notes(*lines)[0].startswith(
        "1: which packets have the mark 7 is in the rules of iptables"
    )


def test_timeouts() -> None:
    """`--set` has the seconds of TCP, TCP after a FIN, and UDP; 0 leaves one as it is."""
    timeouts = config(ADD, SERVER, "ipvsadm --set 900 0 300").timeouts
    assert (timeouts.established, timeouts.after_fin, timeouts.udp) == (900, 60, 300)


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
        (["-A -f 1 -s rr"], "3: the service 'tcp-mark 1' has no server that takes"),
        (["-A --sctp-service 192.0.2.1:1 -s rr"], "3: the service of SCTP '192.0.2.1:1' is"),
        (["-A -t www:odd -s rr"], "3: the port 'odd' is not known by its name, so the service"),
        (["-A -t 192.0.2.2:80 -s rr"], "3: the service 'tcp-192.0.2.2-80' has no server that take"),
        (
            ["-A -t 192.0.2.2:80 -s rr", "-a -t 192.0.2.2:80 -r 10.0.0.1:80 -m -w 0"],
            "3: the service 'tcp-192.0.2.2-80' has no server that takes",
        ),
        (["-a -t 192.0.2.1:80 -r 10.0.0.2:80 -g"], "3: server '10.0.0.2:80' is forwarded by gate"),
        (
            ["-a -t 192.0.2.1:80 -r web2:80 -m"],
            "3: the address of 'web2' is not in the file; 198.18",
        ),
        (
            ["-a -t 192.0.2.1:80 -r web2:odd -m"],
            "3: the port 'odd' is not known by its name, so the s",
        ),
        (["-d -t 192.0.2.1:80 -r 10.0.0.1"], "3: '-d -t 192.0.2.1:80 -r 10.0.0.1' deletes, and"),
        (["--start-daemon master --mcast-interface eth0"], "3: the synchronization of connections"),
        (["ipvsadm -C", "ipvsadm"], "3: '-C' clears the table, and is passed over; delete the se"),
        (["ipvsadm -R"], "3: the rules are in another file"),
        (
            ["ip addr add 192.0.2.1 dev eth0", "# ipvsadm"],
            "3: 1 other command is not",
        ),
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
        (
            [ADD, SERVER.replace("10.0.0.1", "[fd00::1]")],
            "f:1:1: there is no service that could be",
        ),
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
        ([ADD, SERVER, "-Q"], "f:3:1: '-Q' is no option of ipvsadm-save; leave it out"),
    ],
)
def test_mistake_has_its_place(lines: list[str], error: str) -> None:
    """A mistake is reported with the line of the listing."""
    with pytest.raises(ConfigError) as caught:
        config(*lines)
    assert str(caught.value).startswith(error)
