"""The files of ledgers (``core.ledger``): where they are, made, mapped, found again, removed.

Lives here: ``LedgerFiles``, the files of one worker, and the removal of those that are left over.
Rules: a file is in /run, which no boot outlives, and readable by root alone; its name has the
cookie of the network namespace, how packets are steered, the flow table and the worker's core.
Workers find each other's flows only in files of another steering, which they read and never
change. A file has one writer, which holds a lock on it as long as it lives. Files are sparse;
memory is asked for before it is written to, since a page that is missing then ends the process.
What a file holds never raises: a file that cannot be used is replaced, and the caller told why.
The parent of a worker holds the files that the worker writes open (``Held``): one that is removed
is read through its descriptor by the worker that follows.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from paraglider.config.model import Config
from paraglider.core.ledger import HEADER, Ledger, fault_of, renew, size_of, write_header
from paraglider.rules.steering import steered_by_client
from paraglider.system.owner import RUN_DIRECTORY, boot_id, netns_cookie

#: what ``Held.fault`` says of a file that is gone while the worker writes it
REMOVED = "its file was removed"

_MODE = 0o600
_PREFIX = "flows"
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of asm-generic/mman-common.h, Linux 5.14


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger; ``fault`` is why what was found in its place was not used, or None."""

    ledger: Ledger
    fault: str | None = None


class Held:
    """Descriptors of a worker's ledgers, by their tables, in its parent and whom that forks."""

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
        """What has become of the ledger of ``table`` since it is held; None where all is well."""
        handle = self._open.get(table)
        if handle is None:
            return "there is none"
        found = os.fstat(handle)
        if found.st_nlink == 0:
            return REMOVED
        head = os.pread(handle, HEADER, 0)
        return None if fault_of(head, _boot(), found.st_size) is None else "it was damaged"

    def removed(self, table: str) -> Ledger | None:
        """The ledger of ``table`` where its file was removed while it was held, to be read."""
        handle = self._open.get(table)
        if handle is None or os.fstat(handle).st_nlink:
            return None
        try:
            return _ledger_in(handle)
        except (ValueError, OSError):
            return None


@dataclass(frozen=True, slots=True)
class LedgerFiles:
    """The ledgers of the worker on ``core``, with ``records`` each.

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

    def open(self, table: str) -> Opened:
        """The ledger of ``table``, as it was left or a new one; root's, mapped until we end.

        Raises OSError where there can be none, or another process has it.
        """
        path = self.path(table)
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fault = None
        with suppress(FileNotFoundError), _locked(path, os.O_RDWR) as handle:
            try:
                memory = _mapped(handle, self.records)
            except ValueError as error:
                fault = str(error)
                path.unlink()
            else:
                return Opened(_ledger(memory))
        with _locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as handle:
            try:
                os.ftruncate(handle, size_of(self.records))
                memory = mmap.mmap(handle, 0)
                memory.madvise(_POPULATE_WRITE, 0, HEADER)
            except OSError:
                path.unlink()
                raise
        write_header(memoryview(memory), self.records, _boot())
        return Opened(_ledger(memory), fault)

    def others(self, table: str) -> Iterator[tuple[Path, Ledger | str]]:
        """The ledgers of ``table`` of another steering, to be read; or why one cannot be. That of
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
        """Remove the ledgers of another steering: all workers have taken theirs from them."""
        for path in _of(self.cookie, self.directory):
            if path.name.split("-")[2] != self.steering:
                path.unlink(missing_ok=True)


def files_for(config: Config, cores: tuple[int, ...]) -> list[LedgerFiles]:
    """The ledgers of the worker on each of ``cores``, in this network namespace."""
    cookie, steering = netns_cookie(), steering_of(config, cores)
    return [LedgerFiles(cookie, steering, core, config.flows.max) for core in cores]


def steering_of(config: Config, cores: tuple[int, ...]) -> str:
    """A short word that is alike where a flow reaches the same one of ``cores``."""
    by_client = [steered_by_client(config.for_families(frozenset({f})).services) for f in (4, 6)]
    return hashlib.blake2b(repr((cores, by_client)).encode(), digest_size=4).hexdigest()


def leftovers(directory: Path = RUN_DIRECTORY) -> list[Path]:
    """Every ledger of this network namespace."""
    return sorted(_of(netns_cookie(), directory))


def _of(cookie: int, directory: Path) -> Iterator[Path]:
    return directory.glob(f"{_PREFIX}-{cookie:x}-*-*-*")


def _boot() -> bytes:
    return UUID(boot_id()).bytes


def _read(path: Path) -> Ledger:
    """The ledger in a file, which stays as it is; raises ValueError or OSError without one."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _ledger_in(handle)
    finally:
        os.close(handle)


def _ledger_in(handle: int) -> Ledger:
    """The ledger in an open file, which stays as it is; raises ValueError or OSError without."""
    memory = memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_COPY))
    fault = fault_of(memory, _boot())
    if fault is not None:
        raise ValueError(fault)
    return Ledger(memory)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of ``path``, which no other process has: the lock lasts as mappings do."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)


def _mapped(handle: int, records: int) -> mmap.mmap:
    """The ledger in a file, with room for ``records`` at least; raises ValueError without one."""
    memory = mmap.mmap(handle, 0)
    fault = fault_of(memoryview(memory), _boot())
    if fault is not None:
        raise ValueError(fault)
    renew(memoryview(memory))
    if len(memory) < size_of(records):
        os.ftruncate(handle, size_of(records))
        memory = mmap.mmap(handle, 0)
        write_header(memoryview(memory), records, _boot())
    return memory


def _ledger(memory: mmap.mmap) -> Ledger:
    """The ledger in ``memory``, whose holes are given pages before they are written to."""

    def reserve(begin: int, end: int) -> bool:
        begin -= begin % mmap.PAGESIZE
        try:
            memory.madvise(_POPULATE_WRITE, begin, end - begin)
        except OSError:
            return False
        return True

    return Ledger(memoryview(memory), reserve)
