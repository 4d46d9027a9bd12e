"""Tests of ``paraglider.daemon.process_specs``: the processes of a configuration."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import descriptors

from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon import process_specs
from paraglider.daemon.monitor import process as monitor
from paraglider.daemon.process_specs import Place, make_specs, run_role
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.workers import conntrack_counter, proxy_worker, worker
from paraglider.errors import OperatorError
from paraglider.health.pinger import Pinger

PLACE = Place((0, 1), 65534, 65534)
#: a VIP of this process alone: other runs on this host listen at theirs
HERE = f"127.20.{os.getpid() >> 8 & 255}.{os.getpid() & 255}/8"
WEB: dict[str, Any] = {
    "name": "web",
    "vip": "192.168.0.11/24",
    "protocol": "tcp",
    "ports": 80,
    "backends": ["10.0.0.1"],
}


@pytest.fixture(autouse=True)
def no_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No privilege to ping, whoever runs the tests."""
    monkeypatch.setattr(monitor, "Pinger", lambda: None)


@pytest.fixture
def specs() -> Iterator[Any]:
    """A function that makes the specs for services; their resources are closed."""
    made: list[Spec] = []

    def make(*services: dict[str, Any], **sources: bool) -> list[Spec]:
        named = [{**WEB, "name": f"s{n}", **service} for n, service in enumerate(services)]
        config = Config.model_validate({"services": named})
        made.extend(make_specs(config, PLACE, STRATEGIES, **sources))
        return list(made)

    yield make
    for spec in made:
        spec.release()


@pytest.mark.parametrize(
    ("services", "roles"),
    [
        ([{}], ["worker", "worker", "monitor"]),
        ([{"forward": "offload"}], ["worker", "worker", "conntrack counter", "monitor"]),
        (
            [{"forward": "offload", "strategy": "weighted"}],
            ["worker", "worker", "conntrack counter", "monitor"],
        ),
        (
            [{"forward": "proxy", "vip": HERE, "ports": 47801}],
            ["proxy worker", "proxy worker", "monitor"],
        ),
        (
            [{}, {"forward": "proxy", "vip": HERE, "ports": 47802}],
            ["worker", "worker", "proxy worker", "proxy worker", "monitor"],
        ),
    ],
)
def test_what_there_is_to_be(specs: Any, services: list[dict[str, Any]], roles: list[str]) -> None:
    """One worker per core for queues, one for listening sockets, and the helpers; numbered."""
    made = specs(*services)
    assert [spec.role for spec in made] == roles
    assert [spec.index for spec in made] == list(range(len(made)))
    cores = [spec.core for spec in made if spec.role.endswith("worker")]
    assert cores == [0, 1] * (len(cores) // 2)


def test_each_service_is_for_one_kind(specs: Any) -> None:
    """Workers have no proxy services, and proxy workers no others."""
    made = specs({}, {"forward": "proxy", "vip": HERE, "ports": 47803})
    names = {spec.role: [s.name for s in spec.config.services] for spec in made[:4]}
    assert names == {"worker": ["s0"], "proxy worker": ["s1"]}


def test_a_monitor_waits_for_something_to_do(specs: Any) -> None:
    """It is prepared with privileges, and idle without a check or a source of backends."""
    assert specs({})[-1].idle
    assert not specs({"check": {"type": "tcp"}})[-1].idle
    named = specs({}, discovers=True)[-1]
    assert (named.idle, named.discovers, named.chroot) == (False, True, "/var/run/empty")
    assert specs({}, discovers=True, watches_files=True)[-1].chroot == "/"


def test_pings_without_the_right(monkeypatch: pytest.MonkeyPatch, specs: Any) -> None:
    """A daemon whose file needs pings does not start without them."""
    refused = OSError(errno.EPERM, os.strerror(errno.EPERM))

    def add(*_: object) -> None:
        raise refused

    monkeypatch.setattr(monitor, "Pinger", Pinger)
    monkeypatch.setattr(Pinger, "_add", add)
    assert specs({})[-1].role == "monitor"
    with pytest.raises(Exception, match="no raw socket"):
        specs({"check": {"type": "icmp"}})


def test_a_port_in_use(specs: Any) -> None:
    """The error is raised before the first fork."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OperatorError, match=str(port)):
            specs({"forward": "proxy", "vip": "127.0.0.1/8", "ports": port})


def test_everyone_does_his_own(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A specification is handed to the module of its role, with the pipe and the parent."""
    made = specs(
        {"forward": "offload", "strategy": "weighted"},
        {"forward": "proxy", "vip": HERE, "ports": 47804},
    )
    for module in (worker, proxy_worker, conntrack_counter, monitor):
        monkeypatch.setattr(module, "run", lambda *a, module=module: (module.__name__, *a[1:]))
    done = {spec.role: run_role(spec, 7, 1) for spec in made}
    assert done == {
        role: (f"paraglider.daemon.{module}", 7, 1)
        for role, module in [
            ("worker", "workers.worker"),
            ("proxy worker", "workers.proxy_worker"),
            ("conntrack counter", "workers.conntrack_counter"),
            ("monitor", "monitor.process"),
        ]
    }
    with pytest.raises(TypeError, match="has no code"):
        run_role(Spec.__new__(_Stranger), 7, 1)


class _Stranger(Spec):
    role = "stranger"


def test_journals_of_another_steering_go_once(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first worker's files; without workers there are none."""
    made = specs({})
    removed: list[object] = []

    def remove(files: object) -> None:
        removed.append(files)

    monkeypatch.setattr(type(made[0].journals), "remove_others", remove)
    process_specs.forget_other_journals(made)
    process_specs.forget_other_journals(made[2:])
    assert removed == [made[0].journals]


@pytest.mark.root
def test_each_worker_has_descriptors_of_the_carrier() -> None:
    """Its own, with its ring alone, so that it works when the others' are closed, as after the
    fork; without a carrier there are none.
    """
    maps = CarrierMaps.create_for_test(flows=64, workers=2)
    config = Config.model_validate({"services": [WEB]})
    before = descriptors()
    workers = [
        spec
        for spec in make_specs(config, PLACE, STRATEGIES, carrier=maps)
        if isinstance(spec, worker.WorkerSpec)
    ]
    first, second = workers
    assert first.carrier is not None
    assert second.carrier is not None
    assert (list(first.carrier.rings), list(second.carrier.rings)) == ([0], [1])
    assert first.filter == "worker-bpf"
    first.release()
    maps.close()
    assert second.carrier.flows[6, 4].insert(b"k" * 12, bytes(24)) == 0
    second.release()
    assert descriptors() <= before
    plain = make_specs(config, PLACE, STRATEGIES)[0]
    assert plain.filter == "worker"
    plain.release()
