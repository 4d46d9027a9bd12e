"""Tests of ``paraglider.config.route_list``: each route of a file becomes a service."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.load import ConfigError, parse
from paraglider.config.model import Config
from paraglider.config.reader import parse as read
from paraglider.config.route_list import expand
from paraglider.forward.schema import schema

TOP = """\
services:
  - name: web
    vip: 192.168.0.11/24
    protocol: tcp
    ports: 443
    forward: proxy
    strategy: maglev
    strategy_parameters: {table_size: 251}
    proxy_protocol: v2
    check: {type: tcp}
    backends: [10.0.0.1]
"""
AFTER = """\
  - name: mail
    vip: 192.168.0.12/24
    protocol: tcp
    backends: [10.0.0.9]
"""


def config(*routes: str, after: str = "") -> Config:
    """The configuration of `web` with these routes."""
    lines = "".join(f"      - {route}\n" for route in routes)
    return parse(f"{TOP}    route:\n{lines}{after}", "f").config


def mistakes(*routes: str, top: str = TOP, after: str = "") -> list[str]:
    """The mistakes of the same, without the name of the file; the first route is in line 13."""
    lines = "".join(f"      - {route}\n" for route in routes)
    with pytest.raises(ConfigError) as caught:
        parse(f"{top}    route:\n{lines}{after}", "f")
    return [line.removeprefix("f:") for line in caught.value.lines]


def test_a_route_is_a_service() -> None:
    """It has what its service has, except what it has itself; it comes after those of the file."""
    made = config(
        '{sni: "*.A.example", backends: [{address: 10.0.0.2, port: 8443}, 10.0.0.3]}',
        "{sni: [b.example], alpn: h2, strategy: rr, proxy_protocol: v1, backends: [10.0.0.4]}",
        "{alpn: [http/1.1], name: old, check: {type: tcp, port: 99}, backends: {file: /list}}",
        after=AFTER,
    )
    web, mail, first, second, third = made.services
    names = [service.name for service in made.services]
    assert names == ["web", "mail", "web._wildcard.a.example", "web.b.example.h2", "old"]
    assert web.route is mail.route is None
    for service in (first, second, third):
        assert service.route is not None
        assert service.route.service == "web"
        assert (service.vip, service.ports, service.forward) == (web.vip, web.ports, web.forward)
    assert first.model_copy(update={"name": "web", "listed": web.listed, "route": None}) == web
    assert [backend.name for backend in first.backends] == ["10.0.0.2:8443", "10.0.0.3"]
    assert (second.strategy, second.strategy_parameters) == ("rr", {})
    assert (second.proxy_protocol, second.check) == ("v1", web.check)
    assert third.source is not None
    assert third.check is not None
    assert third.check.port == 99


def test_between_processes() -> None:
    """A configuration is the same after a message, and its routes are not made again."""
    made = config("{sni: a.example, backends: [10.0.0.2]}")
    plain = json.loads(json.dumps(made.model_dump(mode="json", by_alias=True)))
    assert Config.model_validate(plain) == made


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("7", "13:9: `route[0]`: 7 where a section belongs; write each on a line"),
        ("{sni: a.example}", "13:9: `route[0]` has no `backends`; add `backends: ...`"),
        ("{backends: [10.0.0.2]}", "13:9: a route without `sni` and `alpn` takes every"),
        ("{sn1: a, backends: [10.0.0.2]}", "13:10: unknown key `sn1`; did you mean `sni`?"),
        (
            "{sni: a, colour: b, backends: [10.0.0.2]}",
            "13:18: unknown key `colour`; the keys of a route are: sni, alpn, name, return,",
        ),
        ("{sni: a, vip: 1.2.3.4, backends: [10.0.0.2]}", "13:18: `vip` in a route, which has that"),
        ("{sni: a, route: [], backends: [10.0.0.2]}", "13:18: `route` in a route"),
        ('{sni: [a, "*"], backends: [10.0.0.2]}', "13:19: `sni[1]`: '*' is no name of a server"),
        ("{sni: [], backends: [10.0.0.2]}", "13:15: `sni`: the list is empty"),
        ("{sni: a, backends: [10.0.0.2, fd00::1]}", "13:39: backend fd00::1 is IPv6, the VIP"),
        ("{sni: a, snat: 10.0.0.7, backends: [10.0.0.2]}", "13:18: `snat` has no meaning with"),
        ("{sni: a, name: web, backends: [10.0.0.2]}", "13:24: two services are named `web`"),
        ("{sni: a, weight: 1, check: {typ: tcp}, backends: [10.0.0.2]}", "13:18: unknown key"),
        (f"{{sni: {'a.' * 30}a, backends: [10.0.0.2]}}", "13:9: the route's name 'web.a.a."),
    ],
)
def test_mistakes_have_their_place(route: str, expected: str) -> None:
    """Of the route itself, and of the service that it becomes."""
    assert mistakes(route, after=AFTER)[0].startswith(expected)


def test_all_mistakes_at_once() -> None:
    """Those of the service are told once, though its routes have it too."""
    top = TOP.replace("vip: 192.168.0.11/24", "vip: 192.168.0.300").replace("proxy\n", "prxy\n")
    found = mistakes("{sni: a, backends: [10.0.0.2]}", "{sni: b., backends: 10.0.0.2}", top=top)
    assert [line.partition(": ")[0] for line in found] == ["3:10", "6:14", "14:29"]


@pytest.mark.parametrize("value", ["7", "{sni: a, backends: [10.0.0.2]}", "[]", ""])
def test_no_list(value: str) -> None:
    """One place and one remedy for all that is no list of routes."""
    with pytest.raises(ConfigError) as caught:
        parse(f"{TOP}    route: {value}\n", "f")
    (line,) = caught.value.lines
    assert line.startswith("f:12:")
    assert "where a list of routes belongs; write each on a line of its own" in line


def test_another_forward() -> None:
    """A route takes a proxy."""
    top = TOP.replace("proxy\n", "offload\n").replace("    proxy_protocol: v2\n", "")
    found = mistakes("{sni: a, backends: [10.0.0.2]}", top=top)
    where = "11:5: `route` has no meaning with `forward: offload`; leave `route` out, or use"
    assert found == [f"{where} `forward: proxy`"]


KEYS = ("sni", "alpn", "name", "backends", "vip", "route", "check", "strategy", "x", "1")
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["a", "*.b", "10.0.0.1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@given(VALUES)
def test_anything(value: object) -> None:
    """Whatever a file has at `route`, it ends in a configuration or in mistakes with places."""
    text = f"{TOP}    route: {json.dumps(value)}\n"
    lines: tuple[str, ...] = ()
    try:
        made = parse(text, "f").config
    except ConfigError as error:
        lines = error.lines
    assert all(line.startswith("f:12:") for line in lines)
    assert lines or len(made.services) > 1


def test_the_data_stays() -> None:
    """What was read is not changed."""
    document = read(f"{TOP}    route: [{{sni: a, backends: [10.0.0.2]}}]\n")
    before = json.dumps(document.data)
    data, problems = expand(document.data, document.marks)
    assert problems == []
    assert len(data["services"]) == 2
    assert json.dumps(document.data) == before


def test_the_schema_has_the_form_of_the_file() -> None:
    """A list, whose items have no key that is the service's."""
    parts = schema()["$defs"]
    assert parts["Service"]["properties"]["route"]["items"] == {"$ref": "#/$defs/RouteConfig"}
    keys = set(parts["RouteConfig"]["properties"])
    assert {"sni", "alpn", "name", "backends", "check", "strategy", "affinity"} <= keys
    assert not keys & {"vip", "protocol", "ports", "forward", "route", "service"}


def test_paths_of_the_file() -> None:
    """A path within the service that a route becomes leads to what the file has."""
    text = f"{TOP}    route:\n      - {{sni: a, check: {{type: http}}, backends: [10.0.0.2]}}\n"
    marks = parse(text, "f").marks
    for path, expected in [
        (("services", 0, "check"), ("services", 0, "check")),
        (("services", 1), ("services", 0, "route", 0)),
        (("services", 1, "route", "sni", 0), ("services", 0, "route", 0, "sni", 0)),
        (("services", 1, "route"), ("services", 0, "route")),
        (("services", 1, "check", "type"), ("services", 0, "route", 0, "check", "type")),
        (("services", 1, "backends", 0), ("services", 0, "route", 0, "backends", 0)),
        (("services", 1, "vip"), ("services", 0, "vip")),
        (("services", 1, "strategy_parameters"), ("services", 0, "strategy_parameters")),
        (("services", 1, "name"), ("services", 0, "route", 0, "name")),
        (("services", 1, "affinity"), ("services", 0, "route", 0, "affinity")),
    ]:
        assert marks.written(path) == expected
