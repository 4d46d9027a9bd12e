"""Tests of ``paraglider.config.importers.haproxy`` and of what it reads a file with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.health import Check
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.haproxy import convert
from paraglider.config.importers.haproxy_reader import read
from paraglider.config.model import Service
from tests.config.importers import importing


def text(*lines: str, server: str = "10.0.0.1:80", bind: str = "192.0.2.1:80") -> str:
    """A `listen` with ``lines`` and one server."""
    return "\n".join(["listen web", f"bind {bind}", *lines, f"server a {server}"])


def services(*lines: str, server: str = "10.0.0.1:80", bind: str = "192.0.2.1:80") -> list[Service]:
    """The services that it becomes."""
    source = text(*lines, server=server, bind=bind)
    return list(importing.config(convert(source)).services)


def notes(*lines: str, server: str = "10.0.0.1:80", bind: str = "192.0.2.1:80") -> list[str]:
    """What is said about it."""
    return importing.notes(convert(text(*lines, server=server, bind=bind)))


def check(*lines: str, server: str = "10.0.0.1:80 check") -> Check:
    """The check that it gets."""
    (service,) = services(*lines, server=server)
    assert service.check is not None
    return service.check


def words(source: str) -> list[str]:
    """The lines of ``source``, their words joined by `|`."""
    draft = Draft()
    sections = read(f"global\n{source}", draft)
    assert draft.problems == []
    return ["|".join(line.words) for section in sections for line in section.lines]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a b#c\n# d\n  e\tf  # g", ["a|b", "e|f"]),
        (r"a b\ c \#d \\e \"f \'g", ["a|b c|#d|\\e|\"f|'g"]),
        (r"a x\ty x\nz \x41\x20b", ["a|x\ty|x\nz|A b"]),
        (r"""a "b c" 'd # e' f"g h"'i'j""", ["a|b c|d # e|fg hij"]),
        (r"""a "b\"c" 'd\e' "\x41\$B" $C""", ['a|b"c|d\\e|A$B|$C']),
        (r"""log-format "%{+Q}o %t"' %s %{-Q}r'""", ["log-format|%{+Q}o %t %s %{-Q}r"]),
        ('a "" b', ["a||b"]),
        (
            'setenv A 1\nb "$A" "${A}x" "$B" \'$A\' "${C-d}" "${A-d}"',
            ["setenv|A|1", "b|1|1x|$B|$A|d|1"],
        ),
        ('presetenv L "x y"\na "${L[*]}" "$L"', ["presetenv|L|x y", "a|x|y|x y"]),
        (".if 0\na\n.elif 1\nb\n.else\nc\n.endif\nd", ["b", "d"]),
        (".if 1\na\n.if 0\nb\n.endif\n.else\nc\n.endif", ["a"]),
        (".if\na\n.else\nb\n.endif\n.notice x", ["b"]),
    ],
)
def test_reading(source: str, found: list[str]) -> None:
    """Words, quotes, escapes, variables and conditions are those of HAProxy."""
    assert words(source) == found


LETTERS = st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])


@given(st.lists(st.text(LETTERS, min_size=1), min_size=1, max_size=5), st.integers(0, 2**10))
def test_quoted_words_are_read_back(given_words: list[str], ways: int) -> None:
    """A word in double or single quotes, or with escapes, is the same word."""
    line = ["x"]
    for index, word in enumerate(given_words):
        way = (ways >> index) % 3
        if way == 0 and "'" not in word:
            line.append(f"'{word}'")
        elif way == 1:
            line.append('"' + "".join(f"\\{c}" if c in '\\"$' else c for c in word) + '"')
        else:
            line.append("".join(f"\\x{ord(c):02x}" if ord(c) < 128 else f"\\{c}" for c in word))
    assert words(" ".join(line)) == ["|".join(["x", *given_words])]


@pytest.mark.parametrize(
    ("bind", "found"),
    [
        ("192.0.2.1:80", ["192.0.2.1 80"]),
        ("192.0.2.1:80-82,192.0.2.1:90", ["192.0.2.1 80-82 90"]),
        ("192.0.2.1:80,192.0.2.9:80", ["192.0.2.1 80", "192.0.2.9 80"]),
        ("*:80", ["192.0.2.1 80"]),
        (":80,:81", ["192.0.2.1 80 81"]),
        ("0.0.0.0:http name x", ["192.0.2.1 80"]),
        (":::80", ["192.0.2.1 80"]),
        ("[::]:80 v4v6", ["192.0.2.1 80"]),
        ("ipv4@192.0.2.7:80", ["192.0.2.7 80"]),
        ("127.0.0.1:80", ["127.0.0.1 80"]),
        ("www.example:80", ["192.0.2.1 80"]),
        ('"$IP:80"', ["192.0.2.1 80"]),
    ],
)
def test_bind(bind: str, found: list[str]) -> None:
    """Addresses become services with their ports; every address one that is filled in."""
    server = "10.0.0.1" if found[0].count(" ") > 1 else "10.0.0.1:80"
    made = [f"{s.vip.ip} {' '.join(map(str, s.ports))}" for s in services(bind=bind, server=server)]
    assert made == found


def test_bind_of_ipv6() -> None:
    """`v6only`, and addresses with the last colon before the port."""
    for bind, vip in ((":::80 v6only", "2001:db8::1"), ("2001:db8::9:80", "2001:db8::9")):
        (service,) = services(bind=bind, server="fd00::1:8080")
        assert (str(service.vip.ip), str(service.backends[0].address)) == (vip, "fd00::1")
        assert service.backends[0].port == 8080


def test_old_way_of_bind() -> None:
    """`listen NAME ADDRESS:PORT`, which HAProxy took once."""
    (service,) = importing.config(convert("listen a 192.0.2.1:80\nserver b 10.0.0.1:80")).services
    assert str(service.vip.ip) == "192.0.2.1"


@pytest.mark.parametrize(
    ("lines", "strategy"),
    [
        ([], "rr"),
        (["balance roundrobin"], "rr"),
        (["balance static-rr", "server b 10.0.0.2:80 weight 9"], "wrr"),
        (["balance leastconn"], "weighted"),
        (["balance source", "hash-type consistent"], "source"),
        (["balance hash src"], "source"),
    ],
)
def test_balance(lines: list[str], strategy: str) -> None:
    """Each way to balance has its strategy."""
    (service,) = services(*lines)
    assert (service.forward, service.strategy) == ("proxy", strategy)
    assert notes(*lines) == []


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ("10.0.0.1:8080", "10.0.0.1 8080 1"),
        ("10.0.0.1", "10.0.0.1 None 1"),
        ("10.0.0.1:80 weight 7", "10.0.0.1 None 7"),
        ("[10.0.0.1]:81 id 5", "10.0.0.1 81 1"),
        ("web1:81 init-addr none", "198.18.0.1 81 1"),
        ("tcp4@10.0.0.1:81", "10.0.0.1 81 1"),
    ],
)
def test_server(server: str, found: str) -> None:
    """Address, port and weight of a server; a name gets an address to be filled in."""
    (service,) = services(server=server)
    (backend,) = service.backends
    assert f"{backend.address} {backend.port} {backend.weight}" == found


def test_servers_that_are_down_or_spare() -> None:
    """One that is disabled drains, one for when all others are down is left out."""
    lines = ["server b 10.0.0.2:80 disabled", "server c 10.0.0.3:80 backup"]
    (service,) = services(*lines)
    assert [(str(b.address), b.weight) for b in service.backends] == [
        ("10.0.0.2", 0),
        ("10.0.0.1", 1),
    ]
    assert notes(*lines)[0].startswith("4: server 'c' is for the time when all others are down")


def test_default_server() -> None:
    """Its parameters are those of the servers below it, unless they say otherwise."""
    lines = ["default-server check inter 3s weight 5", "server b 10.0.0.2:80 weight 6 no-check"]
    (service,) = services(*lines, "default-server fall 9")
    assert [backend.weight for backend in service.backends] == [6, 5]
    assert service.check is not None
    assert (service.check.interval, service.check.fall) == (3, 9)


@pytest.mark.parametrize(
    ("server", "header"),
    [("", None), ("send-proxy", "v1"), ("send-proxy-v2", "v2"), ("send-proxy-v2-ssl", "v2")],
)
def test_proxy_protocol(server: str, header: str | None) -> None:
    """The header that the servers get."""
    assert services(server=f"10.0.0.1:80 {server}")[0].proxy_protocol == header


@pytest.mark.parametrize(
    ("lines", "server", "found"),
    [
        ([], "check", "tcp None 2 2 2 3"),
        ([], "check inter 5s rise 1 fall 4 port 81", "tcp 81 5 5 1 4"),
        ([], "check inter 1500", "tcp None 1.5 1.5 2 3"),
        (["timeout check 3s"], "check inter 10s", "tcp None 10 3 2 3"),
        (["option tcp-check", "tcp-check connect port 99"], "check", "tcp 99 2 2 2 3"),
        (["option httpchk"], "check", "http None 2 2 2 3"),
        (["option httpchk GET /"], "check check-ssl verify none", "https None 2 2 2 3"),
        (["option httpchk", "no option httpchk"], "check", "tcp None 2 2 2 3"),
        (["option mysql-check user a"], "check", "tcp None 2 2 2 3"),
        (["option httpchk", "option ssl-hello-chk"], "check", "tcp None 2 2 2 3"),
        (["option tcp-check", "option httpchk"], "check", "http None 2 2 2 3"),
    ],
)
def test_check(lines: list[str], server: str, found: str) -> None:
    """Probe, port, interval, timeout, rise and fall; without more, HAProxy's defaults."""
    made = check(*lines, server=f"10.0.0.1:80 {server}")
    values = (made.type, made.port, made.interval, made.timeout, made.rise, made.fall)
    assert " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) == found
    assert services(*lines)[0].check is None


