"""Compares the host with its set-up, and restores what is missing.

    filter   our chains and tables, compared with the records of the last set-up. Runs iptables-save
             and nft, which are slow on hosts with many rules
    foreign  forward chains of other firewalls that drop balanced packets: reported, not changed
    links    sysctls, addresses, neighbours, routes, policy rules and proxy entries, compared with a
             plan of the desired state (``wanted``), so that objects that existed before the set-up
             are restored too. Uses netlink and /proc only

Lives here: ``Reconciler``, ``MissingObject`` (one missing object), ``RepairResult`` (of one run).
Rules: level-triggered: a run does not depend on the one before it, and an object that could not be
restored is found again by the next run. Nothing is removed here, and nothing is done after an undo
or during a set-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from paraglider.config.model import Config
from paraglider.errors import OperatorError, ParagliderError
from paraglider.host import apply
from paraglider.host.changes.base import Change, Host
from paraglider.host.changes.legacy import LegacyChange
from paraglider.host.changes.replaced_table import ReplacedTable
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.table import TableChange, set_up
from paraglider.host.foreign import Blocked, blocked
from paraglider.host.link_state import LinkState, link_state
from paraglider.host.plan_filter import legacy_steps
from paraglider.host.plan_links import link_steps
from paraglider.host.state import StateFile, setup_lock
from paraglider.host.step import Records, Step
from paraglider.host.wanted import Wanted, WantedFile

Part = Literal["foreign", "filter", "links"]
PARTS: Final[tuple[Part, ...]] = ("foreign", "filter", "links")

#: kinds of changes without which clients are still served
_MINOR: Final = frozenset({"sysctl", "optional_table", "neighbour", "directory"})


class SetupRunningError(OperatorError):
    """A set-up is changing the host; try again when it has ended."""


@dataclass(frozen=True, slots=True)
class MissingObject:
    """A missing object: its name, whether clients depend on it (``vital``), and the step that
    restores it, None if only the operator can (an interface is down), by ``remedy``. ``new`` is
    true for an object that never existed: an interface that was added.
    """

    name: str
    vital: bool
    step: Step | None = None
    remedy: str = ""
    new: bool = False


@dataclass(frozen=True, slots=True)
class RepairResult:
    """The ``missing`` and ``restored`` objects, the errors of ``failed`` ones by name, and the
    families whose table of offloaded flows was recreated.
    """

    missing: tuple[MissingObject, ...]
    restored: tuple[MissingObject, ...]
    failed: dict[str, str]
    recreated: tuple[int, ...]


Choose = Callable[[tuple[MissingObject, ...]], Iterable[MissingObject]]
"""Gets the missing objects; returns those to restore now."""


class Reconciler:
    """The host of one network namespace, with its desired state (``wanted``) and ``state``."""

    def __init__(
        self,
        host: Host | None = None,
        wanted: WantedFile | None = None,
        *,
        state: Callable[..., StateFile] = StateFile,
        interface: Callable[[str], LinkState] = link_state,
        foreign: Callable[[Config], list[Blocked]] = blocked,
    ) -> None:
        self._host = host or Host()
        self._file = wanted or WantedFile()
        self._state = state
        self._interface = interface
        self._foreign = foreign
        self._seen: set[tuple[str, ...]] = set()  # identities that an earlier run found
        self._wanted: tuple[object, list[Wanted]] = (None, [])

    def families(self) -> frozenset[int]:
        """The families that are set up; raises ``OperatorError``."""
        return frozenset(one.family for one in self._load())

    def config(self) -> Config | None:
        """The configuration of the last set-up, over all families; None without a set-up.

        Raises ``OperatorError``.
        """
        every = self._load()
        if not every:
            return None
        services = tuple(s for one in every for s in one.config.services if s.family == one.family)
        return every[0].config.model_copy(update={"services": services})

    def reconcile(self, part: Part, choose: Choose = tuple) -> RepairResult:
        """Compare ``part`` with the host and restore what is missing.

        ``choose`` gets all missing objects and returns those to restore now. Raises
        ``SetupRunningError``, and ``ParagliderError`` when the host cannot be read.
        """
        if part == "foreign":
            return RepairResult(tuple(self._blocked()), (), {}, ())
        try:
            if not tuple(self._missing(part)):
                return RepairResult((), (), {}, ())
        except ParagliderError:
            pass  # a running set-up may be the reason; if not, it is raised again below
        # Something is missing, or a set-up is running, or has just been undone.
        with self._locked():
            missing = tuple(self._missing(part))
            chosen = [a for a in (choose(missing) if missing else ()) if a.step is not None]
            names = {id(a.step): a.name for a in chosen}
            steps = [a.step for a in chosen if a.step is not None]
            failed = apply.repair(steps, self._host, self._state_file()) if steps else []
        why = {names[id(step)]: said for step, said in failed}
        back = tuple(a for a in chosen if a.name not in why)
        tables = (a.step.change for a in back if a.step is not None)
        recreated = {change.family for change in tables if isinstance(change, TableChange)}
        return RepairResult(missing, back, why, tuple(sorted(recreated)))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(setup_lock())
            except OperatorError as error:
                raise SetupRunningError(error.what, error.remedy) from error
            yield

    def _state_file(self) -> StateFile:
        wanted = self._load()
        return self._state(owner=wanted[0].owner) if wanted else self._state()

    def _load(self) -> list[Wanted]:
        """The desired state; the file is read again when it was replaced."""
        try:
            found = self._file.path.stat()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OperatorError(
                f"{self._file.path} cannot be read: {error.strerror}", "see who may enter /run"
            ) from error
        sign = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._wanted[0] != sign:
            self._wanted = (sign, self._file.load())
        return self._wanted[1]

    def _missing(self, part: Part) -> Iterator[MissingObject]:
        families = self.families()
        if not families:
            return
        records = {change.identity: change for change in self._state_file().load()}
        if part == "filter":
            for change in records.values():
                if change.family in families and not _unchanged(change, self._host):
                    name = change.describe("keep").partition(": ")[0]  # without the number of rules
                    yield _missing_object(Step("apply", change, change), name)
            for wanted in self._load():
                # iptables-legacy may have come into use since the set-up.
                scope = wanted.config.for_families(frozenset({wanted.family}))
                for step in legacy_steps(scope, wanted.family, wanted.cores, self._host, records):
                    if step.action == "apply" and step.change.identity not in records:
                        yield _missing_object(step, step.change.describe("keep"))
            return
        links = self._interfaces()
        for name, state in links.items():
            if state != "up":
                remedy = _LINK_REMEDIES[state].format(name)
                yield MissingObject(f"interface {name}", vital=True, remedy=remedy)
        down = {name for name, state in links.items() if state != "up"}
        for wanted in self._load():
            yield from self._links(wanted, records, down)

    def _blocked(self) -> Iterator[MissingObject]:
        config = self.config()
        for found in self._foreign(config) if config is not None else ():
            yield MissingObject(f"chain {found.chain}", vital=False, remedy=str(found))

    def _interfaces(self) -> dict[str, LinkState]:
        """The interfaces of the configuration, and their states."""
        networks = [one.config.network for one in self._load()]
        sides = [side for network in networks for side in (network.public, network.private)]
        names = dict.fromkeys(side.interface for side in sides if side is not None)
        return {name: self._interface(name) for name in names}

    def _links(self, wanted: Wanted, records: Records, down: set[str]) -> Iterator[MissingObject]:
        family = wanted.family
        scope = wanted.config.for_families(frozenset({family}))
        for step in link_steps(scope, family, self._host, records):
            identity = step.change.identity
            if step.action != "apply":
                self._seen.add(identity)
                continue
            new = identity not in self._seen and identity not in records
            if getattr(step.change, "interface", None) not in down:
                yield _missing_object(step, step.change.describe("keep"), new=new)


_LINK_REMEDIES: Final[dict[LinkState, str]] = {
    "gone": "it is gone; its addresses and routes are restored when it is back",
    "down": "it is down; ip link set {0} up",
    "no carrier": "it has no carrier; see to the cable, or to the other end",
}


def _missing_object(step: Step, name: str, *, new: bool = False) -> MissingObject:
    return MissingObject(name, vital=step.change.kind not in _MINOR, step=step, new=new)


def _unchanged(change: Change, host: Host) -> bool:
    """Whether our part of the packet filter is unchanged since the set-up."""
    if isinstance(change, RulesChange | LegacyChange | ReplacedTable):
        return change.settled(host).saved == change.saved
    if isinstance(change, TableChange):
        return set_up(change.settled(host).saved) == set_up(change.saved)
    return True
