"""The health of all, of this balancer, and of a VIP: what counts for which, and the words."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.daemon.conditions.assessor import Assessor
from paraglider.daemon.conditions.health import (
    Health,
    NodeHealth,
    VipHealth,
    When,
    of_all,
    of_node,
    of_vip,
)
from paraglider.daemon.conditions.table import MOST, Condition, Conditions
from paraglider.daemon.store.store import Store
from paraglider.errors import OperatorError

VIP, OTHER, SIX = "192.0.2.1", "192.0.2.2", "2001:db8::1"
UP = Condition("degraded", "a remedy")


def service(name: str, vip: str, port: int, width: int = 24, backends: int = 1) -> dict[str, Any]:
    """A service with so many backends."""
    net = "fd00::" if ":" in vip else "10.0.0."
    return {
        "name": name,
        "vip": f"{vip}/{width}",
        "protocol": "tcp",
        "ports": port,
        "backends": [f"{net}{number + 1}" for number in range(backends)],
    }


CONFIG = Config.model_validate(
    {
        "services": [
            service("web", VIP, 80),
            service("tls", VIP, 443),
            service("mail", OTHER, 25),
            service("six", SIX, 80, 64),
        ]
    }
)


class World:
    """Services on three VIPs, all of whose backends are ready."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.conditions = Conditions(lambda: 50.0)
        self.store = Store(config, 0.0)
        self._assessor = Assessor(self.conditions)

    def lose(self, *services: str) -> None:
        """No backend of ``services`` takes new flows."""
        for name in services:
            for member in self.store.pools.of(name):
                self.store.pools.apply(member, Event.CHECK_FAILED, "refused", 1.0)
        self._assessor.services(self.store.config, self.store.pools)

    def vip(self, vip: str, when: When = "any") -> Health:
        """Its health."""
        return of_vip(self.conditions, self.store, ip_address(vip), when, 60.0)

    def words(self) -> dict[str, str]:
        """The status of each."""
        whole, node = (of(self.conditions, self.store) for of in (of_all, of_node))
        vips = {vip: self.vip(vip) for vip in (VIP, OTHER, SIX)}
        return {name: each.status for name, each in {"all": whole, "node": node, **vips}.items()}


def test_a_service_without_backends_is_its_vips_matter() -> None:
    """And that of all together; neither the balancer's nor another VIP's."""
    world = World()
    assert set(world.words().values()) == {"healthy"}
    world.lose("mail")
    assert world.words() == {
        "all": "unhealthy",
        "node": "healthy",
        VIP: "healthy",
        OTHER: "unhealthy",
        SIX: "healthy",
    }


def test_any_or_all_services_of_a_vip() -> None:
    """With one of two: degraded by any, unhealthy by all; with none both are unhealthy."""
    world = World()
    world.lose("web")
    some, each = world.vip(VIP), world.vip(VIP, "all")
    assert (some.status, some.announce) == ("degraded", True)
    assert (each.status, each.announce) == ("unhealthy", False)
    line = "service web: no backend takes new flows; see `paraglider show backends`"
    assert [one.line for one in some.standing] == [one.line for one in each.standing] == [line]
    assert some.standing[0].since == 50.0
    world.lose("tls")
    assert {world.vip(VIP, "any").status, world.vip(VIP, "all").status} == {"unhealthy"}
    assert len(world.vip(VIP).standing) == 2


def test_what_is_wrong_with_the_balancer_concerns_every_vip() -> None:
    """Also what is wrong with all services; the worst comes first."""
    world = World()
    world.conditions.report("host", {"table ip paraglider": Condition("unhealthy", "missing")})
    assert set(world.words().values()) == {"unhealthy"}
    world.lose("web")
    first, second = world.vip(VIP).standing
    assert (first.object, second.object) == ("table ip paraglider", "service web")


@pytest.mark.parametrize("source", ["deciding", "policies", "answers", "pools"])
def test_a_condition_about_a_service(source: str) -> None:
    """Is told of its VIP and not of others, whatever it is about; of the balancer unless it is
    about backends.
    """
    world = World()
    world.conditions.report(source, {"service mail": UP})
    node = "healthy" if source in ("answers", "pools") else "degraded"
    words = {"all": "degraded", "node": node, VIP: "healthy", OTHER: "degraded", SIX: "healthy"}
    assert world.words() == words


def test_a_balancer_that_is_full_is_announced() -> None:
    """Monitoring hears that it refuses flows; its clients would only fill the others."""
    world = World()
    full = Condition("unhealthy", "refuses new flows, the flow table is full")
    world.conditions.report("workers", {"worker 0, table_full": full})
    world.conditions.report("host", {"eth0": UP})
    assert world.words() == {
        "all": "unhealthy",
        **dict.fromkeys(("node", VIP, OTHER, SIX), "degraded"),
    }
    assert "worker 0, table_full" in {each.object for each in world.vip(VIP).standing}
    world.conditions.report("host", {"eth0": Condition("unhealthy", "down")})
    assert of_node(world.conditions, world.store).standing[0].object == "eth0"


