"""Tests of ``paraglider.config.importers.keepalived``, its reader and its checks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.diagnostics import report
from paraglider.config.health import Check
from paraglider.config.importers import ipvsadm
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.includes import Includes
from paraglider.config.importers.keepalived import convert
from paraglider.config.importers.keepalived_reader import read
from paraglider.config.load import ConfigError
from paraglider.config.model import Config, Service
from tests.config.importers import importing

HEAD = "virtual_server 192.0.2.1 80 {"
SERVER = "real_server 10.0.0.1 80 {"


def text(*lines: str, server: str = "") -> str:
    """A virtual server with ``lines``, and a server with the lines ``server``."""
    return "\n".join([HEAD, *lines, SERVER, server, "}", "}"])


def service(*lines: str, server: str = "") -> Service:
    """The service that this becomes."""
    (made,) = importing.config(convert(text(*lines, server=server))).services
    return made


def notes(*lines: str, server: str = "") -> list[str]:
    """What is said about it."""
    return importing.notes(convert(text(*lines, server=server)))


def check(checker: str, *lines: str) -> Check:
    """The check that ``checker`` becomes."""
    made = service(*lines, server=checker).check
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("lines", "forward", "port"),
    [
        ([], "nat", 8080),
        (["lb_kind NAT"], "nat", 8080),
        (["lvs_method DR"], "dsr", None),
        (["lb_kind TUN"], "tunnel", None),
        (["lb_kind tun"], "tunnel", None),
    ],
)
def test_way_of_forwarding(lines: list[str], forward: str, port: int | None) -> None:
    """NAT is the default, and the one with ports of the servers' own."""
    source = "\n".join([HEAD, *lines, "real_server 10.0.0.1 8080 {", "}", "}"])
    (made,) = importing.config(convert(source)).services
    assert (made.forward, made.backends[0].port) == (forward, port)


def test_tunnel() -> None:
    """Type and port of the outer header."""
    made = service("lvs_method TUN type gue port 6666 nocsum")
    assert (made.forward, made.encapsulation.type, made.encapsulation.port) == (
        "tunnel",
        "gue",
        6666,
    )


@pytest.mark.parametrize(("kind", "said"), [("DR", True), ("TUN", True), ("NAT", False)])
def test_vip_that_vrrp_adds_to_the_host(kind: str, said: bool) -> None:
    """It must not be there for DR and TUN; conf/keepalived-routed.conf is the way for a pair."""
    vrrp = "vrrp_instance A {\n virtual_ipaddress {\n 192.0.2.1/24 dev eth0\n }\n}\n"
    found = importing.notes(convert(vrrp + text(f"lb_kind {kind}")))
    assert any(note.startswith("6: VRRP adds this VIP to the host, and") for note in found) == said


def test_interface_of_vrrp() -> None:
    """For DR the interface that VRRP names is taken, with a note."""
    vrrp = "vrrp_instance A {\n interface ens3\n virtual_ipaddress {\n 192.0.2.1/24\n }\n}\n"
    draft = convert(vrrp + text("lb_kind DR"))
    network = importing.config(draft).network
    assert network.public is not None
    assert network.private is not None
    assert network.public.interface == network.private.interface == "ens3"
    assert [note.partition(";")[0] for note in importing.notes(draft)] == [
        "1: `vrrp_instance A` is not taken over",
        "2: 'ens3' is taken as the interface towards the clients and the backends",
        "7: VRRP adds this VIP to the host, and here only the backends may have it",
    ]


@pytest.mark.parametrize(
    ("lines", "strategy"),
    [
        ([], "weighted"),
        (["lb_algo rr"], "rr"),
        (["lvs_sched wrr"], "wrr"),
        (["lb_algo sh"], "source"),
        (["lb_algo mh", "mh-port"], "maglev"),
        (["lb_algo sh", "sh-port", "sh-fallback"], "maglev"),
    ],
)
def test_scheduler(lines: list[str], strategy: str) -> None:
    """As with ipvsadm; without one it is wlc."""
    assert service(*lines).strategy == strategy
    assert notes(*lines) == []


@pytest.mark.parametrize(
    ("line", "seconds"), [("persistence_timeout 50", 50), ("persistence_timeout", 360)]
)
def test_persistence(line: str, seconds: int) -> None:
    """A client is kept; for six minutes by default."""
    made = importing.config(convert(text(line)))
    assert (made.services[0].affinity, made.timeouts.affinity) == ("client", seconds)


@pytest.mark.parametrize(
    ("lines", "server"),
    [(["inhibit_on_failure"], ""), ([], "inhibit_on_failure"), ([], "inhibit_on_failure true")],
)
def test_inhibit_on_failure(lines: list[str], server: str) -> None:
    """A server that fails keeps its connections then, else not."""
    assert service(*lines, server=server).on_down == "keep"
    assert service(server="inhibit_on_failure off").on_down == service().on_down == "reset"


