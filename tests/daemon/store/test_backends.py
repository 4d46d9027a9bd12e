"""The table of services and backends: changes of states and weights."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.health import AgentCheck
from paraglider.config.model import Config, Service
from paraglider.core.pool import Event, State
from paraglider.daemon.store.backends import HEAVIEST, AgentFact, BackendTable, Origin
from paraglider.daemon.store.store import Desired
from paraglider.errors import OperatorError
from paraglider.forward.services import fingerprint_of
from paraglider.health.codes import Code


def config(*backends: Any, name: str = "web") -> Config:
    """A configuration of one service."""
    service = {"name": name, "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}
    return Config.model_validate({"services": [{**service, "backends": list(backends)}]})


@pytest.fixture
def pools() -> BackendTable:
    """Two backends of one service, as the file has them."""
    return BackendTable(
        config("10.0.0.1", {"address": "10.0.0.2", "port": 8080, "weight": 3}), 100.0
    )


def test_what_the_file_has(pools: BackendTable) -> None:
    """Every backend is ready, with its weight, in the order of the file."""
    assert pools.states() == {"web": {"10.0.0.1": ("ready", 1), "10.0.0.2:8080": ("ready", 3)}}
    assert [member.backend for member in pools.of("web")] == ["10.0.0.1", "10.0.0.2:8080"]
    assert {member.since for member in pools} == {100.0}
    assert pools.of("nosuch") == []


def test_a_move_is_the_tables(pools: BackendTable) -> None:
    """State, time and reason change together; an event without a transition changes nothing."""
    member = pools.find("web", "10.0.0.1")
    assert pools.apply(member, Event.CHECK_FAILED, "refused", 200.0)
    assert (member.state, member.since, member.why) == (State.DOWN, 200.0, "refused")
    assert member.downs == 1
    assert not pools.apply(member, Event.CHECK_FAILED, "again", 300.0)
    assert (member.since, member.why, member.downs) == (200.0, "refused", 1)
    assert pools.states()["web"]["10.0.0.1"] == ("down", 1)


@pytest.mark.parametrize("weight", [-1, HEAVIEST + 1])
def test_a_weight_out_of_range_changes_nothing(pools: BackendTable, weight: int) -> None:
    """The error has the range."""
    member = pools.find("web", "10.0.0.1")
    with pytest.raises(OperatorError, match="write 0 to 65535"):
        pools.set_weight(member, weight)
    assert member.weight == 1


def test_a_missing_backend(pools: BackendTable) -> None:
    """The error offers the nearest name, or all."""
    with pytest.raises(OperatorError, match="no service called `wbe`; did you mean web"):
        pools.find("wbe", "10.0.0.1")
    with pytest.raises(OperatorError, match="did you mean 10.0.0.2:8080"):
        pools.find("web", "10.0.0.2:8081")
    with pytest.raises(OperatorError, match=r"there are: 10\.0\.0\.1, 10\.0\.0\.2:8080"):
        pools.find("web", "")


def test_another_file_keeps_what_it_does_not_speak_of(pools: BackendTable) -> None:
    """State and a weight set by hand stay, until the file's own weight changes."""
    first = pools.find("web", "10.0.0.1")
    pools.set_weight(first, 9)
    pools.apply(first, Event.SET_DRAIN, "asked", 150.0)
    pools.apply_config(config("10.0.0.3", "10.0.0.1"), 200.0)
    assert pools.states() == {"web": {"10.0.0.3": ("ready", 1), "10.0.0.1": ("drain", 9)}}
    assert pools.find("web", "10.0.0.1").since == 150.0
    pools.apply_config(config({"address": "10.0.0.1", "weight": 5}), 300.0)
    assert pools.states() == {"web": {"10.0.0.1": ("drain", 5)}}


def test_removed_backends_drain_and_returning_ones_are_ready(pools: BackendTable) -> None:
    """The state is drain; a backend that was removed and added again takes new flows at once."""
    both = config("10.0.0.1", "10.0.0.2")
    pools.apply_config(both, 200.0)
    pools.apply_config(both, 210.0, frozenset({("web", "10.0.0.2")}))
    member = pools.find("web", "10.0.0.2")
    assert (member.state, member.why, member.leaving) == (State.DRAIN, "no longer configured", True)
    pools.apply_config(both, 220.0)
    assert (member.state, member.why, member.leaving) == (State.READY, "configured again", False)


