"""Checks a configuration for `paraglider start`: balancing by the kernel, without a daemon.

Lives here: ``unserved`` (what it refuses), ``cautions`` (what it does differently from the daemon),
and ``kernel_only`` (the configuration as its rules read it).
Rules: an error names the place and the remedy, a warning does not stop the command. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Service
from paraglider.config.service import METHODS, Method
from paraglider.core.strategies import KINDS

_WITH_DAEMON = "run the daemon, or leave it out"


def unserved(config: Config) -> list[Problem]:
    """Errors: what ``config`` needs that the kernel cannot do alone."""
    return [
        problem
        for index, service in enumerate(config.services)
        for problem in _unserved(("services", index), service)
    ]


def cautions(config: Config) -> list[Problem]:
    """Warnings: what the kernel does differently from the daemon."""
    found = []
    for index, service in enumerate(config.services):
        strategy = service.strategy_class
        if strategy.in_kernel not in (None, service.strategy):
            what = f"`strategy: {service.strategy}` is {strategy.in_kernel} here:"
            what += f" {strategy.kernel_note}"
            remedy = f"write {strategy.in_kernel} to say so, or run the daemon"
            found.append(Problem(("services", index, "strategy"), what, remedy))
        if service.check is not None:
            what = "`check` is the daemon's: a backend that dies keeps its share here"
            found.append(Problem(("services", index, "check"), what, _WITH_DAEMON, at="key"))
        if service.agent is not None:
            what = "`agent` is the daemon's: weights are those of the file here"
            found.append(Problem(("services", index, "agent"), what, _WITH_DAEMON, at="key"))
    if config.watch:
        what = "`watch` is the daemon's: the file is not watched here"
        found.append(Problem(("watch",), what, "run `start` again after a change"))
    if config.failover.enabled:
        what = "`failover` is the daemon's: a backend that dies keeps its share here"
        found.append(Problem(("failover", "enabled"), what, _WITH_DAEMON))
    return found


def kernel_only(config: Config) -> Config:
    """``config`` as the kernel applies it: ``nat`` and ``offload`` are the same, and a strategy is
    replaced by the kernel's equivalent.
    """
    services = tuple(
        service.model_copy(
            update={
                "forward": next(m.name for m in METHODS.values() if m.conntracked),
                "strategy": service.strategy_class.in_kernel or service.strategy,
                "strategy_parameters": {},
            }
        )
        for service in config.services
    )
    return config.model_copy(update={"services": services})


def _in_kernel(method: Method) -> bool:
    """Whether conntrack can translate for the services of ``method``."""
    return method.queued and method.owns_vip


def _unserved(path: Path, service: Service) -> Iterator[Problem]:
    if not _in_kernel(service.method):
        what = f"`forward: {service.forward}` takes a daemon, and `start` has none"
        names = " or ".join(name for name, method in METHODS.items() if _in_kernel(method))
        yield Problem((*path, "forward"), what, f"use {names}, or run the daemon")
    elif service.return_ == "direct":
        what = "`return: direct` takes a daemon: the kernel rewrites both ways, or neither"
        yield Problem((*path, "return"), what, "write `return: via`, or run the daemon")
    if service.source is not None:
        what = "`backends` from elsewhere take a daemon, which looks there again and again"
        yield Problem((*path, "backends"), what, "list the backends here, or run the daemon")
    strategy = service.strategy_class
    if strategy.in_kernel is None:
        what = f"`strategy: {service.strategy}` takes a daemon: {strategy.kernel_note}"
        known = ", ".join(name for name, each in KINDS.items() if each.in_kernel is not None)
        yield Problem((*path, "strategy"), what, f"write one of: {known}; or run the daemon")
