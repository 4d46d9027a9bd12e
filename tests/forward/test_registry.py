"""Tests of ``paraglider.forward.registry``: the methods, found by their names, and described."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Service
from paraglider.config.service import METHODS
from paraglider.forward import registry


def service(**changes: Any) -> Service:
    """A service with these keys."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**base, **changes})


@pytest.mark.parametrize("name", [method.name for method in registry.methods()])
def test_it_is_one_sentence(name: str) -> None:
    """The description ends with a full stop, and stays on one line."""
    for keys in ({}, {"return": "direct"}):
        one = service(forward=name, **keys)
        said = one.method.describe(one)
        assert said.endswith(".")
        assert ". " not in said
        assert "\n" not in said


def test_a_service_without_a_method_of_forward_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """``of`` never returns an object without rules or datapath."""
    one = service()
    monkeypatch.setitem(METHODS, one.forward, object())  # type: ignore[misc]
    with pytest.raises(TypeError, match="no ForwardMethod"):
        registry.of(one)


def test_what_other_firewalls_see() -> None:
    """Each method defines the packets that pass the forward hook; those of proxies and tunnels are
    the host's own.
    """
    passing = {method.name: method.passing for method in registry.methods()}
    own = {"proxy", "tunnel"}
    assert {name for name, found in passing.items() if not found} == own
