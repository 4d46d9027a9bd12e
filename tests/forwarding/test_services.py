"""What all ways of forwarding have in common: names, and what a service is told."""

from __future__ import annotations

import pytest

from paraglider.config.model import Backend, Config
from paraglider.core.strategies import STRATEGIES
from paraglider.forwarding.services import backend_name, make_services


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
    assert backend_name(Backend.model_validate({"address": address, "port": port})) == name


@pytest.mark.parametrize(
    "life",
    [
        {"all_down": "use_all", "on_down": "keep", "slow_start": 12.5, "drain_timeout": 30},
        {"all_down": "reject", "on_down": "reset", "slow_start": 0, "drain_timeout": None},
    ],
)
def test_the_life_of_backends_is_as_configured(life: dict[str, object]) -> None:
    """What happens when they go down, come back or drain."""
    service = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "backends": ["10.0.0.1"],
        **{key: value for key, value in life.items() if value is not None},
    }
    config = Config.model_validate({"services": [service]})
    (made,) = make_services(config, ["nat"], 0, STRATEGIES)
    assert {key: getattr(made.pool, key) for key in life} == life
