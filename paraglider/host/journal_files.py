"""The files of journals (``core.journal``): where they are, made, mapped, found again, removed.

Lives here: ``JournalFiles``, the files of one worker, and the removal of those that are left over.
Rules: a file is in /run, which no boot outlives, and readable by root alone; its name has the
cookie of the network namespace, how packets are steered, the flow table and the worker's core.
Workers find each other's flows only in files of another steering, which they read and never
change. A file has one writer, which holds a lock on it as long as it lives. Files are sparse;
memory is asked for before it is written to. A file that is cut or written over while its worker
has it ends nobody (``mapped``), and ``JournalFile`` begins it anew; others are read, not mapped.
What a file holds never raises: a file that cannot be used is replaced, and the caller told why.
The parent of a worker holds the files that the worker writes open (``Held``): one that is removed
is read through its descriptor by the worker that follows.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
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

#: what ``Held.fault`` says of a file that is gone while the worker writes it
REMOVED = "its file was removed"

_MODE = 0o600
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
    def torn(self) -> bool:
        """Whether a page was found missing: the file is not what the journal says."""
        return self._mapped.lost

    @property
    def damaged(self) -> bool:
        """Whether who follows could not read it; costs a system call."""
        if self.torn or self._mapped.cut:
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
        """Hold what is at ``paths`` by table now, as far as there is anything, and nothing else."""
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
        """What has become of the journal of ``table`` since it is held; None where all is well."""
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
        """The journal of ``table``, as it was left or a new one; root's, mapped until we end.

        Raises OSError where there can be none, or another process has it.
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
            _, _, steering, its_table, _ = path.name.split("-")
            if steering != self.steering and its_table == table:
                try:
                    yield path, _read(path)
                except (ValueError, OSError) as error:
                    yield path, str(error)

    def remove_others(self) -> None:
        """Remove the journals of another steering: all workers have taken theirs from them."""
        for path in _of(self.cookie, self.directory):
            if path.name.split("-")[2] != self.steering:
                path.unlink(missing_ok=True)


def files_for(config: Config, cores: tuple[int, ...]) -> list[JournalFiles]:
    """The journals of the worker on each of ``cores``, in this network namespace."""
    cookie, steering = netns_cookie(), steering_of(config, cores)
    return [JournalFiles(cookie, steering, core, config.flows.max) for core in cores]


def steering_of(config: Config, cores: tuple[int, ...]) -> str:
    """A short word that is alike where a flow reaches the same one of ``cores``."""
    by_client = [steered_by_client(config.for_families(frozenset({f})).services) for f in (4, 6)]
    return hashlib.blake2b(repr((cores, by_client)).encode(), digest_size=4).hexdigest()


def leftovers(directory: Path = RUN_DIRECTORY) -> list[Path]:
    """Every journal of this network namespace."""
    return sorted(_of(netns_cookie(), directory))


def _of(cookie: int, directory: Path) -> Iterator[Path]:
    return directory.glob(f"{_PREFIX}-{cookie:x}-*-*-*")


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
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)


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
