"""DNS answers over a restart: applied answers of configured names."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.messages import DnsName, DnsUpdate
from paraglider.host.dns_cache import DnsCacheFile
from paraglider.host.dns_records import Record

A, B = DnsName("_a._tcp.example", "", 4), DnsName("_b._tcp.example", "127.0.0.1:8600", 6)


def answer(name: DnsName, *ends: int, ttl: float = 30.0) -> DnsUpdate:
    """Backends of ``name`` by the ends of their addresses."""
    network = ipaddress.ip_address("10.0.0.0" if name.family == 4 else "fd00::")
    records = tuple(Record(network + end, 80, 1) for end in ends)
    return DnsUpdate(name=name, records=records, ttl=ttl)


#: ``answer(B, 1)`` as every version has it in the file
STORED = {
    "do": "answer",
    "name": {"name": "_b._tcp.example", "server": "127.0.0.1:8600", "family": 6},
    "records": [["fd00::1", 80, 1]],
    "ttl": 30.0,
}


class Counting(DnsCacheFile):
    """A file that counts its changes, and can be made to refuse them."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 1)
        self.times = 0
        self.refuses = False

    def store(self, answers: Any) -> None:
        """See ``DnsCacheFile``."""
        self.times += 1
        if self.refuses:
            raise OSError(28, "No space left on device")
        super().store(answers)


def no_warning(event: str, **facts: Any) -> None:
    """All writes succeed."""
    raise AssertionError(event)


@pytest.fixture
def file(tmp_path: Path) -> Counting:
    """No answer was ever kept."""
    return Counting(tmp_path)


def test_the_next_daemon_has_them(file: Counting) -> None:
    """The last ones; an equal answer is not written again."""
    first = DnsCache(file, no_warning)
    assert first.get(A) is None
    first.add(answer(A, 1, 2))
    first.add(answer(A, 1, 2, ttl=5.0))
    first.add(answer(B, 3))
    first.add(answer(A, 2))
    assert file.times == 3
    second = DnsCache(file)
    assert second.get(A) == answer(A, 2)
    assert second.get(B) == answer(B, 3)


def test_unused_names_are_removed(file: Counting) -> None:
    """From the file too; without a removed name nothing is written."""
    kept = DnsCache(file, no_warning)
    kept.add(answer(A, 1))
    kept.add(answer(B, 1))
    kept.keep_only([A, B])
    assert file.times == 2
    kept.keep_only([B])
    assert kept.get(A) is None
    assert DnsCache(file).get(A) is None
    kept.keep_only([])
    assert not file.path.exists()


def test_reading_the_cache_writes_nothing(file: Counting) -> None:
    """The set-up only reads the cache; without a file nothing is written."""
    for kept in (DnsCache(file), DnsCache()):
        kept.add(answer(A, 1))
        kept.keep_only([])
    assert file.times == 0


def test_what_is_no_answer_is_passed_over(file: Counting) -> None:
    """Invalid content of the file is skipped."""
    failed = {"do": "failed", "name": A._asdict(), "why": "no"}
    file.store([{"do": "answer"}, failed, {}, STORED])
    kept = DnsCache(file)
    assert kept.get(A) is None
    assert kept.get(B) == answer(B, 1)


def test_a_file_that_cannot_be_written_is_reported_once(file: Counting) -> None:
    """The answers stay in memory."""
    lines: list[dict[str, Any]] = []
    kept = DnsCache(file, lambda event, **facts: lines.append({"event": event, **facts}))
    file.refuses = True
    kept.add(answer(A, 1))
    kept.add(answer(B, 1))
    assert [(line["file"], line["why"]) for line in lines] == [
        (str(file.path), "No space left on device")
    ]
    assert kept.get(B) == answer(B, 1)


def test_the_form_of_the_file(file: Counting) -> None:
    """Other versions read it."""
    DnsCache(file, no_warning).add(answer(B, 1))
    assert file.load() == [STORED]
