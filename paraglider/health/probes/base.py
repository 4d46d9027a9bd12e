"""What a probe is, what it returns, and how one check is run to its end.

Lives here: ``Probe``, ``Code``, ``Passed``, ``ProbeError``, ``UnableError``, ``ProbeStep``,
``Look``, ``look``, ``phrase``, ``shortened``.
Rules: whatever a target does, a check ends within its target's patience, with one code and one
line; of what the target sent the line has nothing but printable characters, and few of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

from paraglider.config.probe import ProbeKind
from paraglider.health.codes import Code
from paraglider.health.pinger import Pinger
from paraglider.health.targets import Target

#: what this host lacks: descriptors, memory, ports
OURS: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
)
#: characters of a line that somebody else wrote, as a detail repeats it
_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Passed:
    """The backend passed; ``detail`` is one line that says with what."""

    code: Code
    detail: str


class ProbeError(Exception):
    """The backend did not pass; the message is one line that says why."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class UnableError(Exception):
    """The check could not take place, for a cause on this host; the message says which."""


class ProbeStep:
    """What a probe does at the moment: ``name`` ("connect", "answer") is for the line of a check
    that times out, ``timeout`` is its code then.
    """

    def __init__(self) -> None:
        self.name = "connect"
        self.timeout = Code.L4TOUT


class Probe(ProbeKind):
    """Checks targets; one instance serves all checks of its type.

    ``echo`` has the raw sockets for pings, None where there are none. What an instance needs of the
    host is opened in the constructor: the process is locked in afterwards.
    """

    def __init__(self, echo: Pinger | None = None) -> None:
        self.echo = echo

    async def start(self) -> None:
        """Called once on the running loop, before the first check."""

    async def close(self) -> None:
        """Called once after the last check: closes what is open."""

    @abstractmethod
    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Check ``target``. Raises ``ProbeError`` when it does not pass, ``UnableError`` when the
        check cannot take place, and OSError where the network says so (L4CON). It need not watch
        the time: the caller cancels it, and reports ``step``.
        """


@dataclass(frozen=True, slots=True)
class Look:
    """How a check went: ``detail`` is one line, ``duration`` seconds.

    ``passed`` is None where it could not take place (SOCKERR): that says nothing of the backend.
    """

    passed: bool | None
    code: Code
    detail: str
    duration: float


async def look(probe: Probe, target: Target) -> Look:
    """Have ``probe`` check ``target`` for as long as its check allows."""
    loop = asyncio.get_running_loop()
    began, step = loop.time(), ProbeStep()
    patience = target.check.patience if target.check is not None else 1.0
    passed: bool | None = False
    try:
        async with asyncio.timeout(patience):
            result = await probe(target, step)
            passed, code, detail = True, result.code, result.detail
    except TimeoutError:
        code, detail = step.timeout, f"{step.name} timed out after {patience:g} s"
    except ProbeError as failed:
        code, detail = failed.code, str(failed)
    except UnableError as unable:
        passed, code, detail = None, Code.SOCKERR, f"could not look: {unable}"
    except OSError as error:
        code, detail = Code.L4CON, f"{step.name}: {phrase(error)}"
        if error.errno in OURS:
            passed, code, detail = None, Code.SOCKERR, f"could not look: {detail}"
    except Exception as error:  # noqa: BLE001 - what nobody foresaw says nothing of the backend
        passed, code, detail = None, Code.SOCKERR, f"could not look: {type(error).__name__}"
    return Look(passed, code, shortened(detail), loop.time() - began)


def phrase(error: OSError) -> str:
    """What the network said, in small letters: "connection refused"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}"
    said = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return said[:1].lower() + said[1:]


def shortened(text: str) -> str:
    """The first line of ``text``, with what is not printable left out, and not too long."""
    line = text.strip().partition("\n")[0]
    line = "".join(letter for letter in line if letter.isprintable())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
