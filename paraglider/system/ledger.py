"""The files of ledgers (``core.ledger``): where they are, made, mapped, found again, removed.

Lives here: ``LedgerFiles``, the files of one worker, and the removal of those that are left over.
Rules: a file is in /run, which no boot outlives, and readable by root alone; its name has the
cookie of the network namespace, how packets are steered, the flow table and the worker's core.
Workers find each other's flows only in files of another steering, which they read and never
change. A file has one writer, which holds a lock on it as long as it lives. Files are sparse;
memory is asked for before it is written to, since a page that is missing then ends the process.
What a file holds never raises: a file that cannot be used is replaced, and the caller told why.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from paraglider.config.model import Config
from paraglider.core.ledger import HEADER, Ledger, fault_of, size_of, write_header
from paraglider.rules.steering import steered_by_client
from paraglider.system.owner import RUN_DIRECTORY, boot_id, netns_cookie

_MODE = 0o600
_PREFIX = "flows"
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of asm-generic/mman-common.h, Linux 5.14


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger; ``fault`` is why what was found in its place was not used, or None."""

    ledger: Ledger
    fault: str | None = None


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
        """The ledgers of ``table`` of another steering, to be read; or why one cannot be."""
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
        memory = memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(handle)
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
