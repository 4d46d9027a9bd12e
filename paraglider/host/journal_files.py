"""The files of journals (``core.journal``): location, creation, mapping and removal.

Lives here: ``JournalFiles``, the files of one worker, and the removal of leftover files.
Rules: a file is in /run, which is emptied at boot, and readable by root only; its name has the
cookie of the network namespace, the kind of steering, the flow table and the worker's core. Workers
find each other's flows only in files of another steering, which they read and never change. A file
has one writer, which holds a lock on it. Files are sparse; memory is reserved before it is written.
If a file is truncated or overwritten while its worker uses it, the worker survives (``mapped``),
and ``JournalFile`` starts the file anew; files of others are read, not mapped. No content of a file
raises: an unusable file is replaced, and the caller gets the reason. The parent of a worker keeps
the worker's files open (``Held``): a removed file is read through its descriptor by the worker's
successor.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from paraglider.config.model import Config
from paraglider.core.journal import (
    HEADER,
    Journal,
    fault_of,
    records_of,
    renew,
    size_of,
    write_header,
)
from paraglider.host.mapped import Mapped
from paraglider.host.ownership import RUN_DIRECTORY, boot_id, netns_cookie
from paraglider.netfilter.rules.steering import steered_by_client

#: ``Held.fault`` of a file that was removed while the worker writes it
REMOVED = "its file was removed"

_MODE = 0o600
_TRIES = 5  # to get a lock, with a pause of _PAUSE seconds after each
_PAUSE = 0.01
_PREFIX = "flows"
_AT_ONCE = 1 << 22  # bytes read at a time


class JournalFile:
    """The file of a journal, which this process writes; ``fault`` is why the file that was found in
    its place was not used, or None.
    """

    def __init__(self, mapped: Mapped, records: int, fault: str | None = None) -> None:
        self.fault = fault
        self._mapped = mapped
        self._records = records
        self._boot = _boot()  # here, since the worker will be locked in
        self._head = memoryview(mapped.memory)[:HEADER]
        self.journal = Journal(memoryview(mapped.memory), mapped.reserve)

    @property
    def incomplete(self) -> bool:
        """Whether a page was missing: the file is incomplete."""
        return self._mapped.lost

    @property
    def damaged(self) -> bool:
        """Whether a successor could not read the file; costs a system call."""
        if self.incomplete or self._mapped.cut:
            return True
        return fault_of(self._head, self._boot, self._mapped.size) is not None

    def reset(self) -> None:
        """Have an empty journal that is not complete; raises OSError where /run has no room."""
        self._mapped.restore()
        write_header(self._head, self._records, self._boot)
        self.journal.reset()


class Held:
    """Descriptors of a worker's journals, by their tables, in its parent and whom that forks."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def renew(self, paths: Mapping[str, Path]) -> None:
        """Hold the existing files of ``paths`` (by table), and no others."""
        before, self._open = self._open, {}
        for table, path in paths.items():
            with suppress(OSError):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._open[table] = os.open(path, flags)
        for handle in before.values():
            os.close(handle)

    def close(self) -> None:
        """Let them go, in a process that they do not concern."""
        self.renew({})

    def fault(self, table: str) -> str | None:
        """What happened to the journal of ``table`` since it is held; None if it is intact."""
        handle = self._open.get(table)
        if handle is None:
            return "there is none"
        found = os.fstat(handle)
        if found.st_nlink == 0:
            return REMOVED
        head = os.pread(handle, HEADER, 0)
        return None if fault_of(head, _boot(), found.st_size) is None else "it was damaged"

    def removed(self, table: str) -> Journal | None:
        """The journal of ``table`` where its file was removed while it was held, to be read."""
        handle = self._open.get(table)
        if handle is None or os.fstat(handle).st_nlink:
            return None
        try:
            return _journal_in(handle)
        except (ValueError, OSError):
            return None


