"""Steps of a plan: apply, revert or keep a change of the host.

Lives here: ``Step``; shared by all plans: ``undo_plan``, ``sysctl_step``, ``table_step``,
``refuse_read_only``.
Rules: planning only reads; ``do`` and ``roll_back`` change the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from paraglider.errors import PlatformError
from paraglider.host.changes.base import Action, Change, Host
from paraglider.host.changes.replaced_table import ReplacedTable
from paraglider.host.changes.sysctls import ForwardingChange, SysctlChange
from paraglider.host.sysctl import dotted

Records = dict[tuple[str, ...], Change]
"""What an earlier set-up changed, by identity."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change and what to do with it: apply, revert or keep it.

    ``record`` is the change as stored in the state afterwards, None if it is not stored. It differs
    from the change if an earlier set-up stored the original value.
    """

    action: Action
    change: Change
    record: Change | None = None

    def describe(self) -> str:
        """The effect of the step, on one line."""
        return self.change.describe(self.action)

    def script(self, host: Host) -> str:
        """The equivalent shell commands; empty if there is nothing to do."""
        if self.action == "keep":
            return ""
        if self.action == "revert":
            return self.change.revert_script(host)
        return self.change.script(host)

    def do(self, host: Host) -> None:
        """Execute the step; raises ``PlatformError``."""
        if self.action == "apply":
            self.change.apply(host)
        elif self.action == "revert":
            self.change.revert(host)

    def roll_back(self, host: Host) -> None:
        """Reverse ``do``, also an incomplete one; raises ``PlatformError``."""
        if self.action == "apply":
            self.change.revert(host)
        elif self.action == "revert":
            self.change.apply(host)


def undo_plan(changes: Iterable[Change]) -> list[Step]:
    """The steps that revert ``changes``, the last one first."""
    return [Step("revert", change) for change in reversed(list(changes))]


def sysctl_step(
    family: int, key: str, value: str, host: Host, records: Records, *, optional: bool = False
) -> Iterator[Step]:
    """The step that sets ``key`` to ``value``; empty if the kernel has no such parameter, or if it
    is ``optional`` and cannot be written.
    """
    now = host.sysctl.read(key)
    if now is None or (optional and now != value and not host.sysctl.writable(key)):
        return
    change = SysctlChange(family, key, now, value)
    old = records.get(change.identity)
    if now == value:
        yield Step("keep", old or change, old)
        return
    # A value that is neither ours nor the original one was set by another program.
    ours = isinstance(old, SysctlChange) and now in (old.before, old.after)
    before = old.before if ours and isinstance(old, SysctlChange) else now
    yield Step("apply", change, replace(change, before=before))


def table_step(change: ReplacedTable, host: Host, records: Records) -> Step:
    """The step for ``change``; it does nothing if the table is already as wanted."""
    old = records.get(change.identity)
    if not isinstance(old, ReplacedTable):
        return Step("apply", change, change)
    if old.text == change.text and old.saved == change.settled(host).saved:
        kept = replace(change, saved=old.saved)
        return Step("keep", kept, kept)
    change = replace(change, previous=old.text)
    return Step("apply", change, change)


def refuse_read_only(steps: Iterable[Step], host: Host) -> None:
    """Raise ``PlatformError`` with every parameter of ``steps`` that cannot be written, for example
    in a container with a read-only /proc/sys.
    """
    wanted: dict[str, str] = {}
    for step in steps:
        if step.action == "apply" and isinstance(step.change, SysctlChange | ForwardingChange):
            wanted[step.change.key] = step.change.after
    fixed = [key for key in wanted if not host.sysctl.writable(key)]
    if fixed:
        shown = ", ".join(f"{dotted(k)} is {host.sysctl.read(k)}, not {wanted[k]}" for k in fixed)
        options = " ".join(f"--sysctl {dotted(key)}={wanted[key]}" for key in fixed)
        raise PlatformError(
            "kernel parameters are not as balancing needs them, and /proc/sys is read-only:"
            f" {shown}",
            f"set them from outside, in a container by: docker run {options}",
        )