@pytest.mark.parametrize(
    ("head", "group", "found"),
    [
        ("192.0.2.1", "", ["tcp 192.0.2.1 1-65535"]),
        ("2001:db8::1 443", "", ["tcp 2001:db8::1 443"]),
        ("192.0.2.1 https", "", ["tcp 192.0.2.1 443"]),
        ("group g", "192.0.2.1 80\n192.0.2.9 81", ["tcp 192.0.2.1 80", "tcp 192.0.2.9 81"]),
        ("group g", "192.0.2.1-3 80", [f"tcp 192.0.2.{n} 80" for n in (1, 2, 3)]),
        ("group g", "192.0.2.9-192.0.2.10 80", ["tcp 192.0.2.9 80", "tcp 192.0.2.10 80"]),
        ("group g", "192.0.2.4/31 80", ["tcp 192.0.2.4 80", "tcp 192.0.2.5 80"]),
        ("group g", "fwmark 7", ["tcp 192.0.2.1 1-65535"]),
        ("fwmark 7", "", ["tcp 192.0.2.1 1-65535"]),
    ],
)
def test_addresses(head: str, group: str, found: list[str]) -> None:
    """Of one server, of a group with ranges, and a firewall mark, for which one is filled in."""
    real = "fd00::1" if "2001" in head else "10.0.0.1"
    source = f"virtual_server {head} {{\nreal_server {real} 0 {{\n}}\n}}\n"
    source += f"virtual_server_group g {{\n{group}\n}}\n" if group else ""
    made = importing.config(convert(source)).services
    assert [f"{s.protocol} {s.vip.ip} {' '.join(map(str, s.ports))}" for s in made] == found


@pytest.mark.parametrize(
    ("checker", "found"),
    [
        ("TCP_CHECK {\n}", "tcp None 60 5 1 2"),
        ("TCP_CHECK {\nconnect_port 81\nconnect_timeout 3\nretry 4\n}", "tcp 81 60 3 1 5"),
        ("TCP_CHECK { connect_timeout 0.5 }", "tcp None 60 0.5 1 2"),
        ("HTTP_GET {\nnb_get_retry 3\ndelay_loop 7\n}", "http None 7 5 1 4"),
        ("SSL_GET {\n}\n", "https None 60 5 1 2"),
        ("SMTP_CHECK {\n}\n", "tcp None 60 5 1 2"),
        ("DNS_CHECK {\n}\n", "tcp None 60 5 1 4"),
        ("PING_CHECK {\n}\n", "icmp None 60 5 1 2"),
        ("MISC_CHECK {\nmisc_path \"/bin/test -e 'a b'\"\n}\n", "exec None 60 60 1 1"),
        ("MISC_CHECK {\nmisc_path /bin/true\nmisc_timeout 9\n}\n", "exec None 60 9 1 1"),
    ],
)
def test_checkers(checker: str, found: str) -> None:
    """The probe, and keepalived's times: down after the retries, up after one success."""
    made = check(checker)
    values = (made.type, made.port, made.interval, made.timeout, made.rise, made.fall)
    assert " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) == found


def test_settings_of_a_virtual_server_are_defaults_of_its_checkers() -> None:
    """And those of a server come between."""
    lines = ["delay_loop 6", "connect_timeout 2", "retry 1", "virtualhost a.example"]
    made = check("retry 2\nHTTP_GET {\nconnect_timeout 1\n}", *lines)
    assert (made.interval, made.timeout, made.fall, made.host) == (6, 1, 3, "a.example")


@pytest.mark.parametrize(
    ("url", "path", "status", "body", "host"),
    [
        ("", "/", "200-299", None, None),
        ("path /a", "/a", "200-299", None, None),
        ("path a\nstatus_code 200", "/a", "200", None, None),
        ("status_code 200-299 503", "/", "200-299 503", None, None),
        ('regex "a b"\nvirtualhost www.example', "/", "200-299", "a b", "www.example"),
    ],
)
def test_url(url: str, path: str, status: str, body: str | None, host: str | None) -> None:
    """What is asked, and what has to be answered."""
    made = check(f"HTTP_GET {{\nurl {{\n{url}\n}}\n}}")
    assert (made.path, " ".join(map(str, made.expect.status))) == (path, status)
    assert (made.expect.body, made.host) == (body, host)


