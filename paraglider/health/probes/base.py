"""What a probe is, and how one is run to its end.

Lives here: ``Probe``, ``ProbeError``, ``UnableError``, ``Look``, ``look``, ``phrase``,
``shortened``.
Rules: whatever a target does, a look ends, within its target's patience and with one line in
plain words; nothing of what the target sent is in it but what is printable, and that short.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from paraglider.health.targets import Target

#: what this host lacks: descriptors, memory, ports
OURS: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
)
#: characters of a line that somebody else wrote, as a detail repeats it
_SHOWN: Final = 120


class ProbeError(Exception):
    """The backend did not pass; the message is one line that says why."""


class UnableError(Exception):
    """The look could not take place, for a cause that is this host's; the message says which."""


class Step:
    """What a probe is at, for the words of a time that ran out: "connect", "answer"."""

    def __init__(self) -> None:
        self.name = "connect"


Probe = Callable[[Target, Step], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Look:
    """How a look went: ``detail`` is one line, ``duration`` seconds.

    ``passed`` is None where it could not take place: that says nothing of the backend.
    """

    passed: bool | None
    detail: str
    duration: float


async def look(probe: Probe, target: Target) -> Look:
    """Have ``probe`` look at ``target`` for as long as its check allows."""
    loop = asyncio.get_running_loop()
    began, step = loop.time(), Step()
    patience = target.check.patience if target.check is not None else 1.0
    passed: bool | None = False
    try:
        async with asyncio.timeout(patience):
            detail = await probe(target, step)
            passed = True
    except TimeoutError:
        detail = f"{step.name} timed out after {patience:g} s"
    except ProbeError as failed:
        detail = str(failed)
    except UnableError as unable:
        detail, passed = f"could not look: {unable}", None
    except OSError as error:
        detail = f"{step.name}: {phrase(error)}"
        if error.errno in OURS:
            detail, passed = f"could not look: {detail}", None
    except Exception as error:  # noqa: BLE001 - what nobody foresaw says nothing of the backend
        detail, passed = f"could not look: {type(error).__name__}", None
    return Look(passed, shortened(detail), loop.time() - began)


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
