"""Shared by the commands that change this host: apply or undo a plan, and print its steps.

Lives here: ``apply_steps``, ``undo_steps``.
Rules: one line per step on stdout, warnings on stderr; with ``dry_run`` stdout is an equivalent
shell script. Only one such command runs at a time in a network namespace.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from paraglider.cli.step_printer import StepPrinter
from paraglider.config.model import Config
from paraglider.forward.static.checks import kernel_only
from paraglider.host import apply, bpffs, carrier
from paraglider.host.announce import announce_now
from paraglider.host.carrier_support import not_carried
from paraglider.host.changes.base import Host
from paraglider.host.cores import refuse_other_cores, worker_cores
from paraglider.host.dns_cache import DnsCacheFile
from paraglider.host.journal_files import leftovers
from paraglider.host.ownership import SET_UP, STARTED
from paraglider.host.plan_filter import lacking
from paraglider.host.seed import machine_seed
from paraglider.host.state import StateFile, wait_for_setup_lock
from paraglider.host.step import Step
from paraglider.host.wanted import WantedFile

Prepare = Callable[[Config, frozenset[int], Host, StateFile], list[Step]]
"""Makes the plan: ``apply.prepare`` or ``apply.prepare_start``."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code after SIGTERM, as in shells."""


def apply_steps(
    prepare: Prepare, config: Config, families: frozenset[int], owner: str, dry_run: bool
) -> None:
    """Set the host up for ``config`` and print the steps; raises as ``apply.set_up``."""
    with wait_for_setup_lock():
        host, state = Host(), StateFile(owner=owner)
        config = config.seeded(machine_seed(_print_warning) if config.seed is None else None)
        steps = prepare(config, families, host, state)
        if dry_run:
            print(apply.script(steps, host) or "# nothing to do: the host is set up\n", end="")
            return
        if owner == SET_UP:
            refuse_other_cores(apply.steered(steps))
            for line in (*carrier.prepare(config), *not_carried(config)):
                _print_warning(line)
        # SIGTERM must roll back too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        printer = StepPrinter()
        apply.set_up(steps, host, state, printer)
        _store_wanted(config, families, owner)
        printer.print_totals()
        announce_now(apply.arrived(steps))
        workers = len(apply.steered(steps)) or 1
        _warn(config, families, host, lacking(config.for_families(families), workers, steps))


def undo_steps(families: frozenset[int], owner: str, dry_run: bool, nothing: str) -> None:
    """Undo the set-up of ``owner`` and print the steps; prints ``nothing`` if there are none."""
    with wait_for_setup_lock():
        host, state = Host(), StateFile(owner=owner)
        whole = {change.family for change in state.load()} <= families
        kept = [(path, "journal of flows") for path in leftovers()] if whole else []
        if whole and (answers := DnsCacheFile().path).exists():
            kept.append((answers, "answers of the DNS"))
        pins = bpffs.pins_path() if whole else None
        if dry_run:
            script = apply.undo_script(families, host, state)
            script += "".join(f"rm -f {path}\n" for path, _ in kept)
            script += f"rm -r {pins}\n" if pins is not None else ""
            print(script or f"# {nothing}\n", end="")
            return
        printer = StepPrinter()
        WantedFile().drop(families)  # first, so that the daemon does not repair what is undone
        steps = apply.undo(families, host, state, printer)
        for path, what in kept:
            path.unlink(missing_ok=True)
            printer("done", f"{what} {path} removed")
        if whole and carrier.undo():
            printer("done", f"BPF carrier {pins} removed")
        if steps or kept or pins is not None:
            printer.print_totals()
        else:
            print(nothing)


def _print_warning(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _store_wanted(config: Config, families: frozenset[int], owner: str) -> None:
    """Store the desired state of the host."""
    if owner == STARTED:
        WantedFile().set(kernel_only(config), families, (), owner)
    else:
        WantedFile().set(config, families, worker_cores(config.workers), owner)


def _warn(config: Config, families: frozenset[int], host: Host, lost: list[str]) -> None:
    for address in apply.unresolved(config, families, host):
        print(
            f"warning: backend {address}: cannot resolve its hardware address;"
            " is it up, and on the private interface's link?",
            file=sys.stderr,
        )
    for line in lost:
        print(f"warning: {line}", file=sys.stderr)
    for address in apply.foreign_sources(config, families, host):
        print(
            f"warning: no interface has the `snat` address {address}; replies of the backends must"
            " be routed to this host",
            file=sys.stderr,
        )