def test_a_drained_balancer() -> None:
    """Is draining, of whatever is asked, unless it is unhealthy; never to be announced."""
    world = World()
    world.store.node.drain(keep=False)
    assert set(world.words().values()) == {"draining"}
    assert not world.vip(VIP).announce
    world.conditions.report("host", {"eth0": UP})
    assert set(world.words().values()) == {"draining"}
    world.conditions.report("host", {"eth0": Condition("unhealthy", "down")})
    assert set(world.words().values()) == {"unhealthy"}
    assert world.vip(VIP).draining
    world.conditions.report("host", {})
    world.store.node.ready()
    assert world.vip(VIP).announce
    assert set(world.words().values()) == {"healthy"}


def test_more_services_than_have_a_line() -> None:
    """The line about the others says nothing about a VIP: its own services do."""
    many = [service(f"s{n}", VIP, 1000 + n) for n in range(MOST + 5)]
    world = World(
        Config.model_validate(
            {"services": [*many, service("mail", OTHER, 25), service("six", SIX, 80, 64)]}
        )
    )
    world.lose(*(each["name"] for each in many), "mail")
    assert world.vip(SIX).status == "healthy"
    health = world.vip(OTHER)
    assert (health.status, [each.object for each in health.standing]) == (
        "unhealthy",
        ["service mail"],
    )
    assert health.standing[0].since == 60.0  # it has no line of its own


def test_a_vip_that_no_service_has() -> None:
    """Is an error with those that there are; so is one whose services were removed and drain."""
    world = World()
    with pytest.raises(OperatorError) as caught:
        world.vip("192.0.2.9")
    assert str(caught.value) == (
        f"no service has the VIP 192.0.2.9; there are: {VIP}, {OTHER}, {SIX}"
    )
    kept = {each.name: each for each in CONFIG.services if each.name != "mail"}
    config = CONFIG.model_copy(update={"services": tuple(kept.values())})
    world.store.apply(world.store.desired.replaced(config), 2.0)
    assert any(each.name == "mail" for each in world.store.config.services)
    with pytest.raises(OperatorError, match="no service has"):
        world.vip(OTHER)


OBJECTS = st.sampled_from(
    ["service web", "service mail", "worker 0", "table ip paraglider", "service six"]
)
SOURCES = st.sampled_from(["host", "processes", "workers", "deciding", "answers", "services"])
FOUND = st.dictionaries(
    OBJECTS, st.builds(Condition, st.sampled_from(["degraded", "unhealthy"]), st.just("text; do"))
)


@settings(deadline=None)
@given(
    reports=st.dictionaries(SOURCES, FOUND),
    lost=st.sets(st.sampled_from(["web", "tls", "mail", "six"])),
    draining=st.booleans(),
    when=st.sampled_from(["any", "all"]),
)
def test_many_vips_are_told_as_one_is(
    reports: dict[str, dict[str, Condition]], lost: set[str], draining: bool, when: When
) -> None:
    """In few words: the same status, and a cause whenever there is one."""
    world = World()
    for source, found in reports.items():
        world.conditions.report(source, found)
    world.lose(*lost)
    if draining:
        world.store.node.drain(keep=False)
    services = frozenset(f"service {each.name}" for each in CONFIG.services)
    node = NodeHealth(world.conditions, services, draining=draining)
    for vip in (VIP, OTHER, SIX):
        own = [each.name for each in CONFIG.services if str(each.vip.ip) == vip]
        served = {f"service {name}": name not in lost for name in own}
        one, expected = node.of_vip(served, when), world.vip(vip, when)
        assert (one.announce, one.status) == (expected.announce, expected.status)
        assert bool(one.why) == (one.status != "healthy")
        if one.status == "unhealthy":
            worst = [each for each in expected.standing if each.condition.severity == one.status]
            assert one.why in {each.line.partition(";")[0] for each in worst}


def test_the_cause_in_few_words() -> None:
    """Without the remedy; a drained balancer is drained first."""
    world = World()
    world.lose("mail")
    services = frozenset({"service mail", "service web", "service tls"})
    node = NodeHealth(world.conditions, services, draining=False)
    why = "service mail: no backend takes new flows"
    assert node.of_vip({"service mail": False}, "any") == VipHealth(False, "unhealthy", why)
    assert node.of_vip({"service web": True}, "any") == VipHealth(True, "healthy", "")
    drained = NodeHealth(world.conditions, services, draining=True)
    why = "this balancer is drained"
    assert drained.of_vip({"service web": True}, "any") == VipHealth(False, "draining", why)
