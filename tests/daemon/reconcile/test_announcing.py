"""The http process is told which VIPs to announce: at once, what has changed, and that it lives."""

from __future__ import annotations

import time
from ipaddress import ip_address
from math import inf
from typing import Any

from stand_ins import supervisors_end

from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.messages import Message, VipNews
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.announcing import (
    BEAT,
    RETRY,
    TICK,
    AnnounceReconciler,
    VipTable,
)
from paraglider.daemon.store.store import Desired, Store
from paraglider.daemon.workers.worker import WorkerSpec

WEB, MAIL = "203.0.113.11", "203.0.113.12"
WELL = (True, "healthy", "")
ILL = (False, "unhealthy", "service mail: no backend takes new flows")
DRAINED = (False, "draining", "this balancer is drained")


def backend(number: int) -> str:
    """The address of a backend."""
    return f"10.0.{number // 250}.{1 + number % 250}"


def config(*services: tuple[str, str], **announce: Any) -> Config:
    """Services with one backend each, by name and VIP."""
    every = [
        {"name": name, "vip": vip, "protocol": "tcp", "ports": 80 + n, "backends": [backend(n)]}
        for n, (name, vip) in enumerate(services, 1)
    ]
    return Config.model_validate({"services": every, "announce": announce})


class World:
    """A store, its conditions, and an http process that reads what it is sent."""

    def __init__(self, before: Config) -> None:
        self.store = Store(before, 0.0)
        self.conditions = Conditions()
        self.child = Child(WorkerSpec(7, 0, before, 1, 1), pid=1, starts=1)
        self.child.endpoint = supervisors_end("http")
        self.there = True
        self.assessed = 0
        self.sent: list[VipNews] = []
        self.table = VipTable(self.store, self.conditions)
        self.reconciler = AnnounceReconciler(
            self.table, self.assess, lambda: self.child if self.there else None, self.send
        )
        self.now = 100.0

    def assess(self) -> None:
        """A process has died."""
        self.assessed += 1
        self.conditions.report("processes", {"worker 0": Condition("unhealthy", "has died; why")})

    def send(self, index: int, message: Message) -> None:
        """See ``AnnounceReconciler``."""
        assert index == 7
        assert isinstance(message, VipNews)
        self.sent.append(message)

    def turn(self, after: float = 1.5 * TICK) -> list[VipNews]:
        """What is sent in a turn so much later."""
        self.now += after
        self.sent = []
        self.pause = self.reconciler.reconcile(self.now)
        return self.sent

    def move(self, service: str, event: Event) -> None:
        """The state of the backends of ``service`` changes."""
        for record in self.store.pools.of(service):
            self.store.move(record, event, "a test", self.now)


def test_nothing_is_told_before_anybody_asks() -> None:
    """Then everything, then what changes, and that nothing has."""
    world = World(config(("web", WEB), ("mail", MAIL)))
    assert world.turn() == []
    assert world.pause == inf
    world.reconciler.subscribe()
    assert world.turn() == [VipNews(loads=1, vips={WEB: WELL, MAIL: WELL})]
    assert world.pause == BEAT
    assert world.turn() == []
    world.move("mail", Event.CHECK_FAILED)
    assert world.turn() == [VipNews(vips={MAIL: ILL})]
    assert world.turn(BEAT - 0.1) == []
    assert world.turn(0.2) == [VipNews()]
    world.move("mail", Event.CHECK_PASSED)
    assert world.turn() == [VipNews(vips={MAIL: WELL})]


def test_a_second_client_needs_no_message() -> None:
    """The http process knows all already; a successor of it does not."""
    world = World(config(("web", WEB)))
    world.reconciler.subscribe()
    world.turn()
    world.reconciler.subscribe()
    assert world.turn() == []
    world.there = False
    assert world.turn(BEAT) == []
    world.child.starts, world.there = 2, True
    assert world.turn(BEAT) == []
    world.reconciler.subscribe()
    assert world.turn() == [VipNews(loads=1, vips={WEB: WELL})]


def test_a_drain_and_a_dead_process_are_told_at_once() -> None:
    """Of every VIP; the processes are looked at when one has come or gone."""
    world = World(config(("web", WEB), ("mail", MAIL)))
    world.reconciler.subscribe()
    world.turn()
    world.store.node.drain(keep=False)
    assert world.turn() == [VipNews(vips={WEB: DRAINED, MAIL: DRAINED})]
    world.store.node.ready()
    assert world.turn() == [VipNews(vips={WEB: WELL, MAIL: WELL})]
    world.reconciler.touch()
    died = (False, "unhealthy", "worker 0: has died")
    assert world.turn() == [VipNews(vips={WEB: died, MAIL: died})]
    assert world.assessed == 1


