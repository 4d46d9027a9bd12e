"""The startup parameters of processes: defaults, and those that a role changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, ClassVar

import pytest

from paraglider.config.model import Config
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.host_helper.process import HostHelperSpec
from paraglider.daemon.http.process import HttpSpec
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.spec import CARRIERS, EXIT_TIMEOUT, Spec, StartupState
from paraglider.daemon.workers.conntrack_counter import ConntrackCounterSpec
from paraglider.daemon.workers.proxy_worker import ProxySpec
from paraglider.daemon.workers.worker import WorkerSpec

EVERY: tuple[type[Spec], ...] = (
    *(WorkerSpec, ProxySpec, ConntrackCounterSpec, MonitorSpec, HostHelperSpec, HttpSpec),
)


class Helper(Spec):
    """A role with defaults only."""

    role: ClassVar[str] = "host helper"


def test_every_role_has_its_messages() -> None:
    """In both directions; role names are unique, and all messages are message types."""
    roles = [spec.role for spec in EVERY]
    assert sorted(roles) == sorted(FROM_ROLE) == sorted(TO_ROLE)
    assert set(CARRIERS) == {WorkerSpec.role, ProxySpec.role}


def test_defaults_of_a_role() -> None:
    """Its name and filter are the role's, and it has no updated parameters at a later start."""
    spec = Helper(3)
    assert (spec.name, spec.filter, spec.exit_timeout, spec.labels()) == (
        "host helper",
        "host helper",
        EXIT_TIMEOUT,
        {},
    )
    assert spec.from_process is FROM_ROLE["host helper"]
    assert spec.to_process is TO_ROLE["host helper"]
    state = StartupState(Config.model_construct(services=()), {}, STRATEGIES)
    assert spec.updated(state) is spec


@pytest.mark.parametrize("field", ["index", "idle", "endpoint"])
def test_it_never_changes(field: str) -> None:
    """The supervisor's copy equals the forked one."""
    with pytest.raises(FrozenInstanceError):
        setattr(Helper(0), field, True)


def test_each_has_its_own_page_for_signs_of_life() -> None:
    """A heartbeat belongs to one process; two specs with equal parameters are equal."""
    one, other = Helper(0), Helper(0)
    assert one.heartbeat is not other.heartbeat
    assert one == other
    assert one != Helper(1)


def test_a_role_without_a_name_is_none() -> None:
    """A class that forgets it fails at once instead of taking another's messages."""
    spec: Any = Spec(0)
    with pytest.raises(AttributeError):
        spec.from_process  # noqa: B018
