"""When a certificate ends, read from its DER: ``ssl`` decodes only certificates that it verifies.

Lives here: ``ends``, and ``warning``, the line about a certificate that ends soon.
Rules: pure; time is an argument. Lengths in the certificate may lie: whatever is wrong with them is
a ValueError.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

# ITU-T X.690, §8.1.2 and §8.1.3; the tags of X.680
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
#: characters of the year in a time of each tag
_YEARS: Final = {_UTC_TIME: 2, _GENERALIZED_TIME: 4}


def ends(der: bytes) -> datetime:
    """The end of the validity (notAfter) of the certificate ``der`` (RFC 5280, §4.1.2.5); raises
    ValueError if it is none.
    """
    try:
        at, _ = _enter(der, 0, _SEQUENCE)  # Certificate
        at, _ = _enter(der, at, _SEQUENCE)  # TBSCertificate
        if der[at] == _VERSION:
            at = _element(der, at)[1]
        for _ in range(3):  # serial number, algorithm, issuer
            at = _element(der, at)[1]
        at, _ = _enter(der, at, _SEQUENCE)  # validity
        at = _element(der, at)[1]  # notBefore
        digits = _YEARS[der[at]]
        first, end = _element(der, at)
    except (IndexError, KeyError) as error:
        raise ValueError("not the DER of a certificate") from error
    return _time(der[first:end], digits)


def warning(der: bytes | None, days: int, now: datetime) -> str:
    """A line if the certificate ends within ``days``, or has ended, at ``now``; else empty."""
    if der is None:
        return ""
    try:
        end = ends(der)
    except ValueError:
        return ""
    if end - now > timedelta(days):
        return ""
    return f"certificate {'expired' if end <= now else 'expires'} on {end.date()}"


def _time(text: bytes, digits: int) -> datetime:
    """``text``, a time whose year has ``digits``. Not by strptime, which imports a module when it
    is first called: the monitor has no files by then.
    """
    if len(text) != digits + 11 or not text[:-1].isdigit() or text[-1:] != b"Z":
        raise ValueError(f"not a time of a certificate: {text[:20]!r}")
    year = int(text[:digits])
    if digits == 2:
        year += 1900 if year >= 50 else 2000
    month, day, hour, minute, second = (int(text[n : n + 2]) for n in range(digits, digits + 10, 2))
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _enter(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """The begin and end of the content of the element of ``tag`` at ``at``."""
    if der[at] != tag:
        raise ValueError(f"tag {der[at]:#x} where {tag:#x} belongs")
    return _element(der, at)


def _element(der: bytes, at: int) -> tuple[int, int]:
    """The begin and end of the content of the element at ``at``, of any tag of one byte."""
    length, at = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise ValueError("a length of no certificate")
        length, at = int.from_bytes(der[at : at + size], "big"), at + size
    if at + length > len(der):
        raise ValueError("the certificate is cut off")
    return at, at + length