def test_the_same_backend_of_two_services_is_two() -> None:
    """A change of one does not affect the other."""
    service = {"protocol": "tcp", "backends": ["10.0.0.1"]}
    services = [
        {**service, "name": "a", "vip": "192.0.2.1/24", "ports": 80},
        {**service, "name": "b", "vip": "192.0.2.1/24", "ports": 81},
    ]
    pools = BackendTable(Config.model_validate({"services": services}), 0.0)
    pools.apply(pools.find("a", "10.0.0.1"), Event.SET_MAINT, "asked", 1.0)
    assert pools.states() == {"a": {"10.0.0.1": ("maint", 1)}, "b": {"10.0.0.1": ("ready", 1)}}


def test_a_backend_that_moves_with_its_service_keeps_its_state() -> None:
    """Two services swap their ports: a backend keeps its state; the rest of it drains."""
    base = {"vip": "192.0.2.1/24", "protocol": "tcp"}
    one = {"name": "a", **base, "backends": ["10.0.0.1"]}
    other = {"name": "b", **base, "backends": ["10.0.0.2"]}
    before, wanted = (
        Config.model_validate({"services": [{**one, "ports": 80 + i}, {**other, "ports": 81 - i}]})
        for i in (0, 1)
    )
    pools = BackendTable(before, 1.0)
    pools.apply(pools.find("a", "10.0.0.1"), Event.SET_MAINT, "by hand", 2.0)
    after = Desired(before).replaced(wanted)
    pools.apply_config(after.config, 3.0, after.keys)
    assert {(m.service, m.backend): (m.state, m.why) for m in pools} == {
        ("a", "10.0.0.1"): (State.MAINT, "by hand"),
        ("a", "10.0.0.2"): (State.DRAIN, "no longer configured"),
        ("b", "10.0.0.2"): (State.READY, "configured"),
        ("b", "10.0.0.1"): (State.DRAIN, "no longer configured"),
    }


def test_a_version_without_a_change(pools: BackendTable) -> None:
    """It is a new version without changes since the last."""
    before = pools.version
    pools.mark()
    assert pools.version > before
    assert list(pools.changes(before)) == []
    assert pools.layout <= before