def test_other_words_about_what_does_not_matter_are_not_told() -> None:
    """The text of a degraded balancer changes every second."""
    world = World(config(("web", WEB)))
    world.reconciler.subscribe()
    world.turn()
    for number, expected in ((1, 1), (2, 0), (3, 0)):
        found = {"worker 0": Condition("degraded", f"{number} flows; more")}
        world.conditions.report("workers", found)
        assert len(world.turn()) == expected


def test_a_reload() -> None:
    """All VIPs are told again if the file says something new about them."""
    world = World(config(("web", WEB), ("mail", MAIL)))
    world.reconciler.subscribe()
    world.turn()
    world.store.apply(Desired(config(("web", WEB), ("mail", MAIL), rise=5.0)), world.now)
    assert world.turn() == [VipNews(loads=2, vips={WEB: WELL, MAIL: WELL})]
    world.store.apply(Desired(config(("mail", MAIL), rise=5.0)), world.now)
    assert world.turn() == [VipNews(loads=3, vips={MAIL: WELL})]
    again = config(("mail", MAIL), ("other", MAIL), rise=5.0)
    world.store.apply(Desired(again), world.now)
    assert world.turn() == []
    world.move("mail", Event.CHECK_FAILED)
    assert world.turn() == [
        VipNews(vips={MAIL: (True, "degraded", "service mail: no backend takes new flows")})
    ]
    world.store.apply(Desired(again.model_copy(update={"announce": None})), world.now)
    assert world.turn() == [VipNews(loads=4)]


def test_a_removed_service_that_drains_does_not_count() -> None:
    """Its VIP is announced no more."""
    both = config(("web", WEB), ("mail", MAIL))
    world = World(both)
    world.reconciler.subscribe()
    world.turn()
    world.store.apply(world.store.desired.replaced(config(("web", WEB))), world.now)
    assert [service.name for service in world.store.config.services] == ["web", "mail"]
    assert world.turn() == [VipNews(loads=2, vips={WEB: WELL})]
    assert set(world.reconciler.now()) == {ip_address(WEB)}


def test_a_process_that_does_not_read_gets_the_newest() -> None:
    """Nothing is sent while something waits for it."""
    world = World(config(("web", WEB), ("mail", MAIL)))
    world.reconciler.subscribe()
    world.turn()
    endpoint = world.child.endpoint
    assert endpoint is not None
    endpoint._out += b"x"
    for event in (Event.CHECK_FAILED, Event.CHECK_PASSED, Event.CHECK_FAILED):
        world.move("mail", event)
        assert world.turn() == []
        assert world.pause == RETRY
    endpoint._out.clear()
    assert world.turn() == [VipNews(vips={MAIL: ILL})]


def test_changes_that_come_together_are_told_together() -> None:
    """One evaluation in TICK seconds, however many turns there are."""
    world = World(config(("web", WEB), ("mail", MAIL)))
    world.reconciler.subscribe()
    world.turn()
    world.move("mail", Event.CHECK_FAILED)
    world.turn()
    world.move("mail", Event.CHECK_PASSED)
    assert world.turn(TICK / 4) == []
    assert 0 < world.pause <= TICK
    world.move("mail", Event.CHECK_FAILED)
    world.move("web", Event.CHECK_FAILED)
    (news,) = world.turn(world.pause + 0.001)
    assert set(news.vips) == {WEB}


def test_a_mass_failure_is_cheap() -> None:
    """2,000 VIPs whose backends fail in 100 rounds: some milliseconds a round, in all processes'
    one thread.
    """
    vips = [(f"s{n}", f"203.{n // 250}.{n % 250}.1") for n in range(2000)]
    world = World(config(*vips))
    world.reconciler.subscribe()
    assert len(world.turn()[0].vips) == 2000
    begin = time.process_time()
    for step in range(100):
        for name, _ in vips[20 * step : 20 * step + 20]:
            world.move(name, Event.CHECK_FAILED)
        (news,) = world.turn()
        assert len(news.vips) == 20
    assert time.process_time() - begin < 2.0
