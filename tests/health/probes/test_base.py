"""Tests of ``paraglider.health.probes.base``: every look ends, with one line."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable

import pytest

from paraglider.health.probes.base import (
    Look,
    ProbeError,
    Step,
    UnableError,
    phrase,
    shortened,
)
from paraglider.health.targets import Target


@pytest.mark.parametrize(
    ("error", "passed", "detail"),
    [
        (None, True, "fine"),
        (ProbeError("status 503"), False, "status 503"),
        (TimeoutError(), False, "wait timed out after 30 s"),
        (OSError(errno.ECONNREFUSED, "x"), False, "wait: connection refused"),
        (OSError(errno.EMFILE, "x"), None, "could not look: wait: too many open files"),
        (UnableError("no rights"), None, "could not look: no rights"),
        (RecursionError("odd"), None, "could not look: RecursionError"),
    ],
)
def test_outcomes(
    probing: Callable[..., Look], error: Exception | None, passed: bool | None, detail: str
) -> None:
    """What the backend does counts against it; what this host lacks, or we do wrong, does not."""

    async def probe(target: Target, step: Step) -> str:
        step.name = "wait"
        if error is not None:
            raise error
        return "fine"

    found = probing(probe, timeout=30)
    assert (found.passed, found.detail) == (passed, detail)


def test_patience(probing: Callable[..., Look]) -> None:
    """A probe that never ends is ended, and the line says what it was at."""

    async def probe(target: Target, step: Step) -> str:
        step.name = "answer"
        await asyncio.Future()
        return "never"

    found = probing(probe, timeout=0.1)
    assert (found.passed, found.detail) == (False, "answer timed out after 0.1 s")
    assert found.duration >= 0.09


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  ok\nmore", "ok"),
        ("a\x1b[31mb\x00c", "a[31mbc"),
        ("x" * 500, "x" * 120 + "..."),
        ("", ""),
    ],
)
def test_shortened(text: str, line: str) -> None:
    """What somebody else wrote is one short line, without anything a terminal would obey."""
    assert shortened(text) == line


def test_phrases() -> None:
    """The words of the platform, in small letters; TLS says what it was about."""
    assert phrase(OSError(errno.EHOSTUNREACH, "x")) == "no route to host"
    assert phrase(OSError("odd")) == "odd"
    error = ssl.SSLError(1, "x")
    error.reason = "WRONG_VERSION_NUMBER"
    assert phrase(error) == "TLS: wrong version number"
