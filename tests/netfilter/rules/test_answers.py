"""Which ends of backends answer for which VIP, and what the rules about their answers name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.types import PortRange
from paraglider.netfilter.rules.answers import (
    Answering,
    adopting,
    adopting_objects,
    answering,
    objects,
    one_way,
    stray,
    stray_ends,
    strays,
    translation,
)
from paraglider.netfilter.rules.marks import backend_marks

MAPPED = {"address": "10.0.0.1", "port": 8080}


def config(*services: dict[str, Any]) -> Config:
    """Offloaded TCP services by a hash, port 80, each to the first backend, with changes."""
    one = {"vip": "192.0.2.1/32", "protocol": "tcp", "ports": 80, "forward": "offload"}
    one |= {"strategy": "maglev", "seed": 7, "backends": ["10.0.0.1"]}
    made = [
        {key: value for key, value in (one | {"name": f"s{n}"} | each).items() if value is not None}
        for n, each in enumerate(services)
    ]
    return Config.model_validate({"services": made})


def ends(*services: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Port, VIP's port and number of the service of each end that answers for a VIP."""
    made = config(*services)
    marks = backend_marks(made)
    owner = {mark: n for n, service in enumerate(made.services) for mark in marks[service.name]}
    return [(e.port, e.vip_port, owner[e.mark]) for e in answering(made.services, marks)]


def test_an_end() -> None:
    """Address and port of the backend, its mark, and those of the VIP that it answers for."""
    made = config({"backends": [MAPPED]})
    marks = backend_marks(made)
    (found,) = answering(made.services, marks)
    (service,) = made.services
    (backend,) = service.backends
    mark = marks["s0"][0]
    assert found == Answering(backend.address, 8080, mark, service.vip.ip, 80)


def test_many_services_at_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each port is compared with the ranges of its host only, not with those of every service."""
    compared: list[int] = []
    contains = PortRange.__contains__

    def counted(span: PortRange, port: object) -> bool:
        compared.append(1)
        return contains(span, port)

    monkeypatch.setattr(PortRange, "__contains__", counted)
    many = [
        {"vip": f"192.0.3.{n}/32", "backends": [MAPPED | {"port": 9000 + n}]} for n in range(1, 201)
    ]
    ranged = {"vip": "192.0.2.9/32", "ports": "9150-9160"}
    taken = {9000 + n for n in range(150, 161)}
    found = ends(*many, ranged)
    assert {port for port, *_ in found} == {9000 + n for n in range(1, 201)} - taken
    assert len(compared) <= len(many) + 11


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ({}, [(80, 80, 0)]),
        ({"backends": [MAPPED]}, [(8080, 80, 0)]),
        ({"ports": [80, "90-92"]}, [(80, 80, 0), (90, 90, 0), (91, 91, 0), (92, 92, 0)]),
        ({"ports": "100-115"}, [(n, n, 0) for n in range(100, 116)]),
        ({"ports": "100-116"}, []),
        ({"ports": None}, []),
        ({"protocol": "udp"}, []),
        ({"snat": "10.0.0.254"}, []),
        ({"adopt": "never"}, []),
        ({"affinity": "client"}, []),
        ({"strategy": "rr", "seed": None}, []),
        ({"strategy": "mine.policy:Class"}, [(80, 80, 0)]),
    ],
)
def test_services(service: dict[str, Any], found: list[Any]) -> None:
    """Of a service that may adopt flows of TCP and whose ports are few."""
    assert ends(service) == found


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"ports": 81}, [(80, 80, 0), (81, 81, 1)]),
        ({"backends": ["10.0.0.2"]}, [(80, 80, 0), (80, 80, 1)]),
        ({}, []),
        ({"ports": "70-90"}, []),
        ({"ports": 8000, "backends": [{"address": "10.0.0.1", "port": 80}]}, []),
        ({"adopt": "never"}, []),
        ({"ports": None}, []),
        ({"ports": None, "vip": "192.0.2.1/32"}, [(80, 80, 0)]),
        ({"snat": "10.0.0.254"}, [(80, 80, 0)]),
        ({"protocol": "udp"}, [(80, 80, 0)]),
    ],
)
def test_an_end_that_answers_for_two(other: dict[str, Any], found: list[Any]) -> None:
    """Of another VIP, unless it is not asked: nothing tells whose connection it is."""
    assert ends({}, {"vip": "192.0.2.2/32", **other}) == found


def test_stray_ends() -> None:
    """Whatever the strategy: those whose own connections come from other ports, and whose answers
    are not addressed to this host.
    """
    made = config(
        {"strategy": "rr", "seed": None},
        {"ports": "8000-9000", "backends": ["10.0.0.2"]},
        {"ports": None, "backends": ["10.0.0.3"]},
        {"snat": "10.0.0.254", "backends": ["10.0.0.4"]},
        {"forward": "nat", "backends": ["10.0.0.5"]},
    )
    found = [(str(end.address), *map(str, end.ports)) for end in stray_ends(made, 4)]
    assert found == [("10.0.0.1", "80"), ("10.0.0.2", "8000-9000")]
    assert stray_ends(made, 6) == ()


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_what_rules_name_is_there(family: str) -> None:
    """Every set and map has been added."""
    added = "\n".join((*objects("t", family), *adopting_objects("t", family)))
    queue = Config.model_validate({"services": config({}).services}).queue
    rules = (
        one_way(family),
        strays(family),
        *stray(family, ()),
        *adopting(family, queue, (), ()),
        translation(family),
    )
    named = set(re.findall(r"@([\w-]+)", " ".join(rules))) - {"adopted"}
    assert named == {"strays", "one-way", "answering-marks", "answering-vips"}
    for name in named:
        assert re.search(rf"^add (set|map) t {name} ", added, re.MULTILINE)


def test_the_limit_and_the_lost() -> None:
    """Beyond `queue.openings_rate` nothing is adopted, without one all is; nor is a connection of a
    lost backend.
    """
    queue = config({}).queue
    without = queue.model_copy(update={"openings_rate": 0})
    rules = list(adopting("ip", queue, (), ("timed",)))
    assert [rule for rule in rules if rule.startswith("limit rate over 30000/second")]
    assert not [rule for rule in adopting("ip", without, (), ()) if "limit" in rule]
    lost = list(adopting("ip", queue, (), ("timed",), {0x51000002, 0x51000001}))
    (more,) = (rule for rule in lost if rule not in rules)
    assert more == "ct mark { 0x51000001, 0x51000002 } ct mark set 0x0 return"
    assert lost.index(more) < lost.index("counter name ct mark map @adopted")
    assert rules[-1] == "timed"
