"""What a process is told at its start, whatever it is for.

Lives here: ``Spec``, one class more for each role; ``StartupState``, what has changed since the
first start; ``Run``, a process's life.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from paraglider.config.model import Config
from paraglider.core.strategies import Registry
from paraglider.daemon.ipc import IpcEndpoint
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE, Receives
from paraglider.daemon.shared_memory.counters import Counters
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.forward.offload.connection_counts import LiveFlows
from paraglider.forward.services import States

#: what a process writes into its report pipe once it serves; anything else there is an error
READY: Final = b"ready"

#: roles whose processes carry flows
CARRIERS: Final = ("worker", "proxy worker")

#: seconds that a process may take to end
PATIENCE: Final = 1.0


@dataclass(frozen=True, slots=True)
class StartupState:
    """What a process needs to know from its start on: what has changed since the first start.
    ``live`` is where offloaded flows are counted as they come and go, if they are, ``listed`` where
    the others are counted now and then.
    """

    config: Config
    states: States
    registry: Registry
    live: LiveFlows | None = None
    listed: LiveFlows | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """All that a process is told: its number among all, its endpoint to the supervisor (from its
    fork on), where it writes what it counts, if it carries flows, where it gives signs of life,
    and what its work needs. One that is ``idle`` is started when there is work for it.
    """

    role: ClassVar[str]
    index: int
    endpoint: IpcEndpoint | None = field(default=None, kw_only=True)
    counters: Counters | None = field(default=None, kw_only=True)
    heartbeat: Heartbeat = field(default_factory=Heartbeat, kw_only=True, compare=False, repr=False)
    idle: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.role

    @property
    def filter(self) -> str:
        """Its filter of system calls, a name in ``host.seccomp.ROLES``."""
        return self.role

    @property
    def from_process(self) -> Receives:
        """The messages that the supervisor accepts from it."""
        return FROM_ROLE[self.role]

    @property
    def to_process(self) -> Receives:
        """The messages that it accepts from the supervisor."""
        return TO_ROLE[self.role]

    @property
    def patience(self) -> float:
        """Seconds that it may take to end."""
        return PATIENCE

    def labels(self) -> dict[str, int]:
        """What the log says of it beside its role."""
        return {}

    def updated(self, state: StartupState) -> Self:
        """The same with what has changed meanwhile."""
        return self

    def release(self) -> None:
        """Close what is this process's alone; called in every other process."""


#: a process's life: run(spec, report pipe, pid of the supervisor) -> exit code
Run = Callable[[Any, int, int], int]
