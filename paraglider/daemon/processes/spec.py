"""Process specification: the startup parameters that all roles have.

Lives here: ``Spec``, with a subclass for each role; ``StartupState``, the state that a process
inherits; ``Run``, a process's main function.
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

#: written into the report pipe by a process that is ready; anything else is an error
READY: Final = b"ready"

#: the roles whose processes carry flows
CARRIERS: Final = ("worker", "proxy worker")

#: seconds that a process may take to exit
EXIT_TIMEOUT: Final = 1.0


@dataclass(frozen=True, slots=True)
class StartupState:
    """The state that a process inherits: what has changed since the daemon's start. ``live`` is the
    memory with offloaded flows counted by events, ``listed`` with those counted by dumps; None if
    there are none. ``carries``: BPF carries flows, ``watches_files``: files list backends.
    """

    config: Config
    states: States
    registry: Registry
    live: LiveFlows | None = None
    listed: LiveFlows | None = None
    carries: bool = True
    watches_files: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """The startup parameters of a process: its number among all, its endpoint to the supervisor
    (from its fork on), the memory for its counters, if it carries flows, the memory of its
    heartbeat, and what its role needs. An ``idle`` one is started when there is work for it.
    """

    role: ClassVar[str]
    index: int
    endpoint: IpcEndpoint | None = field(default=None, kw_only=True)
    counters: Counters | None = field(default=None, kw_only=True)
    heartbeat: Heartbeat = field(default_factory=Heartbeat, kw_only=True, compare=False, repr=False)
    idle: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.role

    @property
    def filter(self) -> str:
        """Its seccomp filter, a name in ``host.seccomp.ROLES``."""
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
    def exit_timeout(self) -> float:
        """Seconds that it may take to exit."""
        return EXIT_TIMEOUT

    def labels(self) -> dict[str, int]:
        """The fields that identify it in log lines, beside its role."""
        return {}

    def updated(self, state: StartupState) -> Self:
        """The same with the current state."""
        return self

    def release(self) -> None:
        """Close what belongs to this process alone; called in every other process."""


#: a process's main function: run(spec, report pipe, pid of the supervisor) -> exit code
Run = Callable[[Any, int, int], int]
