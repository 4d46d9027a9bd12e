"""Tests of ``paraglider.config.importers.nginx`` and of what it reads a file with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.diagnostics import report
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.includes import Includes
from paraglider.config.importers.nginx import convert
from paraglider.config.importers.nginx_reader import read
from paraglider.config.importers.nginx_upstream import seconds
from paraglider.config.load import ConfigError
from paraglider.config.model import Service
from tests.config.importers import importing

UPSTREAM = "server 10.0.0.1:80;"


def text(server: str = "", upstream: str = UPSTREAM, listen: str = "192.0.2.1:80") -> str:
    """A block `stream`, on six lines: line 3 is of the upstream, line 6 of the server."""
    return (
        f"stream {{\nupstream web {{\n{upstream}\n}}\n"
        f"server {{ listen {listen}; proxy_pass web;\n{server}\n}}\n}}"
    )


def services(
    server: str = "", upstream: str = UPSTREAM, listen: str = "192.0.2.1:80"
) -> list[Service]:
    """The services that it becomes."""
    return list(importing.config(convert(text(server, upstream, listen))).services)


def notes(server: str = "", upstream: str = UPSTREAM, listen: str = "192.0.2.1:80") -> list[str]:
    """What is said about it."""
    return importing.notes(convert(text(server, upstream, listen)))


def words(source: str) -> list[str]:
    """The statements of ``source``, with the blocks that they are in, their words joined by `|`."""
    draft = Draft()
    found: list[str] = []
    open_ = [(each, "") for each in reversed(read(source, Includes(), draft))]
    while open_:
        statement, above = open_.pop()
        found.append(above + "|".join((statement.name, *statement.words)))
        open_ += [(each, f"{above}{statement.name}/") for each in reversed(statement.inner)]
    assert draft.problems == []
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a b; # c\n# d;\ne\n  f\n;", ["a|b", "e|f"]),
        ("a { b c; d { e; } }\nf;", ["a", "a/b|c", "a/d", "a/d/e", "f"]),
        ("a 'b c' \"d;{ e\" f\\ g;", ["a|b c|d;{ e|f g"]),
        ('a b"c d#e;', ['a|b"c|d#e']),
        ("log '$a ' '$b';", ["log|$a |$b"]),
        ("a ${b}c ~^(.*)$;", ["a|${b}c|~^(.*)$"]),
        (
            "x { b_by_lua_block { if a then b( { } end } }",
            ["x", "x/b_by_lua_block"],
        ),
        ("a;;b;", ["a", "b"]),
    ],
)
def test_reading(source: str, found: list[str]) -> None:
    """Words, quotes, comments and blocks are those of nginx."""
    assert words(source) == found


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_quoted_words_are_read_back(given_words: list[str]) -> None:
    """A word in quotes is the same word."""
    plain = [word.replace("\\", "") for word in given_words]
    line = " ".join('"' + word.replace('"', '\\"') + '"' for word in plain)
    assert words(f"x {line};") == ["|".join(["x", *plain])]


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("80", ["tcp 192.0.2.1 80"]),
        ("*:80 reuseport backlog=9", ["tcp 192.0.2.1 80"]),
        ("192.0.2.1:80-82", ["tcp 192.0.2.1 80", "tcp 192.0.2.1 81", "tcp 192.0.2.1 82"]),
        ("127.0.0.1:80; listen 127.0.0.1:81", ["tcp 127.0.0.1 80", "tcp 127.0.0.1 81"]),
        ("192.0.2.1:53 udp reuseport", ["udp 192.0.2.1 53"]),
        ("53; listen 53 udp", ["tcp 192.0.2.1 53", "udp 192.0.2.1 53"]),
        ("localhost:80", ["tcp 192.0.2.1 80"]),
    ],
)
def test_listen(listen: str, found: list[str]) -> None:
    """Addresses, ranges and UDP; every address of the host gets one to be filled in."""
    made = services(listen=listen)
    assert [f"{s.protocol} {s.vip.ip} {s.ports[0]}" for s in made] == found


def test_listen_on_ipv6() -> None:
    """`[::]` is IPv6 only, so it needs a server of IPv6."""
    (service,) = services(upstream="server [fd00::1]:8080;", listen="[::]:80")
    assert (str(service.vip.ip), service.backends[0].port) == ("2001:db8::1", 8080)
    assert [s.family for s in services(listen="80; listen [::]:80")] == [4]
    assert any("each family needs a service" in note for note in notes(listen="80; listen [::]:80"))


@pytest.mark.parametrize(
    ("listen", "server", "forward", "snat"),
    [
        ("192.0.2.1:80", "", "proxy", "None"),
        ("192.0.2.1:80", "proxy_bind $remote_addr transparent;", "nat", "None"),
        ("192.0.2.1:80 udp", "", "offload", "address on eth0"),
        ("192.0.2.1:80 udp", "proxy_bind 10.0.0.254;", "offload", "10.0.0.254"),
        ("192.0.2.1:80 udp", "proxy_bind $remote_addr transparent;", "nat", "None"),
    ],
)
def test_forward(listen: str, server: str, forward: str, snat: str) -> None:
    """What the servers see stays: nginx' address, or with `transparent` the client's."""
    (service,) = services(server, listen=listen)
    assert (service.forward, str(service.snat)) == (forward, snat)


@pytest.mark.parametrize(
    ("upstream", "strategy"),
    [
        ("server 10.0.0.1:80; server 10.0.0.2:80;", "rr"),
        ("server 10.0.0.1:80; server 10.0.0.2:80 weight=2;", "wrr"),
        ("server 10.0.0.1:80; server 10.0.0.2:80 down;", "rr"),
        ("least_conn; server 10.0.0.1:80;", "weighted"),
        ("hash $remote_addr consistent; server 10.0.0.1:80;", "source"),
        ("hash $binary_remote_addr; server 10.0.0.1:80;", "source"),
        ("hash $remote_addr$remote_port; server 10.0.0.1:80;", "maglev"),
        ("zone web 64k; server 10.0.0.1:80;", "rr"),
    ],
)
def test_strategy(upstream: str, strategy: str) -> None:
    """Each method has its strategy."""
    assert services(upstream=upstream)[0].strategy == strategy
    assert notes(upstream=upstream) == []


def test_servers() -> None:
    """Weights, one that is down, one by name, and one for when all others are down."""
    upstream = (
        "server 10.0.0.1:80 weight=3; server 10.0.0.2:80 down; server web1:81; "
        "server 10.0.0.4:80 backup; server unix:/run/a;"
    )
    (service,) = services(upstream=upstream)
    assert [(str(b.address), b.port, b.weight) for b in service.backends] == [
        ("10.0.0.1", None, 3),
        ("10.0.0.2", None, 0),
        ("198.18.0.1", 81, 1),
    ]


def test_times_and_header() -> None:
    """Of the `server`, or of `stream`; the longest counts for all services."""
    source = "proxy_timeout 1h30m; proxy_connect_timeout 1500ms; proxy_protocol on;"
    made = importing.config(convert(text(source)))
    assert (made.timeouts.established, made.timeouts.connect) == (5400, 2)
    assert made.services[0].proxy_protocol == "v1"
    inherited = text().replace("stream {", f"stream {{ {source}")
    assert importing.config(convert(inherited)) == made


def test_passive_checks() -> None:
    """`max_fails` becomes a check of TCP; 0 is none."""
    check = services(upstream="server 10.0.0.1:80 max_fails=2;")[0].check
    assert check is not None
    assert (check.type, check.fall) == ("tcp", 2)
    assert services(upstream="server 10.0.0.1:80 max_fails=0;")[0].check is None
    assert services(upstream="server 10.0.0.1:80 slow_start=30s;")[0].slow_start == 30


@pytest.mark.parametrize(
    "source",
    [
        "upstream web { server 10.0.0.1:80; } server { listen 192.0.2.1:80; proxy_pass web; }",
        "stream { server { listen 192.0.2.1:80; proxy_pass 10.0.0.1:80; } }",
        (
            "http { server { listen 80; } } stream { upstream web { server 10.0.0.1:80; }\n"
            "server { proxy_pass web; listen 192.0.2.1:80; } }"
        ),
    ],
)
def test_places_of_stream(source: str) -> None:
    """The block, a part of it in a file of its own, and without an upstream."""
    (service,) = importing.config(convert(source)).services
    assert (str(service.vip.ip), str(service.backends[0].address)) == ("192.0.2.1", "10.0.0.1")


@pytest.mark.parametrize(
    ("server", "upstream", "listen", "said"),
    [
        ("allow all;", UPSTREAM, "80", "6: `allow all` has no counterpart; allow networks in the"),
        ("ssl_preread on;", UPSTREAM, "80", "6: `ssl_preread on` has no counterpart; the name in"),
        ("access_log /a;", UPSTREAM, "80", "6: `access_log /a` has no counterpart; connections ar"),
        ("proxy_bind 10.0.0.9;", UPSTREAM, "80", "6: `proxy_bind 10.0.0.9`: the proxy connects fr"),
        ("proxy_protocol on;", UPSTREAM, "80 udp", "6: `proxy_protocol on` has no counterpart for"),
        ("", UPSTREAM, "80 proxy_protocol", "5: `listen … proxy_protocol`: a header from the clie"),
        ("", UPSTREAM, "80 odd=1", "5: `odd=1` has no counterpart; leave it out"),
        ("", UPSTREAM, "80; listen unix:/run/a", "5: 'unix:/run/a' is a socket of this host; a se"),
        ("", UPSTREAM, "80; listen 10.0.0.1", "5: the port '' is not known by its name; write its"),
        ("", UPSTREAM + "random;", "80", "3: `random` has no counterpart; rr gives the same share"),
        ("", UPSTREAM + "random two;", "80", "3: `random two` has no counterpart; weighted is the"),
        ("", UPSTREAM + "hash $ssl_preread_server_name;", "80", "3: the key '$ssl_preread_server_"),
        ("", UPSTREAM + "resolver 10.0.0.9;", "80", "3: `resolver 10.0.0.9` has no counterpart"),
        ("", "server 10.0.0.1:80 max_conns=9;", "80", "3: `max_conns=9` of '10.0.0.1:80' has no c"),
        ("", "server 10.0.0.1:80 fail_timeout=9;", "80", "3: `fail_timeout=9` of '10.0.0.1:80' ha"),
        ("", "server 10.0.0.1:80 max_fails=9;", "80 udp", "3: `max_fails` of UDP has no counterpa"),
        ("", UPSTREAM + "server 10.0.0.2:80 backup;", "80", "3: the server '10.0.0.2:80' is for t"),
        ("", UPSTREAM + "server 10.0.0.2:odd;", "80", "3: the port 'odd' is not known by its name"),
        ("", UPSTREAM, "80; } server { listen 1; return 1", "5: this `server` is left out: it has"),
        ("", UPSTREAM, "80; proxy_pass web; } server { listen 1 ssl", "5: this `server` is left o"),
        (
            "",
            UPSTREAM,
            (
                "80; proxy_pass web; } map $a $b { x y; } server { listen 1; proxy_pass $b;"
                " } server { listen 2"
            ),
            "5: `map $a $b` has no counterpart; a service has one pool: give",
        ),
        (
            "",
            UPSTREAM,
            "80; proxy_pass web; } upstream spare { server 10.0.0.3:1; } server { listen 2",
            "5: no server of `stream` uses the upstream 'spare'",
        ),
    ],
)
def test_what_has_no_counterpart(server: str, upstream: str, listen: str, said: str) -> None:
    """It is named with its line and what to do instead; the rest is taken over."""
    found = notes(server, upstream, listen)
    assert [note for note in found if note.startswith(said)], found
    assert services(server, upstream, listen)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("user a;\n", "1: `user a` is nginx's own; leave it out"),
        ("http { server { listen 1; } }\n", "1: `http` works on requests, and a layer-4 balancer"),
        ("server { listen 1; location / { } }\n", "1: this `server` is one of `http`, which works"),
        ("include none.d/*.conf;\n", "1: the file 'none.d/*.conf' is included, and standard input"),
        ("stream { server { listen 1; proxy_pass $x; } }\n", "1: this `server` is left out: '$x'"),
        ("stream { server { listen 1; proxy_pass unix:/a; } }\n", "1: this `server` is left out:"),
        (
            "stream { server { listen 1; proxy_pass 10.0.0.1:1; proxy_ssl on; } }\n",
            "1: this `server` is left out: it begins TLS towards the backends; let the clients do",
        ),
    ],
)
def test_what_is_left_out(source: str, said: str) -> None:
    """Other parts of nginx, and servers that do more than balance."""
    draft = convert(source + text())
    found = importing.notes(draft)
    assert [note for note in found if note.startswith(said)], found
    assert len(importing.config(draft).services) == 1


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("events { }", "f:1:1: there is no server of `stream` that could be taken over; import th"),
        ("http { server { listen 80; } }", "f:1:1: there is no server of `stream` that could be"),
        ("stream {\n server {\n", "f:2:2: the block 'server' is not closed; add the `}`"),
        ("stream {\n}\n}", "f:3:1: a `}` closes no block; remove it, or add the `{`"),
        ("a;\n{ }", "f:2:1: a `{` without a name before it"),
        ("a;\n  b c", "f:2:3: the statement 'b c' has no end; add `;`"),
        ("stream { a\n}", "f:1:10: the statement 'a' has no end; add `;`"),
        ('a "b;\n', "f:1:3: a quote is not closed; close it"),
        ("a { b_by_lua_block { {\n}", "f:1:20: this block is not closed; add the `}`"),
        ("a {" * 20, "f:1:49: blocks are nested more than 16 deep"),
        (text("proxy_timeout x;"), "f:6:1: proxy_timeout 'x'; write seconds"),
        (text(upstream="server 10.0.0.1:80 weight=x;"), "f:3:1: `weight`: 'x' is no whole number"),
        (text(upstream=UPSTREAM * 2), "f:3:20: backend 10.0.0.1 port 80 appears twice"),
        (text("proxy_pass 10.0.0.1:odd;"), "f:6:1: the port 'odd' is not known by its name"),
    ],
)
def test_mistake_has_its_place(source: str, error: str) -> None:
    """A mistake is reported with its line and the remedy."""
    with pytest.raises(ConfigError) as caught:
        importing.config(convert(source))
    assert str(caught.value).startswith(error)


def test_included_files(tmp_path: Path) -> None:
    """They are read where they are included, relative to the main file, and named."""
    (tmp_path / "stream.d").mkdir()
    (tmp_path / "nginx.conf").write_text("stream {\ninclude stream.d/*.conf;\n}\n")
    (tmp_path / "stream.d" / "a.conf").write_text("include up.inc;\n")
    (tmp_path / "stream.d" / "b.conf").write_text(
        "server {\nlisten 192.0.2.1:80; proxy_pass web;\ndeny all;\n}\n"
    )
    (tmp_path / "up.inc").write_text(f"upstream web {{\n{UPSTREAM}\nserver 10.0.0.2:81 backup;\n}}")
    main = tmp_path / "nginx.conf"
    draft = convert(main.read_text(), Includes(str(main)))
    (service,) = importing.config(draft).services
    assert str(service.backends[0].address) == "10.0.0.1"
    found = report("nginx.conf", draft.marks, draft.notes)
    assert [str(line).replace(str(tmp_path), "")[:40] for line in found] == [
        "/stream.d/b.conf:3:1: `deny all` has no ",
        "/up.inc:3:1: the server '10.0.0.2:81' is",
    ]
    (tmp_path / "up.inc").write_text("}")
    draft = convert(main.read_text(), Includes(str(main)))
    assert [problem.what for problem in draft.problems][:1] == ["a `}` closes no block"]
    (tmp_path / "up.inc").write_text("include stream.d/a.conf;")
    draft = convert(main.read_text(), Includes(str(main)))
    assert "includes itself" in draft.problems[0].what


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("90", 90),
        ("1m30s", 90),
        ("1h 30m", 5400),
        ("500ms", 1),
        ("2d", 172_800),
        ("x", "x"),
    ],
)
def test_times(given: str, found: int | str) -> None:
    """Times with units, which can follow each other."""
    assert seconds(given) == found
