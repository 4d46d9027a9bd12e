"""Changes the host for a changed configuration, by the plan of the set-up.

Rules: only on a host that ``paraglider.config`` has set up; the changes are recorded in the same
state file, so that `--undo` and the repair keep working. All or nothing: if a step fails, or the
daemon is stopped meanwhile, which is no error, all are rolled back.
"""

from __future__ import annotations

from typing import Any

from paraglider.config.check import check_interfaces
from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host import apply
from paraglider.host.changes.base import Host
from paraglider.host.checks import check_vips
from paraglider.host.cores import worker_cores
from paraglider.host.state import StateFile, wait_for_setup_lock
from paraglider.host.wanted import WantedFile


class HostRules:
    """The set-up of ``families`` on ``host``."""

    def __init__(self, families: frozenset[int], host: Host) -> None:
        self._families = families
        self._host = host
        self._log: Any = log.logger()

    def adjust(self, config: Config) -> list[str]:
        """Bring the set-up to ``config``; returns the changes, none on a host that is not set up.

        Raises ``OperatorError`` and ``PlatformError``; then nothing has changed.
        """
        done: list[str] = []
        say = self._log.error

        def report(outcome: str, what: str) -> None:
            nonlocal say
            if outcome == "done":
                done.append(what)
            elif outcome == "failed":
                self._log.error("set-up: failed", step=what)
            elif outcome != "unchanged":
                if outcome == "interrupted":  # by SIGTERM; what was done is rolled back
                    say = self._log.info
                say(f"set-up: {outcome}", step=what)

        with wait_for_setup_lock():
            host, state = self._host, StateFile()
            if not state.load():
                return []
            try:
                for problem in check_interfaces(config, set(host.netlink.interfaces())):
                    raise PlatformError(problem.what, problem.remedy)
                check_vips(config.services)
                steps = apply.prepare(config, self._families, host, state)
                apply.set_up(steps, host, state, report)
                cores = worker_cores(config.workers)
                WantedFile().set(config, self._families, cores, state.owner)
            except ParagliderError as error:
                raise PlatformError(
                    f"the host cannot be brought to it: {error.what}",
                    "run paraglider.config, which may do more than the daemon, then reload",
                ) from error
        return done
