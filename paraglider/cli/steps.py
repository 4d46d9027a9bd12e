"""What the commands that change this host share: the way from a plan to what is printed of it.

Lives here: ``carry_out``, ``take_back``.
Rules: one line a step on stdout, warnings on stderr; with ``dry_run`` stdout is a script of the
commands that the run amounts to. One such command at a time in a network namespace.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from paraglider.cli.step_printer import Teller
from paraglider.config.model import Config
from paraglider.forward.static.checks import kernel_only
from paraglider.host import apply
from paraglider.host.announce import announce_now
from paraglider.host.changes.base import Host
from paraglider.host.cores import refuse_other_cores, worker_cores
from paraglider.host.dns_cache import AnswersFile
from paraglider.host.journal_files import leftovers
from paraglider.host.ownership import SET_UP, STARTED
from paraglider.host.plan_filter import lacking
from paraglider.host.seed import machine_seed
from paraglider.host.state import StateFile, in_turn
from paraglider.host.step import Step
from paraglider.host.wanted import WantedFile

Prepare = Callable[[Config, frozenset[int], Host, StateFile], list[Step]]
"""What makes the plan: ``setup.prepare`` or ``setup.prepare_start``."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code that shells give for a termination."""


def carry_out(
    prepare: Prepare, config: Config, families: frozenset[int], owner: str, dry_run: bool
) -> None:
    """Bring the host to ``config`` and say how; raises what ``setup`` raises."""
    with in_turn():
        host, state = Host(), StateFile(owner=owner)
        config = config.seeded(machine_seed(_told))
        steps = prepare(config, families, host, state)
        if dry_run:
            print(apply.script(steps, host) or "# nothing to do: the host is set up\n", end="")
            return
        if owner == SET_UP:
            refuse_other_cores(apply.steered(steps))
        # A termination must roll back too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        told = Teller()
        apply.set_up(steps, host, state, told)
        _want(config, families, owner)
        told.sum_up()
        announce_now(apply.arrived(steps))
        workers = len(apply.steered(steps)) or 1
        _warn(config, families, host, lacking(config.for_families(families), workers, steps))


def take_back(families: frozenset[int], owner: str, dry_run: bool, nothing: str) -> None:
    """Undo what ``carry_out`` did for ``owner`` and say how; ``nothing`` when there is nothing."""
    with in_turn():
        host, state = Host(), StateFile(owner=owner)
        whole = {change.family for change in state.load()} <= families
        kept = [(path, "journal of flows") for path in leftovers()] if whole else []
        if whole and (answers := AnswersFile().path).exists():
            kept.append((answers, "answers of the DNS"))
        if dry_run:
            script = apply.undo_script(families, host, state)
            script += "".join(f"rm -f {path}\n" for path, _ in kept)
            print(script or f"# {nothing}\n", end="")
            return
        told = Teller()
        WantedFile().drop(families)  # first: what is undone must not be put back
        steps = apply.undo(families, host, state, told)
        for path, what in kept:
            path.unlink(missing_ok=True)
            told("done", f"{what} {path} removed")
        if steps or kept:
            told.sum_up()
        else:
            print(nothing)


def _told(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _want(config: Config, families: frozenset[int], owner: str) -> None:
    """Note what the host is from now on."""
    if owner == STARTED:
        WantedFile().put(kernel_only(config), families, (), owner)
    else:
        WantedFile().put(config, families, worker_cores(config.workers), owner)


def _warn(config: Config, families: frozenset[int], host: Host, lost: list[str]) -> None:
    for address in apply.unresolved(config, families, host):
        print(
            f"warning: the backend {address} does not answer for its hardware address;"
            " is it up, and on the private interface's link?",
            file=sys.stderr,
        )
    for line in lost:
        print(f"warning: {line}", file=sys.stderr)
    for address in apply.foreign_sources(config, families, host):
        print(
            f"warning: no interface here has the `snat` address {address}; do the backends'"
            " replies to it come to this host?",
            file=sys.stderr,
        )