@pytest.mark.parametrize(
    ("lines", "server", "said"),
    [
        (
            ["sorry_server 10.0.0.9 80"],
            "",
            "2: `sorry_server 10.0.0.9 80` has no counterpart; without",
        ),
        (["quorum 2"], "", "2: `quorum 2` has no counterpart"),
        (["quorum_down /bin/x"], "", "2: `quorum_down /bin/x` has no counterpart; let Prometheus"),
        (["ops"], "", "2: `ops` has no counterpart; leave it out"),
        (["flag-3"], "", "1: 'flag-3', a flag of the scheduler, has no counterpart"),
        (
            ["persistence_timeout", "persistence_granularity 255.255.0.0"],
            "",
            "1: clients are kept one by one, not by the mask '255.255.0.0'",
        ),
        ([], 'notify_up "/bin/x y"', "3: `notify_up /bin/x y` has no counterpart; let Prometheus"),
        ([], "uthreshold 9", "3: `uthreshold 9` has no counterpart; limit the connections at the"),
        ([], "SMTP_CHECK {\nhelo_name a\n}", "4: 'helo_name a' of SMTP_CHECK has no counterpart"),
        ([], "DNS_CHECK {\n}", "3: `DNS_CHECK` has no counterpart; only a connection over TCP"),
        (
            [],
            "TCP_CHECK {\n}\nPING_CHECK {\n}",
            "5: a second checker, `PING_CHECK`, has no counter",
        ),
        (
            [],
            "HTTP_GET {\nurl {\ndigest 0a\n}\n}",
            "5: 'digest 0a' of a `url` has no counterpart; a",
        ),
        ([], "HTTP_GET {\nurl {\n}\nurl {\n}\n}", "6: a second `url` has no counterpart; a check"),
        ([], "HTTP_GET {\nurl {\nregex a\nregex_no_match\n}\n}", "5: 'regex a' of a `url` has no"),
        (
            [],
            "MISC_CHECK {\nmisc_path /bin/a 10.0.0.1\n}",
            "4: the program names one server, and is",
        ),
        ([], "MISC_CHECK {\nmisc_dynamic\n}", "3: MISC_CHECK without `misc_path` checks nothing"),
        ([], "TCP_CHECK {\nconnect_port odd\n}", "4: the port 'odd' is not known by its name"),
        (
            ["@here weight 3"],
            "",
            "2: '@here' makes this line one for some hosts only; remove the word",
        ),
        (["~SEQ(A, 1, 2) real_server 10.0.0.$A 80 {"], "", "2: a line that is repeated by ~SEQ or"),
        (["include missing"], "", "2: the file 'missing' is included, and standard input has no"),
        (["real_server 10.0.0.2 odd {", "}"], "", "2: the port 'odd' is not known by its name"),
        (["lb_kind X"], "", "1: the service 'tcp-192.0.2.1-80' has no server"),
        (
            ["real_server 10.0.0.2 80 {", "lvs_method DR", "}"],
            "",
            "5: server '10.0.0.1 80' is forw",
        ),
    ],
)
def test_what_has_no_counterpart(lines: list[str], server: str, said: str) -> None:
    """It is named with its line and what to do instead."""
    found = notes(*lines, server=server)
    assert [note for note in found if note.startswith(said)], found


def test_checkers_that_differ() -> None:
    """A service has one check; servers with another, or none, are named."""
    source = f"{HEAD}\n{SERVER}\nTCP_CHECK {{\n}}\n}}\nreal_server 10.0.0.2 80 {{\n}}\n"
    source += "real_server 10.0.0.3 80 {\nTCP_CHECK {\nretry 9\n}\n}\n}\n"
    assert [note.partition(";")[0] for note in importing.notes(convert(source))] == [
        "6: this server has no checker, others of its service have",
        "9: this checker differs from that of the first server",
    ]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("global_defs {\n}", "f:1:1: there is no virtual_server that could be taken over; add one"),
        (HEAD, "f:1:1: the block 'virtual_server 192.0.2.1 80' is not closed; add the `}`"),
        (text() + "\n}", "f:6:1: a `}` closes no block; remove it"),
        (text("{"), "f:2:1: a `{` without a name before it; write it on the line of the name"),
        (text('quorum_up "x'), "f:2:11: a quote is not closed in this line; close it"),
        ("virtual_server {\n}", "f:1:1: a virtual_server without an address; write"),
        ("virtual_server group x {\n}", "f:1:1: there is no virtual_server_group 'x'; add it"),
        ("virtual_server 192.0.2.1 odd {\n}", "f:1:1: the port 'odd' is not known by its name"),
        ("virtual_server 192.0.2.9-1 80 {\n}", "f:1:1: '192.0.2.9-1' has no 1 to 256 addresses"),
        ("virtual_server 10.0.0.0/8 80 {\n}", "f:1:1: '10.0.0.0/8' has no 1 to 256 addresses"),
        ("a {\n" * 20, "f:17:1: blocks are nested more than 16 deep; is a `}` missing above?"),
        (
            "$A=${B}${B}\n$B=${A}${A}\n" + text("$A"),
            "f:4:1: the parameters of this line become too",
        ),
        (text(server="weight x"), "f:2:1: `weight`: 'x' is no whole number"),
        (text(server="TCP_CHECK {\nconnect_timeout x\n}"), "f:4:1: `timeout`: 'x' is no duration"),
    ],
)
def test_mistake_has_its_place(source: str, error: str) -> None:
    """A mistake is reported with its line and the remedy."""
    with pytest.raises(ConfigError) as caught:
        importing.config(convert(source))
    assert str(caught.value).startswith(error)


