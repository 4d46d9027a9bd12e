"""Tests of ``paraglider.config.model``: defaults and derived values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from paraglider.config.memory import flows_for_memory
from paraglider.config.model import Config, Service, TimeoutsConfig


def service(**keys: Any) -> Service:
    """A service of the given keys on top of the least it needs."""
    least = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**least, **keys})


def test_defaults_are_the_documented_ones() -> None:
    """A file with services only has the documented defaults."""
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
    """One number or one for each end; the old name applies if the new one is missing."""
    timeouts = TimeoutsConfig.model_validate(given)
    assert (timeouts.after_rst, timeouts.after_fin, timeouts.half_closed) == expected


@pytest.mark.parametrize("value", [0, True, "5", {"rst": 0}, {"end": 5}])
def test_what_is_no_time_for_closed_flows(value: object) -> None:
    """Neither text nor a boolean nor null."""
    with pytest.raises(ValidationError):
        TimeoutsConfig.model_validate({"closed": value})


def test_bpf_is_wanted_if_one_service_wants_it() -> None:
    """With any value of the others."""
    worker, auto = service(carrier="worker"), service(name="b", carrier="auto")
    elsewhere = service(name="d", forward="offload")
    assert not Config(services=(worker, elsewhere)).wants_bpf
    assert Config(services=(worker, auto)).wants_bpf


def test_for_families_leaves_the_others_out() -> None:
    """`-4` and `-6` select services, and nothing else changes."""
    six = service(name="b", vip="2001:db8::11/64", backends=["fd00:10::1"])
    config = Config(services=(service(), six))
    assert config.for_families(frozenset({6})).services == (six,)
    assert config.for_families(frozenset({4, 6})) == config


@pytest.mark.parametrize("name", ["eth0", "eth0.100", "br-lan", "wg_0", "a" * 15])
def test_interface_names_of_the_kernel_pass(name: str) -> None:
    """Names that the kernel gives are accepted."""
    config = {"services": [service()], "network": {"public": {"interface": name}}}
    public = Config.model_validate(config).network.public
    assert public is not None
    assert public.interface == name


@pytest.mark.parametrize("name", ["", "a" * 16, "eth0 -j ACCEPT", "eth+", "-i", "e/0", "..", "e:0"])
def test_interface_names_that_would_change_a_rule_are_refused(name: str) -> None:
    """Characters with a meaning for iptables or the shell are refused."""
    config = {"services": [service()], "network": {"public": {"interface": name}}}
    with pytest.raises(ValidationError):
        Config.model_validate(config)


def test_configuration_is_immutable() -> None:
    """A configuration cannot be changed."""
    with pytest.raises(ValidationError):
        service().name = "other"


def test_plain_data_and_back() -> None:
    """A configuration sent as JSON is equal at the other end."""
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
    """A seed of the file stays, and services without hashes get none."""
    strategies = ("source", "maglev", "mine:Own", "rr", "wrr", "weighted")
    services = [service(strategy=name) for name in strategies]
    services.append(service(strategy="maglev", seed=0))
    seeded = Config(services=tuple(services)).seeded((1 << 64) - 1)
    most = (1 << 64) - 1
    assert [s.seed for s in seeded.services] == [most, most, most, None, None, None, 0]
    assert [s.hash_seed for s in seeded.services] == [most, most, most, 0, 0, 0, 0]
    again = Config.model_validate(seeded.model_dump(mode="json", by_alias=True))
    assert [s.seed for s in again.services] == [s.seed for s in seeded.services]


@pytest.mark.parametrize("machine", [None, 5])
def test_the_seed_of_the_file_comes_before_the_machines(machine: int | None) -> None:
    """It is that of every service that hashes and has none of its own."""
    services = service(strategy="maglev"), service(strategy="source", seed=3), service()
    seeded = Config(services=services, seed=7).seeded(machine)
    assert [s.seed for s in seeded.services] == [7, 3, None]
    assert [s.seed for s in Config(services=services).seeded(machine).services] == [
        machine,
        3,
        None,
    ]
