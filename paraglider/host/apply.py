"""Applies a plan, rolls it back when a step fails, and undoes it later.

Lives here: ``prepare`` (the checks and the plan), ``set_up``, ``undo``, and the scripts of the dry
run.
Rules: nothing is changed before every check has passed. A change is stored in the state before it
is applied, and removed after it is undone. After a failure the host is as it was before the run.
``report`` gets one line for each step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forward import registry
from paraglider.forward.optional_tables import table_names
from paraglider.forward.static.checks import kernel_only
from paraglider.host.announce import Place
from paraglider.host.changes.base import Change, Host
from paraglider.host.changes.legacy import LegacyChange
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.records import is_stored
from paraglider.host.changes.replaced_table import OptionalTableChange, ReplacedTable
from paraglider.host.changes.routes import ProxyChange
from paraglider.host.changes.ruleset import RulesChange, removal_script
from paraglider.host.changes.sysctls import FORWARDING
from paraglider.host.changes.table import TableChange
from paraglider.host.checks import DEFAULT_CHROOT, check_chroot, check_user
from paraglider.host.cores import worker_cores
from paraglider.host.netlink import Neighbour
from paraglider.host.plan import make_plan
from paraglider.host.plan_links import needs_kernel, on_link_backends
from paraglider.host.seed import steering_seed
from paraglider.host.state import StateFile
from paraglider.host.step import Step, refuse_read_only, undo_plan
from paraglider.netfilter.rules.nft import removal_text
from paraglider.netfilter.rules.saved import our_tables
from paraglider.netfilter.rules.steering import cores_of

Report = Callable[[str, str], None]
"""Called for each step with its outcome (done, unchanged, failed, interrupted, rolled back) and
description.
"""

# The kernel stores more than the change's text, so a change is detected by the text.
_SETTLING = RulesChange | LegacyChange | TableChange | ReplacedTable

_RESOLVE_SECONDS = 2.0  # timeout of the neighbour resolution of backends
_RESOLVE_PAUSE = 0.05


def prepare(config: Config, families: frozenset[int], host: Host, state: StateFile) -> list[Step]:
    """Check the host and return the plan; changes nothing.

    The interfaces must have been checked (``config.check.check_interfaces``). Raises
    ``OperatorError`` for the operator's mistakes, ``PlatformError`` when the kernel lacks a feature
    that the rules need.
    """
    check_user(config.user)
    if config.chroot != DEFAULT_CHROOT or Path(DEFAULT_CHROOT).exists():
        check_chroot(config.chroot)
    return _rehearsed(config, families, worker_cores(config.workers), host, state)


def prepare_start(
    config: Config, families: frozenset[int], host: Host, state: StateFile
) -> list[Step]:
    """As ``prepare``, without workers: no checks of user, chroot directory and cores.

    Services that the kernel cannot balance must have been refused
    (``forward.static.checks.unserved``).
    """
    return _rehearsed(kernel_only(config), families, (), host, state)


def _rehearsed(
    config: Config,
    families: frozenset[int],
    cores: tuple[int, ...],
    host: Host,
    state: StateFile,
) -> list[Step]:
    earlier = state.load()
    for family in sorted({service.family for service in config.services} & families):
        if host.sysctl.read(FORWARDING[family]) is None:
            raise PlatformError(
                f"the kernel has no IPv{family}",
                f"turn it on, or leave the IPv{family} services out",
            )
        if needs_kernel(config, family):
            host.netfilter.require(family)
    if any(s.method.conntracked for s in config.for_families(families).services):
        host.nft.require()
    _check_host(config, families, host, earlier)
    steps = make_plan(config, families, cores, steering_seed(config.seed), host, earlier)
    refuse_read_only(steps, host)
    for step in steps:
        if step.action == "apply" and isinstance(step.change, RulesChange):
            host.netfilter.rehearse(step.change.family, step.change.text)
        elif step.action == "apply" and isinstance(step.change, TableChange):
            step.change.rehearse(host)
    refused = _refused(steps, host)
    return [step for step in steps if step not in refused]


def _check_host(
    config: Config, families: frozenset[int], host: Host, earlier: Iterable[Change]
) -> None:
    """Raise ``OperatorError`` where a forwarding method cannot work on this host."""
    addresses = {
        interface: host.netlink.addresses(interface) for interface in host.netlink.interfaces()
    }
    added = {change.identity for change in earlier if isinstance(change, AddressChange)}
    leaving = {
        (interface, address)
        for interface, found in addresses.items()
        for address in found
        if AddressChange(address.version, interface, str(address)).identity in added
    }
    for family in sorted(families):
        for method in registry.methods():
            method.check_host(config, family, addresses, leaving)


def _refused(steps: Iterable[Step], host: Host) -> list[Step]:
    """The steps that make a table that a host may do without and the kernel or nft cannot do."""
    texts = {
        step: step.change.text
        for step in steps
        if step.action == "apply" and isinstance(step.change, OptionalTableChange)
    }
    try:
        if not texts or not host.nft.trial("".join(texts.values())):
            return []
        return [step for step, text in texts.items() if host.nft.trial(text)]
    except OperatorError:  # no nft
        return list(texts)


def set_up(steps: list[Step], host: Host, state: StateFile, report: Report) -> None:
    """Apply ``steps``; when one fails, roll all of them back and raise ``PlatformError``.

    Where nothing is to be changed the state is not written either.
    """
    if all(step.action == "keep" for step in steps):
        for step in steps:
            report("unchanged", step.describe())
        return
    update = _StateUpdate(state)
    for position, step in enumerate(steps):
        if step.action == "keep":
            report("unchanged", step.describe())
            continue
        try:
            update.begin(step)
            step.do(host)
            update.end(step, host)
        except BaseException as error:
            ending = isinstance(error, SystemExit | KeyboardInterrupt)
            report("interrupted" if ending else "failed", step.describe())
            _roll_back(steps[: position + 1], host, update, report)
            if isinstance(error, ParagliderError | OSError):
                raise PlatformError(
                    f"step {position + 1} of {len(steps)} failed ({step.describe()}): {error}",
                    "everything done before it was rolled back",
                ) from error
            raise
        report("done", step.describe())
    update.close()


def undo(families: frozenset[int], host: Host, state: StateFile, report: Report) -> int:
    """Undo the set-up of ``families``; returns the number of steps.

    Every step is tried; raises ``PlatformError`` at the end when some failed. Failed steps stay in
    the state. Our chains and tables that are not in the state are removed too.
    """
    steps = undo_plan(_in(families, state.load()))
    failures = _revert_steps(steps, host, state, report)
    strays = _strays(families, host)
    for family in strays:
        host.netfilter.remove_ours(family)
        host.nft.remove(family, *table_names())
        report("done", f"stray rules for IPv{family} removed")
    _raise(failures)
    return len(steps) + len(strays)


def revert_steps(steps: list[Step], host: Host, state: StateFile, report: Report) -> None:
    """Apply ``steps``, which all revert a change.

    Every step is tried; raises ``PlatformError`` at the end when some failed. Failed steps stay in
    the state.
    """
    _raise(_revert_steps(steps, host, state, report))


def _revert_steps(steps: list[Step], host: Host, state: StateFile, report: Report) -> list[str]:
    update = _StateUpdate(state)
    failures = []
    for step in steps:
        try:
            step.do(host)
            update.end(step, host)
        except (ParagliderError, OSError) as error:
            report("failed", step.describe())
            failures.append(f"{step.describe()}: {error}")
        else:
            report("done", step.describe())
    update.close()
    return failures


def _raise(failures: list[str]) -> None:
    if failures:
        raise PlatformError("; ".join(failures), "fix the cause and run this again")


def repair(steps: Iterable[Step], host: Host, state: StateFile) -> list[tuple[Step, str]]:
    """Apply each of ``steps``, also after a failure; returns the failed steps with their errors."""
    update = _StateUpdate(state)
    failed = []
    for step in steps:
        try:
            update.begin(step)
            step.do(host)
            update.end(step, host)
        except (ParagliderError, OSError) as error:
            failed.append((step, str(error)))
    update.close()
    return failed


def script(steps: Iterable[Step], host: Host) -> str:
    """The steps as commands, for ``--dry-run``."""
    return "".join(step.script(host) for step in steps)


def undo_script(families: frozenset[int], host: Host, state: StateFile) -> str:
    """The steps of ``undo`` as commands."""
    changes = list(_in(families, state.load()))
    text = script(undo_plan(changes), host)
    known = {change.family for change in changes if isinstance(change, RulesChange)}
    for family in _strays(families - known, host):
        text += removal_script(family, host)
        for table in table_names():
            if host.nft.held(family, table):
                text += f"nft -f - <<'END'\n{removal_text(family, table)}END\n"
    return text


def steered(steps: Iterable[Step]) -> tuple[int, ...]:
    """The cores whose workers get packets after ``steps``."""
    rules = (s.change for s in steps if s.action != "revert" and isinstance(s.change, RulesChange))
    return cores_of("".join(change.text for change in rules))


def arrived(steps: Iterable[Step]) -> list[Place]:
    """The addresses that ``steps`` added, each with the interface that answers for it."""
    return [
        (step.change.interface, step.change.value.ip)
        if isinstance(step.change, AddressChange)
        else (step.change.interface, step.change.value.address)
        for step in steps
        if step.action == "apply" and isinstance(step.change, AddressChange | ProxyChange)
    ]


def unresolved(config: Config, families: frozenset[int], host: Host) -> list[str]:
    """The on-link backends whose hardware address the kernel cannot resolve within 2 s."""
    if config.network.private is None:
        return []
    interface = config.network.private.interface
    waiting = [a for family in sorted(families) for a in on_link_backends(config, family, host)]
    deadline = time.monotonic() + _RESOLVE_SECONDS
    while True:
        known: dict[IPAddress, Neighbour] = {}
        for family in {address.version for address in waiting}:
            known |= host.netlink.neighbours(interface, family)
        waiting = [a for a in waiting if (entry := known.get(a)) is None or not entry.resolved]
        if not waiting or time.monotonic() >= deadline:
            return [str(address) for address in waiting]
        time.sleep(_RESOLVE_PAUSE)


def foreign_sources(config: Config, families: frozenset[int], host: Host) -> list[str]:
    """The `snat` addresses that no interface of this host has: replies to them do not return."""
    here = {
        address.ip
        for interface in host.netlink.interfaces()
        for address in host.netlink.addresses(interface)
    }
    sources = (service.snat_address for service in config.for_families(families).services)
    return [str(a) for a in dict.fromkeys(sources) if a is not None and a not in here]


class _StateUpdate:
    """The state during a run: the stored changes, and those from before the run."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._before = {change.identity: change for change in state.load()}
        self._now = dict(self._before)

    def begin(self, step: Step) -> None:
        """Store the step's change before it is applied."""
        if step.action == "apply" and step.record is not None and is_stored(step.record):
            self._put(step.record)

    def end(self, step: Step, host: Host) -> None:
        """Store the result of the step."""
        if step.action == "revert":
            self._now.pop(step.change.identity, None)
            self._state.drop(step.change)
        elif isinstance(step.record, _SETTLING):
            self._put(step.record.settled(host))

    def rolled_back(self, step: Step) -> None:
        """Restore the step's record in the state to that of before the run."""
        if (change := self._before.get(step.change.identity)) is not None:
            self._put(change)
        elif self._now.pop(step.change.identity, None) is not None:
            self._state.drop(step.change)

    def close(self) -> None:
        """Write the state at the end of the run, in the order of the first set-up."""
        order = dict.fromkeys((*self._before, *self._now))
        self._state.store(self._now[identity] for identity in order if identity in self._now)

    def _put(self, change: Change) -> None:
        self._now[change.identity] = change
        self._state.note(change)


def _roll_back(steps: list[Step], host: Host, update: _StateUpdate, report: Report) -> None:
    for step in reversed(steps):
        if step.action == "keep":
            continue
        try:
            step.roll_back(host)
        except (ParagliderError, OSError) as error:
            # Continue with the other steps; this one stays in the state for --undo.
            report("failed", f"rolling back {step.describe()}: {error}")
        else:
            update.rolled_back(step)
            report("rolled back", step.describe())
    update.close()


def _in(families: frozenset[int], changes: Iterable[Change]) -> list[Change]:
    return [change for change in changes if change.family in families]


def _strays(families: frozenset[int], host: Host) -> list[int]:
    found = []
    for family in sorted(families):
        try:
            saved = host.netfilter.saved(family)
        except OperatorError:
            continue  # without iptables on the host there are no rules of ours either
        if our_tables(saved) or not host.nft.present(family).isdisjoint(table_names()):
            found.append(family)
    return found
