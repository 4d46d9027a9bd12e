"""Tests of ``paraglider.forward.one_sided_checks``: keys that need packets to be rewritten."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Service
from paraglider.forward.one_sided_checks import check_keys

WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
VIA = "return: `return: via` with `forward: {}`, where the backends answer the clients"
PORT = "backends.1.port: `port` with `forward: {}`, which leaves it alone"


@pytest.mark.parametrize("forward", ["dsr", "tunnel"])
@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"return": "direct"}, []),
        ({"return": "via"}, [VIA]),
        ({"backends": ["10.0.0.1", {"address": "10.0.0.2", "port": 80}]}, []),
        ({"backends": ["10.0.0.1", {"address": "10.0.0.2", "port": 81}]}, [PORT]),
    ],
)
def test_keys(forward: str, changes: dict[str, Any], wanted: list[str]) -> None:
    """Each error is at its key, and names the method."""
    document = {**WEB, "forward": forward, "backends": ["10.0.0.1"], **changes}
    found = check_keys((), Service.model_validate(document), "it alone")
    said = [f"{'.'.join(map(str, one.path))}: {one.what}" for one in found]
    assert said == [text.format(forward) for text in wanted]
