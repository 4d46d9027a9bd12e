"""Tests of ``paraglider.daemon.process_specs``: which processes a configuration asks for."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon import process_specs
from paraglider.daemon.monitor import process as monitor
from paraglider.daemon.process_specs import Place, be, make_specs
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.workers import conntrack_counter, proxy_worker, worker
from paraglider.errors import OperatorError
from paraglider.health.pinger import Pinger

PLACE = Place((0, 1), 65534, 65534)
WEB: dict[str, Any] = {
    "name": "web",
    "vip": "192.168.0.11/24",
    "protocol": "tcp",
    "ports": 80,
    "backends": ["10.0.0.1"],
}


@pytest.fixture(autouse=True)
def no_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No right to ping, whoever runs the tests."""
    monkeypatch.setattr(monitor, "Pinger", lambda: None)


@pytest.fixture
def specs() -> Iterator[Any]:
    """A function that makes the specifications for services; what they opened is closed."""
    made: list[Spec] = []

    def make(*services: dict[str, Any], discovers: bool = False) -> list[Spec]:
        named = [{**WEB, "name": f"s{n}", **service} for n, service in enumerate(services)]
        config = Config.model_validate({"services": named})
        made.extend(make_specs(config, PLACE, STRATEGIES, discovers=discovers))
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
            [{"forward": "proxy", "vip": "127.0.0.1/8", "ports": 47801}],
            ["proxy worker", "proxy worker", "monitor"],
        ),
        (
            [{}, {"forward": "proxy", "vip": "127.0.0.1/8", "ports": 47802}],
            ["worker", "worker", "proxy worker", "proxy worker", "monitor"],
        ),
    ],
)
def test_what_there_is_to_be(specs: Any, services: list[dict[str, Any]], roles: list[str]) -> None:
    """A worker a core for queues, one for listening sockets, and who helps them; numbered."""
    made = specs(*services)
    assert [spec.role for spec in made] == roles
    assert [spec.index for spec in made] == list(range(len(made)))
    cores = [spec.core for spec in made if spec.role.endswith("worker")]
    assert cores == [0, 1] * (len(cores) // 2)


def test_each_service_is_for_one_kind(specs: Any) -> None:
    """Queues know nothing of proxied services, nor these of the others."""
    made = specs({}, {"forward": "proxy", "vip": "127.0.0.1/8", "ports": 47803})
    names = {spec.role: [s.name for s in spec.config.services] for spec in made[:4]}
    assert names == {"worker": ["s0"], "proxy worker": ["s1"]}


def test_a_monitor_waits_for_something_to_do(specs: Any) -> None:
    """It is prepared while there are rights, and idle without a check or a source of backends."""
    assert specs({})[-1].idle
    assert not specs({"check": {"type": "tcp"}})[-1].idle
    named = specs({}, discovers=True)[-1]
    assert (named.idle, named.discovers, named.chroot) == (False, True, "/")


def test_pings_without_the_right(monkeypatch: pytest.MonkeyPatch, specs: Any) -> None:
    """A daemon whose file asks for pings does not begin without them."""
    refused = OSError(errno.EPERM, os.strerror(errno.EPERM))

    def add(*_: object) -> None:
        raise refused

    monkeypatch.setattr(monitor, "Pinger", Pinger)
    monkeypatch.setattr(Pinger, "_add", add)
    assert specs({})[-1].role == "monitor"
    with pytest.raises(Exception, match="no raw socket"):
        specs({"check": {"type": "icmp"}})


def test_a_port_that_somebody_has(specs: Any) -> None:
    """It is refused before anything is forked."""
    with (
        socket.create_server(("127.0.0.1", 47804)),
        pytest.raises(OperatorError, match="47804"),
    ):
        specs({"forward": "proxy", "vip": "127.0.0.1/8", "ports": 47804})


def test_everyone_does_his_own(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A specification is handed to the module of its role, with the pipe and the parent."""
    made = specs(
        {"forward": "offload", "strategy": "weighted"},
        {"forward": "proxy", "vip": "127.0.0.1/8", "ports": 47805},
    )
    for module in (worker, proxy_worker, conntrack_counter, monitor):
        monkeypatch.setattr(module, "run", lambda *a, module=module: (module.__name__, *a[1:]))
    done = {spec.role: be(spec, 7, 1) for spec in made}
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
        be(Spec.__new__(_Stranger), 7, 1)


class _Stranger(Spec):
    role = "stranger"


def test_journals_of_another_steering_go_once(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker's files know all others; without workers there are none."""
    made = specs({})
    removed: list[object] = []

    def remove(files: object) -> None:
        removed.append(files)

    monkeypatch.setattr(type(made[0].journals), "remove_others", remove)
    process_specs.forget_other_journals(made)
    process_specs.forget_other_journals(made[2:])
    assert removed == [made[0].journals]