@pytest.mark.parametrize(
    ("lines", "path", "host", "status", "body"),
    [
        (["option httpchk /a"], "/a", None, "200-399", None),
        (["option httpchk GET /a HTTP/1.0"], "/a", None, "200-399", None),
        ([r"option httpchk GET /a HTTP/1.1\r\nHost:\ www.a"], "/a", "www.a", "200-399", None),
        (["option httpchk GET /a HTTP/1.1 www.a"], "/a", "www.a", "200-399", None),
        (
            ["option httpchk", "http-check send meth GET uri /a hdr Host www.a"],
            "/a",
            "www.a",
            "200-399",
            None,
        ),
        (
            ["option httpchk", "http-check expect status 200,204,300-310"],
            "/",
            None,
            "200 204 300-310",
            None,
        ),
        (["option httpchk", "http-check expect rstatus ^[23]"], "/", None, "200-299 300-399", None),
        (
            ["option httpchk", r"http-check expect rstatus (2|3)[0-9][0-9]"],
            "/",
            None,
            "200-299 300-399",
            None,
        ),
        (
            ["option httpchk", "http-check expect string all.good"],
            "/",
            None,
            "200-399",
            r"all\.good",
        ),
        (["option httpchk", "http-check expect rstring ^ok"], "/", None, "200-399", "^ok"),
    ],
)
def test_httpchk(
    lines: list[str], path: str, host: str | None, status: str, body: str | None
) -> None:
    """What is asked, and what has to be answered."""
    made = check(*lines)
    assert (made.path, made.host, made.expect.body) == (path, host, body)
    assert " ".join(map(str, made.expect.status)) == status