@dataclass(frozen=True, slots=True)
class JournalFiles:
    """The journals of the worker on ``core``, with ``records`` each.

    ``steering`` is alike where every flow reaches the same core (``steering_of``).
    """

    cookie: int
    steering: str
    core: int
    records: int
    directory: Path = RUN_DIRECTORY
    held: Held = field(default_factory=Held, compare=False, repr=False)

    def path(self, table: str) -> Path:
        """The file of the flow table called ``table``."""
        name = f"{_PREFIX}-{self.cookie:x}-{self.steering}-{table}-{self.core}"
        return self.directory / name

    def open(self, table: str) -> JournalFile:
        """The journal of ``table``: an existing one or a new one; owned by root, and mapped until
        this process ends.

        Raises OSError if it cannot be created, or another process has it.
        """
        path = self.path(table)
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fault = None
        with suppress(FileNotFoundError), _locked(path, os.O_RDWR) as handle:
            try:
                return _mapped(handle, self.records)
            except ValueError as error:
                fault = str(error)
                path.unlink()
        with _locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as handle:
            try:
                os.ftruncate(handle, size_of(self.records))
                mapped = Mapped(handle)
                mapped.restore()
            except OSError:
                path.unlink()
                raise
        write_header(memoryview(mapped.memory), self.records, _boot())
        return JournalFile(mapped, self.records, fault)

    def others(self, table: str) -> Iterator[tuple[Path, Journal | str]]:
        """The journals of ``table`` of another steering, to be read; or why one cannot be. That of
        the worker before us is among them where its file was removed under its hands.
        """
        removed = self.held.removed(table)
        if removed is not None:
            yield self.path(table), removed
        for path in _of(self.cookie, self.directory):
            its_table = path.name.split("-")[3]
            if _steering(path) != self.steering and its_table == table:
                try:
                    yield path, _read(path)
                except (ValueError, OSError) as error:
                    yield path, str(error)

    def readable(self, table: str, warn: Callable[..., object]) -> Iterator[Journal]:
        """Those of ``others`` that can be read; ``warn`` gets ``file`` and ``why`` of the rest."""
        for path, found in self.others(table):
            if isinstance(found, Journal):
                yield found
            else:
                warn(file=str(path), why=found)

    def remove_others(self) -> None:
        """Remove the journals of another steering: all workers have taken theirs from them. Those
        in use are another daemon's, for the other family or on other cores.
        """
        for path in _of(self.cookie, self.directory):
            if _steering(path) != self.steering and not _in_use(path):
                path.unlink(missing_ok=True)


def files_for(config: Config, cores: tuple[int, ...]) -> list[JournalFiles]:
    """The journals of the worker on each of ``cores``, in this network namespace."""
    cookie, steering = netns_cookie(), steering_of(config, cores)
    return [JournalFiles(cookie, steering, core, config.flows.max) for core in cores]


def steering_of(config: Config, cores: tuple[int, ...]) -> str:
    """A short word that is alike where a flow reaches the same one of ``cores``."""
    by_client = [steered_by_client(config.for_families(frozenset({f})).services) for f in (4, 6)]
    how: tuple[object, ...] = (cores, by_client)
    if config.seed is not None:
        # Names are public: 16 bits tell a change, and do not give the seed away.
        seed = b"paraglider journals %d" % config.seed
        how = (*how, hashlib.blake2b(seed, digest_size=2).hexdigest())
    return hashlib.blake2b(repr(how).encode(), digest_size=4).hexdigest()


def resteered(config: Config, cores: tuple[int, ...], directory: Path = RUN_DIRECTORY) -> bool:
    """Whether there are journals of a steering other than that of ``config`` and ``cores``, in this
    network namespace: flows may be steered to other workers than those that had them. Those in use
    are another daemon's.
    """
    here = steering_of(config, cores)
    found = _of(netns_cookie(), directory)
    return any(_steering(path) != here and not _in_use(path) for path in found)


def leftovers(directory: Path = RUN_DIRECTORY) -> list[Path]:
    """Every journal of this network namespace."""
    return sorted(_of(netns_cookie(), directory))


def _of(cookie: int, directory: Path) -> Iterator[Path]:
    return directory.glob(f"{_PREFIX}-{cookie:x}-*-*-*")


def _steering(path: Path) -> str:
    """The kind of steering in the name of a journal."""
    return path.name.split("-")[2]


def _boot() -> bytes:
    return UUID(boot_id()).bytes


def _read(path: Path) -> Journal:
    """The journal in a file, which stays as it is; raises ValueError or OSError without one."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _journal_in(handle)
    finally:
        os.close(handle)


def _journal_in(handle: int) -> Journal:
    """The journal in an open file, which stays as it is; raises ValueError or OSError without."""
    content = bytearray()
    while more := os.pread(handle, _AT_ONCE, len(content)):
        content += more
    fault = fault_of(content, _boot())
    if fault is not None:
        raise ValueError(fault)
    return Journal(content)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of ``path``, which no other process has: the lock lasts as mappings do."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        for left in reversed(range(_TRIES)):  # another process may be asking ``_in_use``
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(_PAUSE)
        yield handle
    finally:
        os.close(handle)


def _in_use(path: Path) -> bool:
    """Whether a process holds the lock of the journal at ``path``."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _mapped(handle: int, records: int) -> JournalFile:
    """The journal in a file, with room for ``records`` at least; raises ValueError without one."""
    size = os.fstat(handle).st_size
    fault = fault_of(os.pread(handle, HEADER, 0), _boot(), size)
    if fault is not None:
        raise ValueError(fault)
    if size < size_of(records):
        os.ftruncate(handle, size_of(records))
    mapped = Mapped(handle)
    memory = memoryview(mapped.memory)
    renew(memory)
    if size < size_of(records):
        write_header(memory, records, _boot())
    return JournalFile(mapped, records_of(memory))
