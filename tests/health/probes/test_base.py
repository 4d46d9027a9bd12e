"""Tests of ``paraglider.health.probes.base``: every check ends, with one line."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable

import pytest

from paraglider.health.codes import Code
from paraglider.health.probes.base import (
    CheckResult,
    Passed,
    Probe,
    ProbeError,
    ProbeStep,
    UnableError,
    phrase,
    shortened,
)
from paraglider.health.targets import Target


@pytest.mark.parametrize(
    ("error", "passed", "code", "detail"),
    [
        (None, True, "L7OK", "fine"),
        (ProbeError(Code.L7STS, "status 503"), False, "L7STS", "status 503"),
        (TimeoutError(), False, "L6TOUT", "wait timed out after 30 s"),
        (OSError(errno.ECONNREFUSED, "x"), False, "L4CON", "wait: connection refused"),
        (
            OSError(errno.EMFILE, "x"),
            None,
            "SOCKERR",
            "not checked: wait: too many open files",
        ),
        (UnableError("no rights"), None, "SOCKERR", "not checked: no rights"),
        (RecursionError("odd"), None, "SOCKERR", "not checked: RecursionError"),
    ],
)
def test_outcomes(
    probing: Callable[..., CheckResult],
    error: Exception | None,
    passed: bool | None,
    code: str,
    detail: str,
) -> None:
    """Failures of the backend count against it; errors of this host and internal errors do not."""

    class Ends(Probe):
        """Raises ``error``."""

        async def __call__(self, target: Target, step: ProbeStep) -> Passed:
            """Pass, or raise."""
            step.name, step.timeout = "wait", Code.L6TOUT
            if error is not None:
                raise error
            return Passed(Code.L7OK, "fine")

    found = probing(Ends(), timeout=30)
    assert (found.passed, found.code, found.detail) == (passed, code, detail)


def test_timeout(probing: Callable[..., CheckResult]) -> None:
    """A probe that never returns is cancelled, and the line names its step."""

    class Hangs(Probe):
        """Never ends."""

        async def __call__(self, target: Target, step: ProbeStep) -> Passed:
            """Wait."""
            step.name, step.timeout = "answer", Code.L7TOUT
            await asyncio.Future()
            return Passed(Code.L7OK, "never")

    found = probing(Hangs(), timeout=0.1)
    assert (found.code, found.detail) == (Code.L7TOUT, "answer timed out after 0.1 s")
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
    """Text of a server becomes one short line without control characters."""
    assert shortened(text) == line


def test_phrases() -> None:
    """The platform's text in lower case; TLS errors with their reason."""
    assert phrase(OSError(errno.EHOSTUNREACH, "x")) == "no route to host"
    assert phrase(OSError("odd")) == "odd"
    error = ssl.SSLError(1, "x")
    error.reason = "WRONG_VERSION_NUMBER"
    assert phrase(error) == "TLS: wrong version number"
