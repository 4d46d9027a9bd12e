"""Tests of ``paraglider.forward.offload.build``: from a configuration to the packet path."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap
from paraglider.core.verdict import MARK
from paraglider.forward.datapath import DatapathContext
from paraglider.forward.offload.build import build, marks_of
from paraglider.forward.offload.datapath import FirstPacketDatapath
from paraglider.forward.worker_datapath import build as build_worker
from paraglider.netfilter.rules.marks import backend_marks


def config(*changes: dict[str, Any]) -> Config:
    """An offload service for each of ``changes``."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "forward": "offload"}
    base |= {"backends": ["10.0.0.1", "10.0.0.2"]}
    services = [{**base, "name": f"s{n}", "ports": 80 + n, **c} for n, c in enumerate(changes)]
    return Config.model_validate({"services": services})


def services(wanted: Config) -> list[Any]:
    """The services of a worker for ``wanted``."""
    path = build_worker(wanted, 0, 0.0)._datapaths["offload"]
    return list(path.balancer.services.services)


def test_the_marks_are_those_of_the_kernels_maps() -> None:
    """Of every backend of every service: the same address has different marks in two services."""
    wanted = config({}, {"backends": ["10.0.0.1"]})
    found = services(wanted)
    marks = marks_of(wanted, found)
    by_name = backend_marks(wanted)
    for service in found:
        assert tuple(marks[b] for b in service.pool.backends) == by_name[service.name]
    assert len(set(marks.values())) == len(marks) == 3
    assert marks_of(wanted, []) == {}


def test_a_configuration_sets_the_carriers_verdicts() -> None:
    """Before it there is none; it replaces those of the one before."""
    built = build(DatapathContext(config({}), 0.0, Balancer(ServiceMap([]))))
    assert isinstance(built.datapath, FirstPacketDatapath)
    carrier = built.datapath.carrier
    assert carrier.verdicts == {}
    for wanted in (config({}), config({"backends": ["10.0.0.3"]})):
        found = services(wanted)
        built.configure(wanted, found)
        marks: dict[Backend, int] = marks_of(wanted, found)
        assert carrier.verdicts == {b: MARK | mark << 8 for b, mark in marks.items()}


def test_live_flows_come_from_the_workers_datapath() -> None:
    """The datapath also decides for other methods: it has no table."""
    asked: list[Any] = []

    def live(decided: Any) -> dict[int, int]:
        asked.append(decided)
        return {}

    place = DatapathContext(config({}), 0.0, Balancer(ServiceMap([])), live=live)
    built = build(place)
    built.datapath.carrier.sync(1.0)
    assert asked == [{}]
    assert built.decide is not None
    assert built.datapath.flows is None


def test_services_that_the_configuration_does_not_have_are_a_defect() -> None:
    """They would have no marks."""
    with pytest.raises(KeyError):
        marks_of(config({"name": "other"}), services(config({})))