@pytest.mark.parametrize(
    ("lines", "on_down"),
    [
        (["server b 10.0.0.2:80"], "reset"),
        (["server b 10.0.0.2:80 check"], "keep"),
        (["server b 10.0.0.2:80 check on-marked-down shutdown-sessions"], "reset"),
    ],
)
def test_connections_of_a_server_that_fails(lines: list[str], on_down: str) -> None:
    """HAProxy keeps them, unless it is told otherwise."""
    assert services(*lines)[0].on_down == on_down


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["stick-table type ip size 1m expire 30m", "stick on src"], 1800),
        (["stick-table type ipv6 size 1m expire 90s", "stick store-request src"], 90),
        (["stick on src"], 300),
    ],
)
def test_affinity(lines: list[str], seconds: int) -> None:
    """A table by the client's address keeps a client."""
    made = importing.config(convert(text(*lines)))
    assert (made.services[0].affinity, made.timeouts.affinity) == ("client", seconds)


@pytest.mark.parametrize(
    ("lines", "established", "connect"),
    [
        ([], 7440, 5),
        (["timeout client 1m", "timeout server 90s", "timeout connect 1500ms"], 90, 2),
        (["timeout client 1m", "timeout tunnel 1h"], 3600, 5),
        (["clitimeout 50000", "srvtimeout 60000", "contimeout 4000"], 60, 4),
        (["timeout client 0"], 7440, 5),
    ],
)
def test_timeouts(lines: list[str], established: int, connect: int) -> None:
    """Idle connections, and how long a server may take."""
    timeouts = importing.config(convert(text(*lines))).timeouts
    assert (timeouts.established, timeouts.connect) == (established, connect)


def test_what_defaults_give() -> None:
    """The last `defaults` above a proxy, or the one that it names; its own lines replace them."""
    source = """
defaults base
    mode tcp
    balance leastconn
    option httpchk GET /a
defaults http from base
    mode http
defaults
    balance source
listen one
    bind 192.0.2.1:1
    server a 10.0.0.1:80
listen two from base
    bind 192.0.2.1:2
    server a 10.0.0.1:80 check
listen three from base
    no option httpchk
    balance roundrobin
    bind 192.0.2.1:3
    server a 10.0.0.1:80 check
frontend four from http
    bind 192.0.2.1:4
"""
    made = importing.config(convert(source)).services
    assert [(s.name, s.strategy, s.check.type if s.check else None) for s in made] == [
        ("one", "source", None),
        ("two", "weighted", "http"),
        ("three", "rr", "tcp"),
    ]


def test_frontends_and_backends() -> None:
    """A frontend has the servers of its backend; two can have the same."""
    source = """
frontend a
    bind 192.0.2.1:1
    use_backend x if { src 10.0.0.0/8 }
    default_backend y
frontend b
    bind 192.0.2.1:2
    use_backend y
backend x
    server s 10.0.0.1:80
backend y
    server s 10.0.0.2:80 maxconn 9
"""
    made = importing.config(convert(source)).services
    assert [(s.name, str(s.backends[0].address)) for s in made] == [
        ("a", "10.0.0.2"),
        ("b", "10.0.0.2"),
    ]
    assert [note.partition(";")[0] for note in importing.notes(convert(source))] == [
        "4: `use_backend x if { src 10.0.0.0/8 }` chooses by a condition",
        "9: no frontend in `mode tcp` uses the backend 'x'",
        "12: `maxconn 9` of server 's' has no counterpart",
        "12: `maxconn 9` of server 's' has no counterpart",
    ]
