"""The recorded result of the self-check: what it counts for, and what is no record."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.host import carrier_record
from paraglider.host.carrier_record import Outcome, store, stored
from paraglider.host.carrier_support import EARLY_PROGRAM, PROGRAM

_IMAGE = b"an object file"
_FOUND = Outcome(0, "", "the source of a route is not given")


@pytest.fixture
def records(tmp_path: Path) -> dict[str, Path]:
    """A file for each function, not yet made."""
    return {PROGRAM: tmp_path / "tc", EARLY_PROGRAM: tmp_path / "xdp"}


@pytest.mark.parametrize(
    "found",
    [Outcome(0, "", ""), _FOUND, Outcome(0, "does not carry a packet", ""), Outcome(0, "a", "b")],
)
def test_what_is_stored_is_read(records: dict[str, Path], found: Outcome) -> None:
    """Both reasons, each of which may be empty."""
    store(_IMAGE, PROGRAM, records, found)
    assert stored(_IMAGE, PROGRAM, records) == found


def test_a_record_counts_for_its_own(
    records: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for another function, object file or version of Paraglider."""
    assert stored(_IMAGE, PROGRAM, records) is None
    store(_IMAGE, PROGRAM, records, _FOUND)
    assert stored(_IMAGE, EARLY_PROGRAM, records) is None
    records[EARLY_PROGRAM].write_bytes(records[PROGRAM].read_bytes())
    assert stored(_IMAGE, EARLY_PROGRAM, records) is None
    assert stored(_IMAGE + b"2", PROGRAM, records) is None
    monkeypatch.setattr(carrier_record, "__version__", "another")
    assert stored(_IMAGE, PROGRAM, records) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b"0 0 \n", b"\x80" * 5000])
def test_what_is_no_record_is_none(records: dict[str, Path], content: bytes) -> None:
    """A file that another wrote, or that a crash of the machine left empty."""
    records[PROGRAM].write_bytes(content)
    assert stored(_IMAGE, PROGRAM, records) is None


def test_an_undecodable_rest_is_read(records: dict[str, Path]) -> None:
    """The sign is right, a byte of the reason is damaged: the reason is shown with a mark."""
    store(_IMAGE, PROGRAM, records, Outcome(0, "does X", ""))
    path = records[PROGRAM]
    path.write_bytes(path.read_bytes().replace(b"X", b"\xff"))
    assert stored(_IMAGE, PROGRAM, records) == Outcome(0, "does \N{REPLACEMENT CHARACTER}", "")
