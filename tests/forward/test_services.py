"""The services of all forward methods: their arguments."""

from __future__ import annotations

import pytest

from paraglider.config.model import Config
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.services import make_services


@pytest.mark.parametrize(
    "life",
    [
        {"all_down": "use_all", "on_down": "keep", "slow_start": 12.5, "drain_timeout": 30},
        {"all_down": "reject", "on_down": "reset", "slow_start": 0, "drain_timeout": None},
    ],
)
def test_the_life_of_backends_is_as_configured(life: dict[str, object]) -> None:
    """The configured behaviour when they go down, return or drain."""
    service = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "backends": ["10.0.0.1"],
        **{key: value for key, value in life.items() if value is not None},
    }
    config = Config.model_validate({"services": [service]})
    (made,) = make_services(config, lambda m: m.name == "nat", 0, STRATEGIES)
    assert {key: getattr(made.pool, key) for key in life} == life
