"""Tests of ``paraglider.forward.datapath``: the construction of datapaths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from packets import V4, backend, nat, service

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.verdict import REASONS
from paraglider.forward.carrier import Carrier
from paraglider.forward.datapath import HEAD, Built, DatapathContext
from paraglider.forward.registry import methods

QUEUED = [method for method in methods() if method.queued]
each_method = pytest.mark.parametrize("method", QUEUED, ids=lambda method: method.name)


def config(forward: str) -> Config:
    """One service."""
    one = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
    one |= {"forward": forward, "backends": ["10.0.0.1", "10.0.0.2"]}
    return Config.model_validate({"services": [one]})


def context(forward: str) -> DatapathContext:
    """The context of a datapath of ``forward``, without services."""
    return DatapathContext(config(forward), 0.0, Balancer(ServiceMap([])))


@each_method
def test_a_datapath_has_what_the_interface_names(method: Any) -> None:
    """Counts in the order of the reasons, all 0; no callback for new flows yet."""
    built = method.datapath(context(method.name))
    assert isinstance(built.datapath.carrier, Carrier)
    assert built.datapath.counts == [0] * len(REASONS)
    assert built.datapath.opened is None
    assert (built.datapath.flows is None) == method.conntracked


@each_method
def test_two_datapaths_share_nothing(method: Any) -> None:
    """Neither counts nor carrier nor flows."""
    one, other = (method.datapath(context(method.name)).datapath for _ in range(2))
    assert one.counts is not other.counts
    assert one.carrier is not other.carrier
    assert one.flows is None or one.flows is not other.flows


def test_a_datapath_with_a_table_decides_for_no_other() -> None:
    """It decides for no other method; a datapath without a table may."""
    for method in QUEUED:
        built = method.datapath(context(method.name))
        assert (built.decide is None) == (built.datapath.flows is not None)


def test_what_is_built_does_not_change() -> None:
    """Others may store it; omitted parts are None."""
    place = context("nat")
    assert (place.others, place.live) == (None, None)
    path = nat(service(V4, backends=[backend(V4.backends[0])]))
    seen: list[Sequence[VirtualService]] = []
    built = Built(path, lambda _config, services: seen.append(services))
    built.configure(place.config, [])
    assert (built.decide, seen) == (None, [[]])
    with pytest.raises(FrozenInstanceError):
        built.decide = None  # type: ignore[misc]


def test_a_head_is_enough_for_the_longest_headers() -> None:
    """Those of IPv4 and TCP with the most options."""
    assert HEAD >= 60 + 60
