"""Steps of a plan: to make a change of the host, to take it back, or to leave it as it is.

Lives here: ``Step``; what all plans have in common: ``undo_plan``, ``sysctl_step``, ``table_step``,
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
    """Something to do with a change: make it, take it back, or leave it as it is.

    ``record`` is what the state holds of it afterwards, None for nothing; it differs from the
    change where an earlier set-up knows what was there before.
    """

    action: Action
    change: Change
    record: Change | None = None

    def describe(self) -> str:
        """What the step does, on one line."""
        return self.change.describe(self.action)

    def script(self, host: Host) -> str:
        """The commands that the step amounts to; none where nothing is to be done."""
        if self.action == "keep":
            return ""
        if self.action == "revert":
            return self.change.revert_script(host)
        return self.change.script(host)

    def do(self, host: Host) -> None:
        """Carry the step out; raises ``PlatformError``."""
        if self.action == "apply":
            self.change.apply(host)
        elif self.action == "revert":
            self.change.revert(host)

    def roll_back(self, host: Host) -> None:
        """The opposite of ``do``, also after half of it; raises ``PlatformError``."""
        if self.action == "apply":
            self.change.revert(host)
        elif self.action == "revert":
            self.change.apply(host)


def undo_plan(changes: Iterable[Change]) -> list[Step]:
    """The steps that take ``changes`` back, the last one first."""
    return [Step("revert", change) for change in reversed(list(changes))]


def sysctl_step(
    family: int, key: str, value: str, host: Host, records: Records, *, optional: bool = False
) -> Iterator[Step]:
    """The step that gives ``key`` its ``value``; none where the kernel has no such parameter, nor,
    where it is ``optional``, where it cannot be written.
    """
    now = host.sysctl.read(key)
    if now is None or (optional and now != value and not host.sysctl.writable(key)):
        return
    change = SysctlChange(family, key, now, value)
    old = records.get(change.identity)
    if now == value:
        yield Step("keep", old or change, old)
        return
    # What neither we nor an earlier run's beginning left there is somebody's since.
    ours = isinstance(old, SysctlChange) and now in (old.before, old.after)
    before = old.before if ours and isinstance(old, SysctlChange) else now
    yield Step("apply", change, replace(change, before=before))


def table_step(change: ReplacedTable, host: Host, records: Records) -> Step:
    """The step that leads to ``change``: none to speak of where all is so already."""
    old = records.get(change.identity)
    if not isinstance(old, ReplacedTable):
        return Step("apply", change, change)
    if old.text == change.text and old.saved == change.settled(host).saved:
        kept = replace(change, saved=old.saved)
        return Step("keep", kept, kept)
    change = replace(change, previous=old.text)
    return Step("apply", change, change)


def refuse_read_only(steps: Iterable[Step], host: Host) -> None:
    """Raise ``PlatformError`` with every parameter that ``steps`` are to set and that cannot be
    written here, as in a container whose /proc/sys is read-only.
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
