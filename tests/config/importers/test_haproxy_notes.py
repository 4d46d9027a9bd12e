"""Tests of what ``paraglider.config.importers.haproxy`` names, leaves out and refuses."""

from __future__ import annotations

import pytest

from paraglider.config.importers.haproxy import convert
from paraglider.config.importers.haproxy_server import milliseconds
from paraglider.config.load import ConfigError
from tests.config.importers import importing

TCP = "listen other\nbind 192.0.2.9:1\nserver b 10.0.0.9:1\n"  # so that something is left


def text(*lines: str, server: str = "10.0.0.1:80", bind: str = "192.0.2.1:80") -> str:
    """A `listen` with ``lines``, from the third on, and one server; another stands below."""
    own = ["listen web", f"bind {bind}", *lines, f"server a {server}"]
    return "\n".join(own) + "\n" + TCP


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["mode http"], "1: `listen web` is `mode http`, which works on requests, and is left out"),
        (["mode http", "stats enable"], "1: `listen web` is `mode http`, which works on requests,"),
        (["disabled"], "1: `listen web` is `disabled`, and is left out; remove the line"),
        (["acl x src 10.0.0.0/8"], "3: `acl x src 10.0.0.0/8` has no counterpart; a service has o"),
        (["maxconn 9"], "3: `maxconn 9` has no counterpart; limit the connections at the servers"),
        (["tcp-request content accept"], "3: `tcp-request content accept` has no counterpart; lim"),
        (["option tcplog"], "3: `option tcplog` has no counterpart; connections are counted"),
        (["http-request deny"], "3: `http-request deny` has no counterpart; it works on requests"),
        (["stats auth me:secret"], "3: `stats auth` has no counterpart"),
        (["timeout queue 1m"], "3: `timeout queue 1m` has no counterpart; leave it out"),
        (["timeout client-fin 1s"], "3: `timeout client-fin 1s` has no counterpart"),
        (["balance uri"], "3: `balance uri` has no counterpart; it looks into requests; rr takes"),
        (["balance first"], "3: `balance first` has no counterpart; the servers are not filled"),
        (["balance random(2)"], "3: `balance random(2)` has no counterpart; the server with the f"),
        (["stick-table type ip size 1m"], "3: `stick-table type ip size 1m` is used by no `stick"),
        (["stick on req.cook(a)"], "3: `stick on req.cook(a)` has no counterpart; only a client's"),
        (["stick on src"], "3: clients are kept for 300 s after their last connection; write"),
        (["server-template b 3 x:80"], "3: `server-template b 3 x:80` looks its servers up"),
        (["server b /run/s"], "3: server 'b': '/run/s' is a socket of this host; a backend has an"),
        (["server b unix@x"], "3: server 'b': 'unix@x' is a socket of this host"),
        (["server b 10.0.0.2:+1000"], "3: server 'b': the port '+1000' is counted from the client"),
        (["server b"], "3: server 'b': there is no address; write one such as"),
        (["server b 10.0.0.2:80 send-proxy"], "4: server 'a' gets another PROXY header, or none"),
        (["server b 10.0.0.2:80 check"], "4: server 'a' has no `check`, others of its service hav"),
        (["server b 10.0.0.2:80 agent-check check"], "3: `agent-check` of server 'b' has no"),
        (["bind 192.0.2.1:443 ssl crt /a"], "3: this `bind` ends TLS; let the servers do that, re"),
        (["bind /run/s"], "3: bind '/run/s': '/run/s' is no address of TCP; it is left out"),
        (["bind 192.0.2.1"], "3: bind '192.0.2.1': there is no port; write ADDRESS:PORT"),
        (["bind 192.0.2.1:81 accept-proxy"], "3: `accept-proxy` of `bind` has no counterpart; a h"),
        (["bind 192.0.2.1:81 maxconn 9"], "3: `maxconn 9` of `bind` has no counterpart; leave it"),
        ([".if feature(X)", "maxconn 9", ".endif"], "3: the condition 'feature(X)' is taken as tr"),
    ],
)
def test_what_has_no_counterpart(lines: list[str], said: str) -> None:
    """It is named with its line and what to do instead; the rest is taken over."""
    draft = convert(text(*lines))
    found = importing.notes(draft)
    assert [note for note in found if note.startswith(said)], found
    assert "other" in [service.name for service in importing.config(draft).services]
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "3: the check asks by GET, HAProxy by OPTIONS; see that the servers answer a GET"),
        (["http-check expect ! status 500"], "4: `http-check expect ! status 500` has no counterp"),
        (["http-check expect rstatus a+"], "4: `http-check expect rstatus a+` has no counterpart"),
        (["http-check disable-on-404"], "4: `http-check disable-on-404` has no counterpart; leave"),
        (["option tcp-check", "tcp-check expect string x"], "5: `tcp-check expect string x` has n"),
        (["option ssl-hello-chk"], "3: `option httpchk` is replaced by `option ssl-hello-chk`; l"),
        (["option redis-check"], "4: `option redis-check` has no counterpart; only the connection"),
        (["server b 10.0.0.2:80 check port 9"], "5: the check of server 'a' differs from that of"),
    ],
)
def test_checks_without_a_counterpart(lines: list[str], said: str) -> None:
    """Of a check too."""
    found = importing.notes(convert(text("option httpchk", *lines, server="10.0.0.1:80 check")))
    assert [note for note in found if note.startswith(said)], found


