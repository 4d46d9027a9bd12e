"""Policies that did not return: suspended until the configuration is reloaded.

A policy whose `pick` or `prepare` never returns stops its worker, which is killed
(``processes.hangs``). Its successor has the same policy, and would stop again. So the policy is
suspended: the service uses round robin, in running processes and in those forked later
(``policies.suspend``).

Lives here: ``SuspendedPolicies``.
Rules: the process reports itself whose policy it was calling, and is not trusted: all that it can
cause is that a policy is suspended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from paraglider.config.model import Config
from paraglider.core.strategies import KINDS, Registry
from paraglider.daemon import log
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.messages import Message, SuspendPolicies
from paraglider.daemon.shared_memory.counters import identity
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.host import policies

_REMEDY: Final = "correct it and restart the daemon, or have it tried as it is: `paraglider reload`"


class SuspendedPolicies:
    """The suspended policies of ``registry``; ``send`` sends a message to the processes with
    flows.
    """

    def __init__(
        self, registry: Registry, conditions: Conditions, send: Callable[[Message], object]
    ) -> None:
        self._registry = registry
        self._conditions = conditions
        self._send = send
        self._services: dict[str, str] = {}  # and their strategies
        self._log: Any = log.logger()

    def hangs(self, config: Config, life: Heartbeat) -> Mapping[str, str]:
        """Suspend the policy that the hanging process with ``life`` was calling, if any; returns a
        description for the log.
        """
        called = {identity(service.name): service for service in config.services}
        service = called.get(life.decides)
        if service is None or service.strategy in KINDS:
            return {"doing": "takes long"} if life.works_long else {}
        if service.name not in self._services:
            self._services[service.name] = service.strategy
            self._log.error(
                "policy does not return, suspended: rr is used until a reload",
                service=service.name,
                strategy=service.strategy,
                remedy=_REMEDY,
            )
            self._apply()
        return {"deciding": service.name, "strategy": service.strategy}

    def clear(self) -> bool:
        """The configuration was reloaded: call all policies again. Returns whether any had been
        suspended.
        """
        if not self._services:
            return False
        self._log.info("suspended policies enabled again", services=",".join(self._services))
        self._services.clear()
        self._apply()
        return True

    def _apply(self) -> None:
        names = list(self._services)
        policies.suspend(self._registry, names)
        self._send(SuspendPolicies(services=tuple(names)))
        found = {
            f"service {name}": Condition(
                "degraded",
                f"its policy `{strategy}` did not return, rr picks in its place; {_REMEDY}",
            )
            for name, strategy in self._services.items()
        }
        self._conditions.report("policies", found, logged=False)
