"""Tests of ``paraglider.health.certificate``: certificates of openssl, and anything else."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paraglider.health.certificate import ends, warning

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


def made(folder: Path, *arguments: str) -> bytes:
    """A certificate of openssl."""
    key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / "key")]
    command = ["openssl", "req", "-x509", "-newkey", *key, "-subj", "/CN=a", *arguments]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return ssl.PEM_cert_to_DER_cert(done.stdout)


@pytest.mark.parametrize("days", [3, 9000, 30000])
def test_the_end_of_a_certificate(tmp_path: Path, days: int) -> None:
    """The end is that which openssl was asked for, before 2050 and after, where the format of time
    is another.
    """
    left = ends(made(tmp_path, "-days", str(days))) - datetime.now(UTC)
    assert timedelta(days) - timedelta(minutes=5) < left <= timedelta(days)


def validity(time: bytes, tag: int) -> bytes:
    """As much of a certificate as is read, without a version; ``time`` is its end."""

    def element(tag: int, body: bytes) -> bytes:
        return bytes((tag, len(body))) + body

    period = element(0x30, element(0x17, b"500101000000Z") + element(tag, time))
    parts = element(0x02, b"\1") + element(0x30, b"") + element(0x30, b"")
    return element(0x30, element(0x30, parts + period))


@pytest.mark.parametrize(
    ("time", "tag", "end"),
    [
        (b"491231235959Z", 0x17, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"500101000000Z", 0x17, datetime(1950, 1, 1, tzinfo=UTC)),
        (b"99991231235959Z", 0x18, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times(time: bytes, tag: int, end: datetime) -> None:
    """Two digits of a year are of 1950 to 2049 (RFC 5280, §4.1.2.5.1)."""
    assert ends(validity(time, tag)) == end


@pytest.mark.parametrize(
    ("time", "tag"), [(b"491331235959Z", 0x17), (b"", 0x17), (b"4912312359Z", 0x17), (b"9", 0x04)]
)
def test_no_times(time: bytes, tag: int) -> None:
    """A month, a length or a type that there is not."""
    with pytest.raises(ValueError, match="."):
        ends(validity(time, tag))


@pytest.mark.parametrize(
    ("time", "days", "line"),
    [
        (b"300615120000Z", 14, "certificate expires on 2030-06-15"),
        (b"300615120001Z", 14, ""),
        (b"300601120000Z", 14, "certificate expired on 2030-06-01"),
        (b"nonsense", 14, ""),
    ],
)
def test_warnings(time: bytes, days: int, line: str) -> None:
    """A line from so many days before the end, and after it; none of what cannot be read."""
    assert warning(validity(time, 0x17), days, NOW) == line
    assert warning(None, days, NOW) == ""


@given(data=st.binary(max_size=200), at=st.integers(0, 60), byte=st.integers(0, 255))
@example(data=b"0\x84\xff\xff\xff\xff0", at=0, byte=48)
def test_anything_else(data: bytes, at: int, byte: int) -> None:
    """Whatever is wrong with it is a ValueError, also of a certificate with one byte replaced."""
    damaged = bytearray(validity(b"491231235959Z", 0x17))
    damaged[at % len(damaged)] = byte
    for one in (data, bytes(damaged)):
        try:
            ends(one)
        except ValueError:
            continue