def test_a_fingerprint_is_computed_once_a_change(
    pools: BackendTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state or a weight is one, and so is a configuration; what changes back is as before."""
    made: list[str] = []

    def count(service: Service, states: Any) -> str:
        made.append(service.name)
        return fingerprint_of(service, states)

    monkeypatch.setattr("paraglider.daemon.store.backends.fingerprint_of", count)
    first = pools.fingerprint("web")
    assert (pools.fingerprint("web"), made) == (first, ["web"])
    member = pools.find("web", "10.0.0.1")
    assert not pools.apply(member, Event.CHECK_PASSED, "it was so", 150.0)
    assert (pools.fingerprint("web"), len(made)) == (first, 1)
    pools.apply(member, Event.CHECK_FAILED, "refused", 200.0)
    assert pools.fingerprint("web") != first
    pools.apply(member, Event.CHECK_PASSED, "OK", 300.0)
    assert pools.fingerprint("web") == first
    pools.apply_config(config("10.0.0.1"), 400.0)
    assert (pools.fingerprint("web") != first, len(made)) == (True, 4)
    with pytest.raises(KeyError):
        pools.fingerprint("nosuch")


def test_a_backend_in_every_service() -> None:
    """By its name, or by its address whatever the port; one that is being removed is left out."""
    keys = {"protocol": "tcp", "ports": 80, "vip": "192.0.2.1/24"}
    six = {**keys, "vip": "2001:db8::1/64", "backends": ["fd00::1"]}
    services = [
        {**keys, "name": "a", "backends": ["10.0.0.1", "10.0.0.2"]},
        {**keys, "name": "b", "ports": 81, "backends": ["10.0.0.1:8080", "10.0.0.3"]},
        {**six, "name": "c"},
    ]
    pools = BackendTable(Config.model_validate({"services": services}), 1.0)

    def found(backend: str) -> list[tuple[str, str]]:
        return [record.key for record in pools.everywhere(backend)]

    assert found("10.0.0.1") == [("a", "10.0.0.1"), ("b", "10.0.0.1:8080")]
    assert found("10.0.0.1:8080") == [("b", "10.0.0.1:8080")]
    assert found("FD00:0::1") == [("c", "fd00::1")]
    pools.find("a", "10.0.0.1").leaving = True
    assert found("10.0.0.1") == [("b", "10.0.0.1:8080")]
    with pytest.raises(
        OperatorError, match="no backend called `10.0.0.1:80`; did you mean 10.0.0.1"
    ):
        pools.everywhere("10.0.0.1:80")
    with pytest.raises(
        OperatorError, match="there are: 10.0.0.2, 10.0.0.1:8080, 10.0.0.3, fd00::1"
    ):
        pools.everywhere("*")


def said(weight: int | None = None, mode: str | None = None) -> AgentFact:
    """What an agent said."""
    return AgentFact(weight, mode, answered=True, code=Code.L7OK, detail="said", at=1.0)


def agents(weight: int = 10, *, agent: bool = True) -> Config:
    """A service with an agent, and one backend."""
    found = config({"address": "10.0.0.1", "weight": weight})
    asked = AgentCheck(port=9999) if agent else None
    service = found.services[0].model_copy(update={"agent": asked})
    return found.model_copy(update={"services": (service,)})


@pytest.mark.parametrize(
    ("configured", "percent", "weight"),
    [(10, 75, 8), (10, 1, 1), (10, 0, 0), (10, 100, 10), (10, 300, 30), (0, 50, 0)],
)
def test_the_weight_of_an_agent(configured: int, percent: int, weight: int) -> None:
    """It is a share of the configured one, rounded up, with an origin of its own."""
    pools = BackendTable(agents(configured), 1.0)
    (member,) = pools
    version = pools.version
    assert pools.set_agent(member, said(percent)) is None
    assert (member.weight, member.weight_by) == (weight, Origin.AGENT)
    assert (pools.version > version) is (weight != configured)


def test_the_largest_weight_of_an_agent() -> None:
    """A share above the largest weight is that."""
    pools = BackendTable(agents(60000), 1.0)
    (member,) = pools
    pools.set_agent(member, said(1000))
    assert member.weight == HEAVIEST


def test_an_operators_weight_wins() -> None:
    """Until the weight in the file changes; then the agent's share is of that."""
    pools = BackendTable(agents(), 1.0)
    (member,) = pools
    pools.set_agent(member, said(50))
    pools.set_weight(member, 7)
    pools.set_agent(member, said(20))
    assert (member.weight, member.weight_by) == (7, Origin.OPERATOR)
    pools.apply_config(agents(), 2.0)
    assert member.weight == 7
    pools.apply_config(agents(20), 3.0)
    assert (member.weight, member.weight_by) == (4, Origin.AGENT)


def say(pools: BackendTable, mode: str | None) -> State:
    """The state after the agent said ``mode``."""
    (member,) = pools
    event = pools.set_agent(member, said(mode=mode))
    if event is not None:
        pools.apply(member, event, "agent", 1.0, Origin.AGENT)
    return member.state


def test_the_states_of_an_agent() -> None:
    """It may drain its backend, put it in maintenance, and end both; its checks are its own."""
    pools = BackendTable(agents(), 1.0)
    (member,) = pools
    assert say(pools, "drain") is State.DRAIN
    assert pools.apply(member, Event.CHECK_FAILED, "refused", 1.0)
    assert say(pools, "ready") is State.DOWN
    assert say(pools, "maint") is State.MAINT
    assert say(pools, "ready") is State.READY
    assert say(pools, None) is State.READY


def test_an_operators_state_wins() -> None:
    """An agent ends no drain and no maintenance of an operator; an operator's `ready` ends that of
    an agent, until the agent says something else.
    """
    pools = BackendTable(agents(), 1.0)
    (member,) = pools
    for event, state in ((Event.SET_DRAIN, State.DRAIN), (Event.SET_MAINT, State.MAINT)):
        pools.apply(member, event, "by hand", 1.0)
        for mode in ("ready", "drain", "maint", "ready"):
            assert say(pools, mode) is state
    pools.apply(member, Event.SET_READY, "by hand", 1.0)
    assert say(pools, "drain") is State.DRAIN
    pools.apply(member, Event.SET_READY, "by hand", 1.0)
    assert say(pools, "drain") is State.READY
    assert say(pools, "ready") is State.READY
    assert say(pools, "drain") is State.DRAIN


def test_an_agent_that_is_no_longer_configured() -> None:
    """What it set ends with it; what an operator set stays."""
    pools = BackendTable(agents(), 1.0)
    (member,) = pools
    pools.set_agent(member, said(50))
    assert say(pools, "drain") is State.DRAIN
    assert member.weight == 5  # what it does not mention stays
    pools.apply_config(agents(agent=False), 2.0)
    assert (member.state, member.weight, member.weight_by) == (State.READY, 10, Origin.FILE)
    assert member.agent is None
    pools = BackendTable(agents(), 1.0)
    (member,) = pools
    pools.set_agent(member, said(50))
    pools.apply(member, Event.SET_DRAIN, "by hand", 1.0)
    pools.apply_config(agents(agent=False), 2.0)
    assert (member.state, member.weight) == (State.DRAIN, 10)
