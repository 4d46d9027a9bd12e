"""Tests of ``paraglider.config.importers.services``."""

from __future__ import annotations

import ipaddress

import pytest

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.endpoints import ANY, ANY6, host
from paraglider.config.importers.services import (
    FoundBackend,
    FoundService,
    Given,
    ServiceWriter,
    longest,
    unique_name,
)
from tests.config.importers.importing import config, notes

AT = Mark(3, 1)


def service(vip: str, *backends: str, ports: tuple[int | str, ...] = (80,)) -> FoundService:
    """A service; a backend is `HOST`, `HOST PORT` or `HOST PORT WEIGHT`, port 0 is the client's."""
    found = FoundService(AT, "web", vip if vip == ANY6 else host(vip), "tcp", list(ports))
    for text in backends:
        name, port, weight = (text.split() + ["0", "1"][text.count(" ") :])[:3]
        given = FoundBackend(Mark(4, 1), host(name), int(port) or None, int(weight))
        found.backends.append(given)
    return found


def written(*services: FoundService, text: str = "") -> Draft:
    """The draft of ``services``."""
    draft = Draft()
    writer = ServiceWriter(draft, text)
    for each in services:
        writer.write(each)
    return draft


def test_stand_ins_are_free_and_the_same_for_a_name() -> None:
    """A name gets an address that the file does not have; the same name gets the same."""
    draft = written(
        service("www", "a", "b"), service("www", "b", ports=(81,)), text="192.0.2.1 198.18.0.2"
    )
    first, second = config(draft).services
    assert str(first.vip.ip) == str(second.vip.ip) == "192.0.2.2"
    assert [str(each.address) for each in first.backends] == ["198.18.0.1", "198.18.0.3"]
    assert second.backends[0].address == first.backends[1].address
    assert [note.partition(";")[0] for note in notes(draft)] == [
        "3: the address of 'www' is not in the file",
        "4: the address of 'a' is not in the file",
        "4: the address of 'b' is not in the file",
    ]
    assert draft.comments["services", 1, "vip"] == "www: write its address"


@pytest.mark.parametrize(
    ("vip", "backends", "family"),
    [
        (ANY, ["10.0.0.1"], 4),
        (ANY, ["fd00::1"], 6),
        (ANY, ["name"], 4),
        (ANY6, ["name"], 6),
        ("2001:db8::80", ["name"], 6),
    ],
)
def test_family_of_a_stand_in(vip: str, backends: list[str], family: int) -> None:
    """It is that of the service's addresses, as far as the file has them."""
    (made,) = config(written(service(vip, *backends))).services
    assert {made.family, *(each.address.version for each in made.backends)} == {family}


def test_more_names_than_stand_ins() -> None:
    """They end with a mistake, not with an address of somebody."""
    draft = written(*(service(f"n{index}", "10.0.0.1") for index in range(256)))
    assert draft.problems[0].what.startswith("more than 250 names stand for addresses, 'n254'")


def test_backends_of_another_family_are_left_out() -> None:
    """With a note; a service without any other is left out too."""
    draft = written(service("192.0.2.1", "fd00::1", "10.0.0.1"), service("192.0.2.2", "fd00::1"))
    (made,) = config(draft).services
    assert [str(each.address) for each in made.backends] == ["10.0.0.1"]
    assert [note.partition(";")[0] for note in notes(draft)] == [
        "3: the service 'web' has no server that takes connections",
        "4: backend fd00::1 is IPv6, its service IPv4",
        "4: backend fd00::1 is IPv6, its service IPv4",
    ]


def test_a_service_that_is_left_out_says_all() -> None:
    """What was found out about it may be the reason."""
    left = service("192.0.2.1")
    left.note(Mark(5, 1), "why; remedy", "backends")
    draft = written(left, service("192.0.2.2", "10.0.0.1"))
    assert notes(draft)[1] == "5: why; remedy"
    assert [each.name for each in config(draft).services] == ["web"]


