"""Tests of ``paraglider.config.model``: defaults, and what a service tells of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from paraglider.config.memory import flows_for_memory
from paraglider.config.model import Backend, Config, Service, TimeoutsConfig
from paraglider.config.types import ALL_PORTS, PortRange


def service(**keys: Any) -> Service:
    """A service of the given keys on top of the least it needs."""
    least = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**least, **keys})


def test_defaults_are_the_documented_ones() -> None:
    """A file with services alone has the values that the design gives."""
    config = Config(services=(service(),))
    assert (config.queue.length, config.queue.io) == (2048, "auto")
    assert config.flows.max == flows_for_memory()
    assert (config.user, config.chroot) == ("nobody", "/var/run/empty")
    timeouts = config.timeouts
    assert (timeouts.syn, timeouts.established, timeouts.udp, timeouts.icmp) == (240, 7440, 120, 60)
    assert (timeouts.after_rst, timeouts.after_fin, timeouts.half_closed) == (10, 60, 7440)
    assert (config.stats, config.network.public, config.failover.enabled) == (None, None, False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"closed": 5}, (5, 5, 7440)),
        ({"closed": {"rst": 3}}, (3, 60, 7440)),
        ({"closing": 240}, (240, 240, 240)),
        ({"closing": 240, "closed": {"fin": 30}}, (10, 30, 240)),
    ],
)
def test_how_long_closed_flows_are_remembered(
    given: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    """One number or one for each end; the old name counts where the new one is not there."""
    timeouts = TimeoutsConfig.model_validate(given)
    assert (timeouts.after_rst, timeouts.after_fin, timeouts.half_closed) == expected


@pytest.mark.parametrize("value", [0, True, "5", {"rst": 0}, {"end": 5}])
def test_what_is_no_time_for_closed_flows(value: object) -> None:
    """Neither text nor truth nor nothing."""
    with pytest.raises(ValidationError):
        TimeoutsConfig.model_validate({"closed": value})


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
    """The DNS asks once (RFC 4787 REQ-5a)."""
    assert service(protocol="udp", **keys).udp_reply == seconds


def test_service_defaults() -> None:
    """A service with the least it needs takes all ports and goes by nat, via, rr, flow."""
    plain = service()
    assert plain.ports == (ALL_PORTS,)
    assert plain.all_ports
    assert (plain.forward, plain.return_, plain.strategy) == ("nat", "via", "rr")
    assert (plain.affinity, plain.snat, plain.backends[0].weight) == ("flow", None, 1)


def test_backend_is_an_address_or_a_section() -> None:
    """A backend's address alone means the same as a section with that address."""
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
    mapped = Backend.model_validate({"address": "10.0.0.1", "port": 8080})
    assert one.reply_ports(mapped) == (PortRange(8080, 8080),)
    assert one.reply_ports(one.backends[0]) == (PortRange(80, 80),)


def test_protocols_and_family() -> None:
    """`any` stands for both transports, and the VIP gives the family."""
    assert service(protocol="any").protocols == ("tcp", "udp")
    assert service(protocol="udp").protocols == ("udp",)
    six = service(vip="2001:db8::11/64", backends=["fd00:10::1"])
    assert (service().family, six.family) == (4, 6)


def test_for_families_leaves_the_others_out() -> None:
    """`-4` and `-6` choose services, and nothing else changes."""
    six = service(name="b", vip="2001:db8::11/64", backends=["fd00:10::1"])
    config = Config(services=(service(), six))
    assert config.for_families(frozenset({6})).services == (six,)
    assert config.for_families(frozenset({4, 6})) == config


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


@pytest.mark.parametrize("name", ["eth0", "eth0.100", "br-lan", "wg_0", "a" * 15])
def test_interface_names_of_the_kernel_pass(name: str) -> None:
    """Names that the kernel gives are accepted."""
    config = {"services": [service()], "network": {"public": {"interface": name}}}
    public = Config.model_validate(config).network.public
    assert public is not None
    assert public.interface == name


@pytest.mark.parametrize("name", ["", "a" * 16, "eth0 -j ACCEPT", "eth+", "-i", "e/0", "..", "e:0"])
def test_interface_names_that_would_change_a_rule_are_refused(name: str) -> None:
    """What iptables or the shell would take for something else is no interface."""
    config = {"services": [service()], "network": {"public": {"interface": name}}}
    with pytest.raises(ValidationError):
        Config.model_validate(config)


def test_defaults_of_what_follows_from_health() -> None:
    """Without a word on it nothing is checked, and what goes down resets its flows."""
    plain = service()
    assert (plain.check, plain.all_down, plain.on_down) == (None, "reject", "reset")
    assert (plain.drain_timeout, plain.slow_start) == (None, 0)
    assert not Config(services=(plain,)).watch


def test_backends_listed_elsewhere() -> None:
    """A service with a source has no backends of its own until it is given some."""
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


def test_configuration_is_immutable() -> None:
    """Nothing changes a configuration once it is read."""
    with pytest.raises(ValidationError):
        service().name = "other"


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
    """Messages call a backend by its address, with its port where that is mapped."""
    assert Backend.model_validate({"address": address, "port": port}).name == name


def test_plain_data_and_back() -> None:
    """What goes to a worker as JSON is the same configuration there."""
    given = Config(
        services=(
            service(ports=["80", "8000-8010"], check={"type": "http"}, drain_timeout=5),
            service(name="b", vip="2001:db8::1/64", backends=[{"address": "fd00::1", "weight": 3}]),
            service(name="c", ports=81, backends={"file": "/etc/backends"}, **{"return": "direct"}),
        ),
        network={"exempt": ["192.0.2.9:53/udp"], "private": {"interface": "e", "gateway": []}},
    )
    plain = json.loads(json.dumps(given.model_dump(mode="json", by_alias=True)))
    assert Config.model_validate(plain) == given


def test_a_seed_of_the_host_is_for_services_that_hash_and_have_none() -> None:
    """The file's own seed stays, and what hashes nothing has no seed to be refused for."""
    strategies = ("source", "maglev", "mine:Own", "rr", "wrr", "weighted")
    services = [service(strategy=name) for name in strategies]
    services.append(service(strategy="maglev", seed=0))
    seeded = Config(services=tuple(services)).seeded((1 << 64) - 1)
    most = (1 << 64) - 1
    assert [s.seed for s in seeded.services] == [most, most, most, None, None, None, 0]
    assert [s.hash_seed for s in seeded.services] == [most, most, most, 0, 0, 0, 0]
    again = Config.model_validate(seeded.model_dump(mode="json", by_alias=True))
    assert [s.seed for s in again.services] == [s.seed for s in seeded.services]
