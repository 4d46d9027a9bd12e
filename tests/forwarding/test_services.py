"""What all ways of forwarding have in common: names."""

from __future__ import annotations

import pytest

from paraglider.config.model import Backend
from paraglider.forwarding.services import backend_name


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