def test_drained_backends_stay() -> None:
    """A backend with weight 0 is kept; a service that has only such ones is left out."""
    draft = written(
        service("192.0.2.1", "10.0.0.1 0 0", "10.0.0.2 0 5"), service("192.0.2.2", "10.0.0.1 0 0")
    )
    (made,) = config(draft).services
    assert [each.weight for each in made.backends] == [0, 5]


@pytest.mark.parametrize(
    ("ports", "backends", "found"),
    [
        ((80,), ["10.0.0.1 80"], {"web": ("80", None)}),
        ((80,), ["10.0.0.1 8080"], {"web": ("80", 8080)}),
        ((80, 81), ["10.0.0.1"], {"web": ("80 81", None)}),
        (
            (80, "82-83"),
            ["10.0.0.1 82"],
            {"web-80": ("80", 82), "web-82": ("82", None), "web-83": ("83", 82)},
        ),
        (("1000-2000",), ["10.0.0.1 82"], {"web": ("1000-2000", None)}),
        ((), ["10.0.0.1 82"], {"web": ("1-65535", None)}),
    ],
)
def test_ports(
    ports: tuple[int | str, ...], backends: list[str], found: dict[str, tuple[str, int | None]]
) -> None:
    """Ports that map to one of the backends become services of one port each, within a bound."""
    draft = written(service("192.0.2.1", *backends, ports=ports))
    made = {
        each.name: (" ".join(map(str, each.ports)), each.backends[0].port)
        for each in config(draft).services
    }
    assert made == found
    many = ports in ((), ("1000-2000",))
    assert any("the backends have a port of their own" in note for note in notes(draft)) == many


@pytest.mark.parametrize(
    ("ports", "given", "port"),
    [((80,), None, None), ((80, 81), None, 80), (("90-91",), None, 90), ((80, 81), 99, 99)],
)
def test_port_of_a_check(ports: tuple[int | str, ...], given: int | None, port: int) -> None:
    """Where a service has several, a check gets the first, and says so."""
    found = service("192.0.2.1", "10.0.0.1", ports=ports)
    found.keys["check", "type"] = Given("tcp", AT)
    if given is not None:
        found.keys["check", "port"] = Given(given, AT)
    draft = written(found)
    check = config(draft).services[0].check
    assert check is not None
    assert check.port == port
    assert len(notes(draft)) == (given is None and len(ports) + isinstance(ports[0], str) > 1)


def test_too_many_services() -> None:
    """A file of nothing but services ends."""
    draft = written(
        *(service(str(ipaddress.ip_address(index)), "10.0.0.1") for index in range(5005))
    )
    assert len(draft.data["services"]) == 5000
    (problem,) = draft.problems
    assert problem.what == "there are more than 5000 services or 50000 backends"


def test_unique_names() -> None:
    """Names become valid ones, and never the same."""
    taken: dict[str, int] = {}
    names = [unique_name(name, taken) for name in ("a b", "a/b", "-", "", "é" * 99)]
    assert names == ["a-b", "a-b-2", "service", "service-2", "service-3"]


@pytest.mark.parametrize(
    ("times", "value", "said"),
    [
        ([], None, []),
        ([60], 60, []),
        ([60, "900", 60], 900, ["it lasts one time in all services; 900 s is the longest of thei"]),
    ],
)
def test_longest(times: list[int | str], value: int | None, said: list[str]) -> None:
    """Of times that all services share, the longest is taken, and said."""
    draft = Draft()
    longest(
        draft, ("timeouts", "udp"), [Given(time, AT, "-p") for time in times], "it lasts one time"
    )
    assert draft.data.get("timeouts", {}).get("udp") == value
    assert [
        note.startswith(f"3: {start}") for note, start in zip(notes(draft), said, strict=True)
    ] == [True for _ in said]


def test_a_time_that_is_none() -> None:
    """It is a mistake at its place."""
    draft = Draft()
    longest(draft, ("timeouts", "udp"), [Given(1, AT), Given("x", Mark(9, 1), "-p")], "it lasts")
    assert [(problem.what, problem.mark) for problem in draft.problems] == [("-p 'x'", Mark(9, 1))]