def words(source: str) -> list[str]:
    """The statements of ``source``, with the blocks that they are in."""
    draft = Draft()
    found: list[str] = []
    open_ = [(each, "") for each in reversed(read(source, Includes(), draft))]
    while open_:
        statement, above = open_.pop()
        found.append(above + "|".join((statement.name, *statement.words)))
        inner = above + statement.name + "/"
        open_ += [(each, inner) for each in reversed(statement.inner)]
    assert draft.problems == []
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("! a\n# b\na b # c\nd ! e", ["a|b", "d"]),
        ("a {\n b\n c {\n }\n}\nd", ["a", "a/b", "a/c", "d"]),
        ("a { b c }\nd{\ne\n}", ["a", "a/b|c", "d", "d/e"]),
        ('a "b c" \'d # e\' f\\ g h"i j"k', ["a|b c|d # e|f g|hi jk"]),
        ("$A=1\n$B=${A}0\na $A ${B}x $C", ["a|1|10x|$C"]),
        ("$A=1\na $A\n$A=2\na $A", ["a|1", "a|2"]),
        (
            "$RS= \\\n  r 10.0.0.${N} { \\\n  w 1 \\\n  }\nv {\n$N=1\n$RS\n$N=2\n$RS\n}",
            ["v", "v/r|10.0.0.1", "v/r/w|1", "v/r|10.0.0.2", "v/r/w|1"],
        ),
    ],
)
def test_reading(source: str, found: list[str]) -> None:
    """Comments, blocks, quotes and parameters are those of keepalived."""
    assert words(source) == found


def test_included_files(tmp_path: Path) -> None:
    """They are read where they are included, relative to the including file, and named."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "main").write_text("global_defs {\n}\ninclude sub/*.conf\n")
    (tmp_path / "sub" / "a.conf").write_text(text("include b.inc", "sorry_server 10.0.0.9 80"))
    (tmp_path / "sub" / "b.inc").write_text("lb_algo rr\nalpha\n")
    draft = convert((tmp_path / "main").read_text(), Includes(str(tmp_path / "main")))
    assert importing.config(draft).services[0].strategy == "rr"
    found = report("main", draft.marks, draft.notes)
    assert [str(line).replace(str(tmp_path), "")[:36] for line in found] == [
        "main:1:1: `global_defs` is not taken",
        "/sub/a.conf:3:1: `sorry_server 10.0.",
        "/sub/b.inc:2:1: `alpha` has no count",
    ]
    assert "# line 2 of '" in importing.render(draft, "main", "x")
    (tmp_path / "sub" / "b.inc").write_text("include a.conf\n")
    draft = convert((tmp_path / "main").read_text(), Includes(str(tmp_path / "main")))
    (problem,) = draft.problems
    assert "includes itself" in problem.what
    assert problem.mark is not None
    assert problem.mark.file.endswith("b.inc")


SERVERS = st.lists(st.tuples(st.integers(1, 250), st.integers(0, 9)), min_size=1, max_size=4)


@given(
    st.sampled_from(["rr", "wrr", "wlc", "sh", "mh"]),
    st.sampled_from([("NAT", "-m"), ("DR", "-g"), ("TUN", "-i")]),
    st.none() | st.integers(1, 999),
    SERVERS.filter(lambda servers: any(weight for _, weight in servers)),
)
def test_the_same_as_ipvsadm(
    scheduler: str, way: tuple[str, str], kept: int | None, servers: list[tuple[int, int]]
) -> None:
    """What keepalived makes of a file is what ipvsadm would list."""
    servers = list(dict(servers).items())
    if not any(weight for _, weight in servers):
        servers[0] = (servers[0][0], 1)
    lines = [f"-A -t 192.0.2.1:80 -s {scheduler}" + (f" -p {kept}" if kept else "")]
    inner = [f"lb_algo {scheduler}", f"lb_kind {way[0]}"]
    inner += [f"persistence_timeout {kept}"] if kept else []
    for host, weight in servers:
        lines.append(f"-a -t 192.0.2.1:80 -r 10.0.0.{host}:80 {way[1]} -w {weight}")
        inner.append(f"real_server 10.0.0.{host} 80 {{\n weight {weight}\n}}")
    made = importing.config(convert("\n".join([HEAD, *inner, "}"])))
    assert made == importing.config(ipvsadm.convert("\n".join(lines)))
    assert isinstance(made, Config)
