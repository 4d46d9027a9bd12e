"""The monitor's reports about backends: results of checks, changes of health, discovered hosts.

Rules: times are monotonic seconds, the same for all processes of a host. All are named tuples with
bounds, which ``daemon.messages`` validates by the thousand.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field

from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.health.codes import Code

#: characters of a line that is shown to people
LONGEST_LINE: Final = 300
#: characters of a name
LONGEST_NAME: Final = 4096


def line(text: str) -> str:
    """``text`` cut to LONGEST_LINE, with its control characters replaced by spaces."""
    cut = text[:LONGEST_LINE]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)


Line = Annotated[str, AfterValidator(line)]
Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Seconds = Annotated[float, Field(ge=0.0, le=1e10, allow_inf_nan=False)]
#: the events that a check can cause; the others of ``Event`` are the operator's
CheckEvent = Literal[Event.CHECK_PASSED, Event.CHECK_FAILED]


class CheckReport(NamedTuple):
    """How one check of a backend went: ``code`` and ``detail``, one line, are the probe's,
    ``duration`` is seconds. ``warning`` is a line about what will make the backend fail, or empty.

    ``passed`` is None where the check could not take place, for a cause on this host.
    """

    service: Name
    backend: Name
    passed: bool | None
    code: Code
    detail: Line
    duration: Annotated[float, Field(ge=0.0, le=86400.0, allow_inf_nan=False)]
    at: Seconds
    warning: Line = ""


class AgentReport(NamedTuple):
    """What the agent of a backend has said so far: ``weight`` in per cent of the configured one,
    and ``mode``, each None if it said nothing about it. ``answered``, ``code`` and ``detail`` are
    of the last question.
    """

    service: Name
    backend: Name
    answered: bool
    code: Code
    detail: Line
    weight: Annotated[int, Field(ge=0, le=1000)] | None
    mode: Literal["ready", "drain", "maint"] | None
    at: Seconds = 0.0


class HealthChange(NamedTuple):
    """A backend went up or down; ``held_until`` is when a flapping one may come back, or 0."""

    service: Name
    backend: Name
    event: CheckEvent
    detail: Line
    at: Seconds
    held_until: Seconds = 0.0


class DiscoveredHost(NamedTuple):
    """Failover found a host that no service lists (``up``), or lost one that it had found."""

    up: bool
    address: IPAddress
    detail: Line
    at: Seconds
