"""Tests of ``paraglider.forward.bpf.slot_names``: the supervisor names slots as the workers do."""

from __future__ import annotations

from typing import Any

from paraglider.config.model import Config
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.bpf.slot_names import slot_name, slot_names
from paraglider.forward.services import make_services


def config(*services: dict[str, Any]) -> Config:
    """These services, with what they leave out."""
    common = {"vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80, "backends": ["10.0.0.1"]}
    return Config.model_validate({"services": [{**common, **each} for each in services]})


ALL = config(
    {"name": "one", "backends": ["10.0.0.1", {"address": "10.0.0.2", "port": 8080}]},
    {"name": "same-port", "ports": 81, "backends": [{"address": "10.0.0.2", "port": 81}]},
    {"name": "ranges", "ports": [82, "90-99"]},
    {"name": "six", "vip": "2001:db8::1/64", "protocol": "udp", "backends": ["fd00::1"]},
    {"name": "all", "vip": "192.0.2.2/24", "protocol": "any", "ports": "1-65535"},
)


def test_the_names_are_those_of_the_workers_translations() -> None:
    """Mapped ports, ranges, all ports and both families."""
    made = make_services(ALL, lambda method: method.journalled, 0, STRATEGIES)
    wanted = {
        slot_name(service.name, translation.identity): (service.name, backend.name)
        for service in made
        for backend, translation in service.translations.items()
    }
    assert slot_names(ALL) == wanted
    assert len(wanted) == 6


def test_services_with_one_backend_have_slots_of_their_own() -> None:
    """Of TCP and of UDP, too: a slot counts for one service."""
    both = config({"name": "tcp"}, {"name": "udp", "protocol": "udp"})
    assert sorted(slot_names(both).values()) == [("tcp", "10.0.0.1"), ("udp", "10.0.0.1")]


def test_counts_outlast_the_key_and_other_methods_have_none() -> None:
    """A service that goes back to `carrier: worker` keeps what BPF carried for it."""
    assert slot_names(config({"name": "a", "carrier": "bpf"})) == slot_names(
        config({"name": "a", "carrier": "worker"})
    )
    assert slot_names(config({"name": "a", "forward": "offload"})) == {}
