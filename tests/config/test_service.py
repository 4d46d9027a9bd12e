"""Tests of ``paraglider.config.service``: defaults, backends, derived values."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from paraglider.config.model import BackendConfig, Config, Service
from paraglider.config.types import ALL_PORTS, PortRange


def service(**keys: Any) -> Service:
    """A service of the given keys on top of the least it needs."""
    least = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**least, **keys})


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        ({"ports": 53}, 5),
        ({"ports": 5353}, None),
        ({"ports": [53, 853]}, None),
        ({"ports": 53, "timeouts": {"udp_reply": 9}}, 9),
        ({"ports": 123, "timeouts": {"udp_reply": 2}}, 2),
    ],
)
def test_how_long_an_answered_query_is_kept(keys: dict[str, Any], seconds: int | None) -> None:
    """For DNS the timeout is short (RFC 4787 REQ-5a)."""
    assert service(protocol="udp", **keys).udp_reply == seconds


def test_service_defaults() -> None:
    """A minimal service has all ports, nat, via, rr, flow."""
    plain = service()
    assert plain.ports == (ALL_PORTS,)
    assert plain.all_ports
    assert (plain.forward, plain.return_, plain.strategy) == ("nat", "via", "rr")
    assert (plain.carrier, plain.wants_bpf) == ("auto", True)
    assert (plain.affinity, plain.snat, plain.backends[0].weight) == ("flow", None, 1)


@pytest.mark.parametrize(("carrier", "wanted"), [("auto", True), ("bpf", True), ("worker", False)])
def test_bpf_is_wanted_by_name_and_method(carrier: str, wanted: bool) -> None:
    """`carrier` names it, and only nat has a carrier in BPF."""
    assert service(carrier=carrier).wants_bpf == wanted
    assert not service(carrier=carrier, forward="proxy").wants_bpf


def test_backend_is_an_address_or_a_section() -> None:
    """A single address equals a section with that address."""
    assert service(backends=["10.0.0.1"]) == service(backends=[{"address": "10.0.0.1"}])


@pytest.mark.parametrize(
    ("ports", "single"), [(80, 80), ("80-80", 80), ("80-81", None), ([80, 443], None)]
)
def test_single_port(ports: Any, single: int | None) -> None:
    """Only a service with exactly one port has a single port."""
    assert service(ports=ports).single_port == single


def test_reply_ports_are_those_the_backend_answers_from() -> None:
    """A mapped backend answers from its own port, another from the service's."""
    one = service(ports=80)
    mapped = BackendConfig.model_validate({"address": "10.0.0.1", "port": 8080})
    assert one.reply_ports(mapped) == (PortRange(8080, 8080),)
    assert one.reply_ports(one.backends[0]) == (PortRange(80, 80),)


def test_protocols_and_family() -> None:
    """`any` stands for both transports, and the VIP gives the family."""
    assert service(protocol="any").protocols == ("tcp", "udp")
    assert service(protocol="udp").protocols == ("udp",)
    six = service(vip="2001:db8::11/64", backends=["fd00:10::1"])
    assert (service().family, six.family) == (4, 6)


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "x" * 64},
        {"name": "a\n"},
        {"forward": "NAT"},
        {"backends": []},
        {"backends": [{"address": "10.0.0.1", "weight": True}]},
        {"backends": [{"address": "10.0.0.1", "weight": "3"}]},
        {"backends": [{"address": "10.0.0.1", "weight": 65536}]},
        {"colour": "red"},
    ],
)
def test_wrong_service_is_refused(keys: dict[str, Any]) -> None:
    """Types are strict, ranges hold, unknown keys are errors."""
    with pytest.raises(ValidationError):
        service(**keys)


def test_defaults_of_what_follows_from_health() -> None:
    """By default nothing is checked, and flows of failed backends are reset."""
    plain = service()
    assert (plain.check, plain.all_down, plain.on_down) == (None, "reject", "reset")
    assert (plain.drain_timeout, plain.slow_start) == (None, 0)
    assert not Config(services=(plain,)).watch


def test_backends_listed_elsewhere() -> None:
    """A service with a source has no backends until they are given to it."""
    sourced = service(backends={"file": "/etc/paraglider/web"})
    assert sourced.backends == ()
    assert sourced.source is not None
    assert (sourced.source.file, sourced.source.dns) == ("/etc/paraglider/web", None)
    given = sourced.with_backends(service().backends)
    assert (given.backends, given.source) == (service().backends, None)
    assert service().source is None


@pytest.mark.parametrize(
    "source",
    [
        {"file": "relative"},
        {"dns": "a b"},
        {"dns": f"{'a.' * 127}b"},
        {"dns": "-a"},
        {"url": "http://x"},
    ],
)
def test_wrong_source_is_refused(source: dict[str, str]) -> None:
    """A file has an absolute path, and a name in the DNS its shape."""
    with pytest.raises(ValidationError):
        service(backends=source)


@pytest.mark.parametrize(
    ("address", "port", "name"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", 8080, "10.0.0.1:8080"),
        ("fd00:10::1", None, "fd00:10::1"),
        ("fd00:10::1", 8080, "[fd00:10::1]:8080"),
    ],
)
def test_backend_names(address: str, port: int | None, name: str) -> None:
    """Messages name a backend by its address, with its port if that is mapped."""
    assert BackendConfig.model_validate({"address": address, "port": port}).name == name
