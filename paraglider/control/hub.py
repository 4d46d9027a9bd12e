"""The hub: what is true of services and backends now, and who is told of it.

It holds the configuration and the table of pools, hears the processes and answers the control
socket (``desk``). Every change of a state or weight goes through ``move`` and ``weigh``: the table
first, then the log, then the processes. A process that starts inherits all of it.

Rules: runs in the supervisor, with its rights; never waits for a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from paraglider.config.model import Config
from paraglider.control import log
from paraglider.control.channel import Message
from paraglider.control.children import CARRIERS, Child, Children, Equipment
from paraglider.control.desk import SOON, Desk
from paraglider.control.gate import Gate
from paraglider.control.health import Health
from paraglider.control.offloaded import Offloaded, Over
from paraglider.control.pools import Member, Pools
from paraglider.control.questions import Questions
from paraglider.control.watch import INTERVAL, Watch
from paraglider.core.pool import Event
from paraglider.core.strategies import Registry
from paraglider.errors import PlatformError


class Hub:
    """The hub of ``config``; ``registry`` has its strategies, ``watch`` looks at the kernel.

    ``all_ready`` is called once, when every process serves for the first time. ``token`` is the
    hash of what the stats page needs to change anything.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        watch: Watch | None = None,
        all_ready: Callable[[], None] = lambda: None,
        token: bytes | None = None,
    ) -> None:
        self.config = config
        self.pools = Pools(config, time.monotonic())
        self.questions = Questions(self._send)
        self._registry = registry
        self._watch = watch
        self._all_ready = all_ready
        self._children: dict[int, Child] = {}
        self._all: Children | None = None
        self._desk = Desk(self)
        self._gate = Gate(self._desk, token)
        self._health = Health(self)
        self._offloaded = Offloaded(config)
        if watch is not None:
            watch.repaired = self._offloaded.put_back
        self._log: Any = log.logger()

    def attach(self, children: Children) -> None:
        """See ``supervisor.Hub``."""
        self._all = children
        self._children = {child.spec.index: child for child in children}

    def ready(self) -> None:
        """See ``supervisor.Hub``."""
        self._all_ready()

    def equipment(self) -> Equipment:
        """See ``children.Owner``."""
        return Equipment(self.config, self.pools.states(), self._registry)

    def came(self, child: Child) -> None:
        """See ``children.Owner``."""
        self._count_workers(child)
        if child.spec.role == "checker":
            self._send(child.spec.index, self._health.order())

    def went(self, child: Child) -> None:
        """See ``children.Owner``."""
        self.questions.gone(child.spec.index)
        self._count_workers(child)

    def heard(self, child: Child, message: Message) -> None:
        """See ``children.Owner``."""
        if "re" in message:
            self.questions.answer(child.spec.index, message)
        elif child.spec.role in ("api", "stats"):
            number = message.get("id")
            answerer = self._desk if child.spec.role == "api" else self._gate
            answerer.take(
                message, lambda reply: self._send(child.spec.index, {**reply, "re": number})
            )
        elif child.spec.role == "checker":
            self._health.take(message)
        else:
            self._log.error(f"{child.spec.role} says what is not its to say", **child.spec.labels())

    def look(self, now: float) -> float:
        """See ``supervisor.Hub``."""
        pause = self.questions.look(now)
        if over := self._offloaded.tick(now):
            self._forget(over)
        if self._watch is not None:
            self._watch.look(now)
            pause = min(pause, INTERVAL)
        return pause

    def close(self) -> None:
        """See ``supervisor.Hub``."""
        self._offloaded.close()

    def reload(self) -> None:
        """See ``supervisor.Hub``."""
        self._log.warning("no reload in this version; restart to read the file again")

    def processes(self) -> list[Child]:
        """See ``desk.State``."""
        return list(self._children.values())

    def carriers(self) -> list[int]:
        """See ``desk.State``."""
        return [i for i, c in self._children.items() if c.spec.role in CARRIERS and c.serves]

    def move(self, member: Member, event: Event, why: str) -> None:
        """Move ``member`` by ``event``, which may change nothing, and tell of it."""
        before = member.state
        if self.pools.apply(member, event, why, time.monotonic()):
            self._log.info(
                "backend changed",
                service=member.service,
                backend=member.backend,
                state=member.state.value,
                before=before.value,
                why=why,
            )
            self._tell()

    def weigh(self, member: Member, weight: int) -> None:
        """Give ``member`` another weight, and tell of it."""
        before = member.weight
        self.pools.set_weight(member, weight)
        if member.weight != before:
            self._log.info(
                "weight changed",
                service=member.service,
                backend=member.backend,
                weight=weight,
                before=before,
            )
            self._tell()

    def _tell(self) -> None:
        """Tell those who carry flows, and who looks at the backends; who carries flows and starts
        later inherits it.
        """
        states = self.pools.states()
        for child in self._children.values():
            if child.spec.role in CARRIERS:
                self._send(child.spec.index, {"do": "pools", "states": states})
            elif child.spec.role == "checker" and child.serves:
                self._send(child.spec.index, self._health.order())
        self._offloaded.follow(states)

    def _forget(self, over: Over) -> None:
        """Have the kernel forget connections, once no worker goes by what was before."""
        forget = self._offloaded.forget
        until = time.monotonic() + SOON
        try:
            self.questions.ask(self.carriers(), {"do": "sync"}, until, lambda _: forget(over))
        except PlatformError:  # too much is being asked
            forget(over)

    def _send(self, index: int, message: Message) -> None:
        if self._all is not None:
            self._all.send(self._children[index], message)

    def _count_workers(self, changed: Child) -> None:
        """Tell the watch how many workers serve, after one began or ended."""
        if self._watch is not None and changed.spec.role == "worker":
            workers = [c for c in self._children.values() if c.spec.role == "worker"]
            self._watch.workers(sum(child.serves for child in workers))