def test_tls_and_choices_are_left_out() -> None:
    """What would send bytes where they are not understood is left out as a whole."""
    for more, said in (
        ({"server": "10.0.0.1:443 ssl verify none"}, "1: `listen web` begins TLS towards its"),
        ({"bind": "192.0.2.1:443 ssl crt /a"}, "1: `listen web` has no address that could be"),
    ):
        draft = convert(text(**more))
        assert [note for note in importing.notes(draft) if note.startswith(said)]
        assert [service.name for service in importing.config(draft).services] == ["other"]
    source = "frontend web\nbind :443\nuse_backend b if { req.ssl_sni -i a }\nbackend b\n" + TCP
    assert importing.notes(convert(source))[0].startswith("1: `frontend web` chooses its backend b")
    source = "frontend web\nbind :80\ndefault_backend b\nbackend b\nmode http\n" + TCP
    assert importing.notes(convert(source))[0].startswith("1: `frontend web` leads to a backend in")


def test_settings_of_the_process() -> None:
    """`global` and `defaults` are one note each, with the line of every setting."""
    source = "global\nmaxconn 9\nstats socket /run/a\n"
    source += "defaults\nlog global\noption tcplog\nretries 3\n"
    found = importing.notes(convert(source + TCP + "resolvers x\nnameserver a 10.0.0.1:53\n"))
    assert [note.partition(";")[0] for note in found] == [
        "1: of `global`, these have no counterpart: `maxconn` (line 2), `stats socket` (line 3)",
        "4: of `defaults`, these have no counterpart: `log` (line 5), `option tcplog` (line 6)",
        "11: the section `resolvers x` has no counterpart",
    ]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("global\ndaemon", "f:1:1: there is no frontend or listen in `mode tcp` that could be tak"),
        ("defaults\nmode http\nlisten a\nbind :80\n", "f:1:1: there is no frontend or listen in"),
        ("bind :80\n", "f:1:1: 'bind' is in no section; begin with `defaults` or `listen NAME`"),
        ("listen\nbind :80\n", "f:1:1: a `listen` without a name; write `listen NAME`"),
        ("frontend a\nbind :80\n", "f:1:1: there is no frontend or listen in `mode tcp`"),
        ("frontend a\nbind :80\ndefault_backend b", "f:3:1: there is no backend 'b'; add it, or"),
        ("listen a from b\nbind :80", "f:1:1: there is no `defaults b`; correct the name"),
        (text("x 'a"), "f:3:3: a quote is not closed, or a backslash ends the line; complete it"),
        (text("x a\\"), "f:3:4: a quote is not closed, or a backslash ends the line; complete it"),
        (text(".if 1"), "f:3:1: this `.if` has no `.endif`; add it"),
        (text(".else"), "f:3:1: `.else` without `.if`; remove it, or add the `.if`"),
        (text("timeout client x"), "f:3:1: 'x' is no time; write one such as 30s"),
        (text(server="10.0.0.1:80 weight x"), "f:3:1: `weight`: 'x' is no whole number"),
        (text("server b 10.0.0.1:80"), "f:4:1: backend 10.0.0.1 port 80 appears twice"),
    ],
)
def test_mistake_has_its_place(source: str, error: str) -> None:
    """A mistake is reported with its line and the remedy."""
    with pytest.raises(ConfigError) as caught:
        importing.config(convert(source))
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("given", "found"),
    [("5000", 5000), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)],
)
def test_times(given: str, found: int) -> None:
    """Without a unit a time is in milliseconds."""
    assert milliseconds(given) == found
    assert milliseconds("500us") == 0.5
