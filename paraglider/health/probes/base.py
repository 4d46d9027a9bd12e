"""The base class of probes, and how one check is run.

Lives here: ``Probe``, ``Code``, ``Passed``, ``ProbeError``, ``UnableError``, ``ProbeStep``,
``CheckResult``, ``run_check``, ``phrase``, ``shortened``.
Rules: a check ends within its timeout whatever the target does, with one code and one line of
detail. The line quotes the target's bytes as printable characters only, at most _SHOWN of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

from paraglider.config.health import ProbeKind
from paraglider.health.codes import Code
from paraglider.health.pinger import Pinger
from paraglider.health.targets import Target

#: errors of this host, not of the target: no descriptors, memory or ports left
OURS: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
)
#: longest detail, in characters
_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Passed:
    """The backend passed; ``detail`` is one line that says what was received, ``warning`` one about
    what will make it fail, or empty.
    """

    code: Code
    detail: str
    warning: str = ""


class ProbeError(Exception):
    """The backend failed the check; the message is the reason in one line."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class UnableError(Exception):
    """The check could not be made because of this host; the message is the reason."""


class ProbeStep:
    """The present step of a probe: ``name`` ("connect", "answer") and ``timeout``, the code, are
    reported if the check times out during it.
    """

    def __init__(self) -> None:
        self.name = "connect"
        self.timeout = Code.L4TOUT


class Probe(ProbeKind):
    """Checks targets; one instance serves all checks of its type.

    ``echo`` has the raw sockets for pings, or is None. The constructor opens all resources of the
    host that the probe needs: the process gives up its privileges afterwards.
    """

    def __init__(self, echo: Pinger | None = None) -> None:
        self.echo = echo

    async def start(self) -> None:
        """Prepare on the running loop; called once, before the first check."""

    async def close(self) -> None:
        """Close all resources; called once, after the last check."""

    @abstractmethod
    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Check ``target``. Raises ``ProbeError`` if it fails, ``UnableError`` if the check cannot
        be made, and OSError for errors of the network (L4CON). The caller cancels it at the
        timeout, and reports ``step``.
        """


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check: ``detail`` and ``warning`` are one line, ``duration`` in seconds.

    ``passed`` is None if the check could not be made (SOCKERR); the backend's state then stays.
    """

    passed: bool | None
    code: Code
    detail: str
    duration: float
    warning: str = ""


async def run_check(probe: Probe, target: Target) -> CheckResult:
    """Check ``target`` with ``probe``, within the check's timeout."""
    loop = asyncio.get_running_loop()
    began, step = loop.time(), ProbeStep()
    timeout = target.check.effective_timeout if target.check is not None else 1.0
    passed: bool | None = False
    warning = ""
    try:
        async with asyncio.timeout(timeout):
            result = await probe(target, step)
            passed, code, detail, warning = True, result.code, result.detail, result.warning
    except TimeoutError:
        code, detail = step.timeout, f"{step.name} timed out after {timeout:g} s"
    except ProbeError as failed:
        code, detail = failed.code, str(failed)
    except UnableError as unable:
        passed, code, detail = None, Code.SOCKERR, f"not checked: {unable}"
    except OSError as error:
        code, detail = Code.L4CON, f"{step.name}: {phrase(error)}"
        if error.errno in OURS:
            passed, code, detail = None, Code.SOCKERR, f"not checked: {detail}"
    except Exception as error:  # noqa: BLE001 - an internal error is not the backend's fault
        passed, code, detail = None, Code.SOCKERR, f"not checked: {type(error).__name__}"
    return CheckResult(passed, code, shortened(detail), loop.time() - began, shortened(warning))


def phrase(error: OSError) -> str:
    """The error's text in lower case: "connection refused"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}"
    said = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return said[:1].lower() + said[1:]


def shortened(text: str) -> str:
    """The first line of ``text`` without unprintable characters, cut to _SHOWN characters."""
    line = text.strip().partition("\n")[0]
    line = "".join(letter for letter in line if letter.isprintable())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
